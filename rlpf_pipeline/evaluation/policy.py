"""What a policy writes for originals it has not seen, judged by both reward models and, in the market, by the truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlpf_pipeline.models.packing import Group, batches_by_tokens, encode, pack
from rlpf_pipeline.models.reward_model import SCORING_TOKENS, RewardModel
from rlpf_pipeline.settings import EvaluationSettings, PolicySettings
from rlpf_pipeline.training.best_of import BestOf
from rlpf_pipeline.training.losses import token_log_probs
from rlpf_pipeline.training.prompts import Prompt, decode
from rlpf_pipeline.training.rewards import head_gains
from rlpf_pipeline.training.rollout import batches_of_samples, gathered
from rlpf_pipeline.training.sampling import Sampling
from rlpf_pipeline.training.wording import shared_wording


def write_suggestions(
    name: str,
    model: PreTrainedModel,
    reference: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    evaluation: EvaluationSettings,
    policy: PolicySettings,
    seed: int,
    on_batch: Callable[[int], None],
    best_of: BestOf | None,
) -> pd.DataFrame:
    """Suggestions of one policy (contracts.SUGGESTIONS, without the rewards), sampled as in training.

    best_of: how it chooses among its texts, if it does; the log ratio of each is then the bound on its KL.
    """
    batches = batches_of_samples(
        model,
        [prompt.ids for prompt in prompts],
        evaluation.samples_per_original * (best_of.n if best_of else 1),
        Sampling.of(tokenizer, policy),
        torch.Generator().manual_seed(seed),
        evaluation.batch_size,
    )
    responses = gathered(batches, on_batch)
    if best_of:
        responses = best_of.pick(prompts, responses)
    groups = [Group(prompt.ids, own) for prompt, own in zip(prompts, responses, strict=True)]
    pad, temperature = tokenizer.pad_token_id, policy.temperature
    if model is reference or best_of:
        log_ratio = np.full(sum(len(own) for own in responses), best_of.kl if best_of else 0.0)
    else:
        log_ratio = text_log_probs(model, groups, temperature, pad) - text_log_probs(
            reference, groups, temperature, pad
        )
    rows = [
        (prompt.ad_id, prompt.context, prompt.original, name, number, ids)
        for prompt, own in zip(prompts, responses, strict=True)
        for number, ids in enumerate(own)
    ]
    table = pd.DataFrame(rows, columns=["ad_id", "context", "original", "policy", "sample", "ids"])
    return table.assign(
        text=[decode(tokenizer, ids) for ids in table.ids],
        tokens=table.ids.map(len),
        finished=[ids[-1] == tokenizer.eos_token_id for ids in table.ids],
        log_ratio=log_ratio,
    ).drop(columns="ids")


@torch.inference_mode()
def text_log_probs(model: PreTrainedModel, groups: Sequence[Group], temperature: float, pad_id: int) -> np.ndarray:
    """log-probability of every text behind its prefix, in the order of the groups: (texts,), nats."""
    sums: list[list[float]] = [[] for _ in groups]
    for batch in batches_by_tokens([group.length for group in groups], SCORING_TOKENS):
        packed = pack([groups[i] for i in batch], pad_id, model.device)
        hidden = encode(model.model, packed)[packed.row, packed.predictor]
        log_probs = token_log_probs(hidden, model.lm_head.weight, packed.targets, temperature)
        values = iter(packed.by_text(log_probs).sum(1).tolist())
        for i in batch:
            sums[i] = [next(values) for _ in groups[i].texts]
    return np.concatenate(sums)


def add_rewards(suggestions: pd.DataFrame, prompts: Sequence[Prompt], models: dict[str, RewardModel]) -> pd.DataFrame:
    """Add each reward model's gain over the original as a column, and `reward_spread`, over the heads of `reward`."""
    texts = suggestions.groupby("ad_id", sort=False)["text"].agg(list)
    own = [texts[prompt.ad_id] for prompt in prompts]
    heads = {name: head_gains(model, prompts, own) for name, model in models.items()}
    means = {name: of_model.mean(axis=1) for name, of_model in heads.items()}
    return suggestions.assign(**means, reward_spread=heads["reward"].std(axis=1))


def summarise(suggestions: pd.DataFrame) -> dict[str, float]:
    """Means over the suggestions of one policy; `distinct` is the share of different texts within an original,
    `shared_wording` says how far they are of one formula (`wording.py`), `same_first_word` which share of all texts
    begins with the word most of them begin with."""
    distinct = suggestions.groupby("ad_id")["text"].agg(lambda texts: texts.nunique() / len(texts))
    return {
        "reward": float(suggestions.reward.mean()),
        "evaluation_reward": float(suggestions.evaluation_reward.mean()),
        "reward_spread": float(suggestions.reward_spread.mean()),
        "tokens": float(suggestions.tokens.mean()),
        "finished": float(suggestions.finished.mean()),
        "distinct": float(distinct.mean()),
        "shared_wording": float(shared_wording(suggestions.text.tolist(), suggestions.ad_id.tolist()).mean()),
        "same_first_word": float(first_words(suggestions).value_counts(normalize=True, dropna=False).max()),
        "copies": float(are_copies(suggestions).mean()),
        "kl": float(suggestions.log_ratio.mean()),
    }


def first_words(suggestions: pd.DataFrame) -> pd.Series:
    """Whatever their case; NaN for an empty text."""
    return suggestions.text.str.casefold().str.split().str[0]


def are_copies(suggestions: pd.DataFrame) -> pd.Series:
    """Whether each says what its original says, whatever the case."""
    return suggestions.text.str.casefold() == suggestions.original.str.casefold()


def paired_difference(suggestions: pd.DataFrame, column: str) -> tuple[float, float | None]:
    """Mean of adllama's column less imitation v2's over the originals, and its standard error clustered by original,
    which a single original does not have."""
    means = suggestions.pivot_table(index="ad_id", columns="policy", values=column, aggfunc="mean")
    difference = means["adllama"] - means["imitation_v2"]
    error = float(difference.std(ddof=1) / np.sqrt(len(difference))) if len(difference) > 1 else None
    return float(difference.mean()), error
