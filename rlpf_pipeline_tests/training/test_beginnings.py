from pathlib import Path

import numpy as np
import pytest
import torch

from rlpf_pipeline.training.beginnings import FEWEST, Trust, beginnings_of, beside, by_token
from rlpf_pipeline.training.prompts import decode
from rlpf_pipeline_tests.training.tiny_ppo import (
    PROMPTS,
    SHARP,
    Likes,
    groups_of,
    likes_letter,
    scores_of,
    step,
    tiny_trainer,
)

READS = {"critic": "reward-model", "beginning_tokens": 2}


def test_a_beginning_is_rewarded_for_what_it_has(cache: Path) -> None:
    """Of texts of 5, 2 and 1 tokens, read every 2 tokens, the first alone has beginnings; ends are not asked for."""
    settings = {"length": "linear", "length_penalty": 5.0, "missing_eos_penalty": 7.0, "repetition_penalty": 0.5}
    ppo = tiny_trainer(cache, **settings)
    word, space = ppo.tokenizer(" now")["input_ids"], ppo.tokenizer(" it")["input_ids"]
    text = [*word, *word, *space, *word, *space]
    read = beginnings_of(
        Likes(lambda own: 10.0 * own.count("now")),
        ppo.tokenizer,
        PROMPTS[:2],
        [[text, text[:2]], [text[:1]]],
        ppo.terms,
        2,
    )
    assert [decode(ppo.tokenizer, text[:end]) for end in (2, 4)] == ["now now", "now now it now"]
    assert read == [[[20.0 - 0.5 * 1 / 2, 30.0 - 0.5 * 2 / 4], []], [[]]]


def test_beginnings_are_beside_the_others_of_their_prompt() -> None:
    known = beside([[[3.0, 5.0], []]], np.array([[1.0, 2.0]]), numbers=3)
    np.testing.assert_equal(known, [[[2.0, 4.0, np.nan], [np.nan] * 3]])


def test_what_is_foretold_before_a_token_is_of_the_last_beginning_before_it() -> None:
    foretold = np.array([[[2.0, 4.0, np.nan], [np.nan] * 3]])
    before = by_token(foretold, every=2, places=8)
    assert before.tolist() == [[[0, 0, 2, 2, 4, 4, 4, 4], [0] * 8]]


def test_each_number_of_beginning_has_its_own_regression_of_the_texts_that_had_it() -> None:
    """By numpy's least squares; of the second number there are the longer texts alone, in two portions."""
    rng = np.random.default_rng(1)
    known = rng.normal(1.0, 1.0, (25, 4, 2))
    outcomes = 0.3 * known[..., 0] + 0.5 * known[..., 1] + rng.normal(0, 0.1, (25, 4))
    known[:10, :, 1] = np.nan
    trust = Trust.of_none(2).including(known[:12], outcomes[:12]).including(known[12:], outcomes[12:])
    for number, own in ((0, slice(None)), (1, slice(10, None))):
        x = known[own, :, number].ravel()
        slope, intercept = np.polyfit(x, outcomes[own].ravel(), 1)
        assert trust.slopes()[number] == pytest.approx(slope)
        assert trust.foretold(known)[own, :, number].ravel() == pytest.approx(intercept + slope * x)
    np.testing.assert_equal(np.isnan(trust.foretold(known)), np.isnan(known))


def test_few_texts_foretell_nothing_and_no_slope_is_below_0_or_above_1() -> None:
    x = np.arange(FEWEST, dtype=float)[None, :, None]
    assert not Trust.of_none(1).including(x[:, 1:], x[:, 1:, 0]).foretold(x).any()
    assert Trust.of_none(1).including(x, 9 * x[..., 0]).slopes() == 1
    assert Trust.of_none(1).including(x, -x[..., 0]).slopes() == 0


def test_the_first_rollout_is_not_judged_by_its_own_outcomes_and_later_ones_by_those_before(cache: Path) -> None:
    ppo = tiny_trainer(cache, **SHARP, **READS)
    rows, seen = [], []
    for _ in range(3):
        rows.append(step(ppo))
        seen.append(ppo.trust.texts[0])
    assert rows[0]["trust"] == 0
    assert 0.3 < rows[1]["trust"] <= 1
    assert seen == [64, 128, 192]  # 4 prompts, 16 samples


def test_the_values_are_the_prior_plus_the_heads_word(cache: Path) -> None:
    ppo = tiny_trainer(cache, **READS)
    step(ppo)
    groups, scores = groups_of(ppo), scores_of(ppo)
    _, known = ppo.beside_others(ppo.rollout, scores.numpy())
    foretold = torch.from_numpy(ppo.prior(ppo.rollout, known))
    assert foretold.abs().max() > 0.1
    (with_prior,), (without,) = (ppo.learner.estimate(groups, scores, 0.1, prior) for prior in (foretold, None))
    longest = with_prior.mask.shape[1]
    prior = foretold.flatten(0, 1)[:, :longest].float().to(without.values.device)
    expected = without.values * without.mask + prior
    torch.testing.assert_close(with_prior.values * with_prior.mask, expected, rtol=0, atol=1e-5)


def test_a_text_that_ends_as_it_began_leaves_later_tokens_nothing_to_learn(cache: Path) -> None:
    """Where the prior is the outcome, the advantages behind it are 0 (before whitening), at any lambda."""
    ppo = tiny_trainer(cache)
    groups, scores = groups_of(ppo), torch.linspace(-1, 1, 32).view(4, 8)
    prior = scores[..., None].repeat(1, 1, 6)
    ppo.learner.whitened = lambda parts: parts  # type: ignore[method-assign]
    (part,) = ppo.learner.estimate(groups, scores, 0.0, prior)
    assert (part.advantages * part.mask).abs().max() < 1e-5
    (blind,) = ppo.learner.estimate(groups, scores, 0.0)
    assert (blind.advantages * blind.mask).abs().max() > 0.5


def test_the_critic_explains_more_when_it_reads_what_there_is(cache: Path) -> None:
    """The letter's count so far foretells the whole text's: with it, less is left of the returns' variance."""
    blind, reads = (
        tiny_trainer(cache, likes_letter("e"), learning_rate=1e-9, samples_per_prompt=32, **own) for own in ({}, READS)
    )
    for ppo in (blind, reads):
        for _ in range(3):
            step(ppo)
    assert reads.history[-1]["explained"] > blind.history[-1]["explained"] + 0.1
