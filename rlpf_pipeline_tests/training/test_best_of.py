import math
from pathlib import Path

import pytest

from rlpf_pipeline.models.base import load_causal_lm, load_tokenizer
from rlpf_pipeline.settings import PolicySettings
from rlpf_pipeline.training import suggest as module
from rlpf_pipeline.training.best_of import BestOf
from rlpf_pipeline.training.suggest import Policy, suggest
from rlpf_pipeline_tests.conftest import TINY
from rlpf_pipeline_tests.training.tiny_ppo import PROMPTS, likes_letter

PLAIN = {"length": "none", "missing_eos_penalty": 0.0}


def best_of(cache: Path, n: int, **settings: object) -> BestOf:
    chosen = PolicySettings.model_validate(PLAIN | settings)
    return BestOf(n, likes_letter("e"), load_tokenizer(TINY, cache), chosen)  # type: ignore[arg-type]


def ids(cache: Path, *texts: str) -> list[list[int]]:
    tokenizer = load_tokenizer(TINY, cache)
    return [[*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id] for text in texts]


def test_the_text_with_the_highest_reward_of_every_n_is_kept(cache: Path) -> None:
    own = ids(cache, "now", "every week", "bread", "day", "here", "see me here")
    other = ids(cache, "ee", "e", "", "a", "b", "c")
    kept = best_of(cache, 3).pick(PROMPTS[:2], [own, other])
    assert kept == [[own[1], own[5]], [other[0], other[3]]]


def test_the_penalties_of_the_reward_count_in_the_choice(cache: Path) -> None:
    cut = ids(cache, "every week")[0][:-1]
    (whole,) = ids(cache, "here")
    assert best_of(cache, 2, missing_eos_penalty=5.0).pick(PROMPTS[:1], [[cut, whole]]) == [[whole]]


def test_its_kl_is_bounded_by_how_many_it_chooses_from(cache: Path) -> None:
    assert best_of(cache, 1).kl == 0
    assert best_of(cache, 5).kl == pytest.approx(math.log(5) - 4 / 5)


def test_suggestions_are_the_best_of_what_is_drawn(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def sample(model, prompts, samples, sampling, generator, batch):  # type: ignore[no-untyped-def]
        asked.append(samples)
        yield [ids(cache, "now", "here", "day", "every week") for _ in prompts]

    monkeypatch.setattr(module, "batches_of_samples", sample)
    chooser = best_of(cache, 2)
    policy = Policy(load_causal_lm(TINY, cache), chooser.tokenizer, chooser.settings, chooser)
    (own,) = suggest(policy, [(None, "Bread")], 2, seed=0)
    assert [suggestion.text for suggestion in own] == ["here", "every week"]
    assert asked == [4]
