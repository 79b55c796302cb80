"""What a policy is trained for: how much better than the original a suggestion is by the reward model, less penalties.

A Bradley-Terry score means something only against another text of the same ad, so the reward is the score's gain
over the advertiser's original: the log odds that the suggestion gets the higher CTR. The reward is a list of terms,
each a weight and a small function of the samples, each logged on its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from rlpf_pipeline.models.reward_model import RewardModel
from rlpf_pipeline.sentence_embeddings import cosines
from rlpf_pipeline.settings import PolicySettings
from rlpf_pipeline.training.prompts import Prompt, decode
from rlpf_pipeline.training.wording import shared_wording

Responses = Sequence[Sequence[list[int]]]
"""Token ids of sampled texts, [prompt][sample]."""


@dataclass(frozen=True)
class Samples:
    """Sampled texts, the samples of a prompt together.

    gains: (texts, heads), each head's score less the one it gives to the original, log odds. texts: as decoded, each
    beside its prompt's original in `originals`.
    tokens: (texts,), as drawn, end marks included. original_tokens: (texts,), an original has no end mark.
    finished: (texts,), False for a text cut off at the limit, which has no end mark either.
    """

    gains: np.ndarray
    texts: Sequence[str]
    originals: Sequence[str]
    tokens: np.ndarray
    original_tokens: np.ndarray
    finished: np.ndarray

    @property
    def text_tokens(self) -> np.ndarray:
        """Tokens of each text alone, as an original's are counted: (texts,)."""
        return self.tokens - self.finished

    @cached_property
    def relevance(self) -> np.ndarray:
        """Cosine of each text's sentence embedding with its original's: (texts,)."""
        return cosines(self.texts, self.originals)


Value = Callable[[Samples], np.ndarray]


class Term(NamedTuple):
    """A part of the reward: `weight` times `value`, (texts,)."""

    name: str
    weight: float
    value: Value
    whole: bool = False
    """Whether it is of whole texts only: it means nothing of a beginning, or looks at all texts of a step."""


def reward_terms(settings: PolicySettings) -> list[Term]:
    """The terms of the settings; those of weight 0 are left out."""
    return [Term("gain", 1.0, mean_gain), *penalties(settings)]


def penalties(settings: PolicySettings) -> list[Term]:
    """What is taken off a text's gain, whichever reward model judges it: the doubts of its own heads, and what texts
    alone show. Raises ValueError where one needs what people's texts are like, and nobody has measured that."""
    require_measured(settings)
    lengths: dict[str, Value] = {
        "none": tokens,
        "linear": tokens,
        "band": partial(tokens_outside_band, shortest=settings.shortest, longest=settings.longest),
        "curve": partial(length_surprise, usual=settings.usual_length),
    }
    length_weight = 0.0 if settings.length == "none" else -settings.length_penalty
    terms = (
        Term("spread", -settings.spread_penalty, partial(excess_spread, usual=settings.usual_spread)),
        Term("length", length_weight, lengths[settings.length], whole=True),
        Term("missing_eos", -settings.missing_eos_penalty, unfinished, whole=True),
        Term("repetition", -settings.repetition_penalty, repetition),
        Term("off_topic", -settings.off_topic_penalty, partial(lacking_relevance, least=settings.least_relevance)),
        Term("copy", -settings.copy_penalty, partial(excess_relevance, most=settings.most_relevance)),
        Term("formula", -settings.formula_penalty, formula, whole=True),
    )
    return [term for term in terms if term.weight]


def require_measured(settings: PolicySettings) -> None:
    needed = {"usual_spread": settings.spread_penalty > 0, "usual_length": settings.length == "curve"}
    for name, used in needed.items():
        if used and getattr(settings, name) is None:
            raise ValueError(f"{name} has to be measured or given before anything beyond it can cost (usual.py)")


def samples_of(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], responses: Responses, gains: np.ndarray
) -> Samples:
    """What the terms need to know of the responses. gains: (prompts x samples, heads)."""
    flat = [ids for own in responses for ids in own]
    return Samples(
        gains,
        [decode(tokenizer, ids) for ids in flat],
        [prompt.original for prompt, own in zip(prompts, responses, strict=True) for _ in own],
        np.array([len(ids) for ids in flat]),
        np.repeat([prompt.original_tokens for prompt in prompts], [len(own) for own in responses]),
        np.array([ids[-1] == tokenizer.eos_token_id for ids in flat]),
    )


def scored(
    model: RewardModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], responses: Responses
) -> Samples:
    """The responses with the gains that `model` gives them."""
    return samples_of(tokenizer, prompts, responses, head_gains(model, prompts, decoded(tokenizer, responses)))


def decoded(tokenizer: PreTrainedTokenizerBase, responses: Responses) -> list[list[str]]:
    return [[decode(tokenizer, ids) for ids in own] for own in responses]


def described(samples: Samples, k: int) -> dict[str, float]:
    """Means over texts; `distinct` is the share of different texts among the `k` of a prompt."""
    own = [samples.texts[start : start + k] for start in range(0, len(samples.texts), k)]
    return {
        "reward": float(samples.gains.mean()),
        "tokens": float(samples.tokens.mean()),
        "finished": float(samples.finished.mean()),
        "distinct": float(np.mean([len(set(texts)) / len(texts) for texts in own])),
    }


def weighted(terms: Sequence[Term], samples: Samples) -> dict[str, np.ndarray]:
    """Each term's weighted values by its name, (texts,); their sum is what is maximised."""
    return {term.name: term.weight * term.value(samples) for term in terms}


def head_gains(model: RewardModel, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]]) -> np.ndarray:
    """Score of each text less the score of its prompt's original, head by head: (prompts x samples, heads)."""
    scores = model.score([(p.context, [p.original, *own]) for p, own in zip(prompts, texts, strict=True)])
    return np.concatenate([own[1:] - own[:1] for own in scores])


def mean_gain(samples: Samples) -> np.ndarray:
    return samples.gains.mean(axis=1)


def excess_spread(samples: Samples, usual: float) -> np.ndarray:
    """Standard deviation over heads beyond the usual one: what heads disagree on more than on people's texts is where
    over-optimisation goes (Coste et al. 2024). Without `usual` a copy of the original, about which no two heads differ,
    would be the safest text."""
    return np.maximum(0.0, samples.gains.std(axis=1) - usual)


def tokens(samples: Samples) -> np.ndarray:
    return samples.text_tokens.astype(float)


def tokens_outside_band(samples: Samples, shortest: float, longest: float) -> np.ndarray:
    """Tokens below `shortest` or above `longest` times the original's length.

    Both ends matter: without the lower one, PPO learned to please the reward model with ever shorter texts.
    """
    lacking = np.maximum(0, shortest * samples.original_tokens - samples.text_tokens)
    excess = np.maximum(0, samples.text_tokens - longest * samples.original_tokens)
    return lacking + excess


def length_surprise(samples: Samples, usual: float) -> np.ndarray:
    """Nats by which a length is less likely beside the original's than the same length: z^2 / 2, z the log of their
    ratio over its standard deviation among people's texts for the same ad (`usual.py`). No text counts as one token."""
    return (np.log(np.maximum(1, samples.text_tokens) / samples.original_tokens) / usual) ** 2 / 2


def unfinished(samples: Samples) -> np.ndarray:
    """1 for a text cut off at the limit."""
    return 1.0 - samples.finished


def repetition(samples: Samples) -> np.ndarray:
    """Share of a text's words that repeat an earlier one, whatever their case; 0 for an empty text."""
    words = [text.casefold().split() for text in samples.texts]
    return np.array([1 - len(set(own)) / len(own) if own else 0.0 for own in words])


def lacking_relevance(samples: Samples, least: float) -> np.ndarray:
    """What the cosine of a text's sentence embedding with its original's lacks to `least`; 0 for those that have it.

    Reward models learn from texts that people wrote for the same ad, so they never saw one that is about something
    else, and score it as they please: without this term PPO comes to write texts that fit any ad (docs/ppo.md).
    """
    return np.maximum(0.0, least - samples.relevance)


def excess_relevance(samples: Samples, most: float) -> np.ndarray:
    """1 for a copy of the original, less for a near one: how far the cosine has come from `most` to 1.

    A copy's gain is 0, which is more than what a small policy's own texts earn where people wrote the originals well.
    """
    return np.maximum(0.0, (samples.relevance - most) / (1.0 - most))


def formula(samples: Samples) -> np.ndarray:
    """How much of the other originals' texts a text is worded like (`wording.py`)."""
    return shared_wording(samples.texts, samples.originals)
