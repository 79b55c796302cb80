import json
import math

import numpy as np
import pytest

from rlpf_pipeline.evaluation.reward_model import accuracy_gain, bands, compare, conditions, evaluate, present
from rlpf_pipeline_tests.evaluation.splits import LABEL, split_of

# ad 0: .01 < .03 > .02 (three pairs); ad 1: a tie
SPLIT = split_of([("a", 1000, 10), ("b", 1000, 30), ("c", 1000, 20)], [("d", 500, 10), ("e", 500, 10)])
REWARD = np.array([0.0, 1, 2, 0, 1])


def test_figures_by_hand() -> None:
    figures = evaluate(SPLIT, REWARD)
    # a-b and a-c are right, b-c is not
    assert figures["accuracy"] == pytest.approx(2 / 3)
    assert figures["accuracy_significant"] == pytest.approx(2 / 3)
    # the ceiling of three pairs labelled .9 or .1 is .9
    assert figures["ceiling_closed"] == pytest.approx((2 / 3 - 0.5) / 0.4)
    # margins 1, 2 (right) and 1 (wrong) at .9, and 1 at the tie's .5
    right, wrong = (lambda m, s=s: math.log1p(math.exp(-s * m)) for s in (1, -1))
    losses = [LABEL * right(1) + 0.1 * wrong(1), LABEL * right(2) + 0.1 * wrong(2), LABEL * wrong(1) + 0.1 * right(1)]
    losses.append(0.5 * right(1) + 0.5 * wrong(1))
    assert figures["negative_log_likelihood"] == pytest.approx(sum(losses) / 4)
    # c is not the best of ad 0; either of ad 1 is
    assert figures["top1"] == 0.5
    assert figures["selection_lift"] == pytest.approx((3000 * 0.02 + 1000 * 0.02) / (3000 * 0.02 + 1000 * 0.02) - 1)


def test_a_score_that_only_orders_gets_no_likelihood() -> None:
    figures = evaluate(SPLIT, REWARD, log_odds=False)
    assert "accuracy" in figures
    assert not {"negative_log_likelihood", "calibration_error"} & set(figures)


def test_what_is_no_log_odds_says_no_chances() -> None:
    split, reward = split_of([("a", 1000, 10), ("now?", 1000, 30)]), np.array([0.0, 1])
    rewards = {"reward_model": reward, "tfidf": reward}
    told, untold = compare(split, rewards), compare(split, rewards, pointwise=["reward_model"])
    assert told.by_length
    assert told.by_style
    assert not untold.by_length
    assert not untold.by_style
    assert list(told.reliability) == ["reward_model", "tfidf"]
    assert list(untold.reliability) == ["tfidf"]
    assert "negative_log_likelihood" not in untold.models["reward_model"]
    assert untold.models["tfidf"] == told.models["tfidf"]


def test_conditions_by_hand() -> None:
    found = conditions(SPLIT)
    assert {name: found[name] for name in ("ads", "texts", "clusters", "pairs", "pairs_significant")} == {
        "ads": 2, "texts": 5, "clusters": 2, "pairs": 3, "pairs_significant": 3
    }  # fmt: skip
    assert found["noise_ceiling"] == pytest.approx(LABEL)
    # the best arm, .03, is half above the mean arm; noise takes some of it
    assert 0 < found["oracle_lift"] < 0.5
    assert 0 < found["half_test_lift"] < 0.5


def test_what_a_small_split_cannot_tell_is_absent() -> None:
    # one ad, one pair, not significant, no click anywhere but one
    split = split_of([("a", 10, 1), ("bb", 10, 0)])
    split = split._replace(pairs=split.pairs.assign(p_value=0.5, effect=1.0))
    evaluation = compare(split, {"reward_model": np.array([0.0, 0.0]), "chance": np.zeros(2)})
    figures = evaluation.models["reward_model"]
    assert figures["accuracy"] == 0.5
    missing = ("accuracy_significant", "accuracy_standard_error", "selection_lift_low", "length_correlation")
    assert not set(missing) & set(figures)
    assert "noise_ceiling_significant" not in evaluation.conditions
    json.dumps(evaluation.models, allow_nan=False)


def test_a_figure_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(ValueError, match="not finite: b"):
        present({"a": None, "b": math.nan})


def test_gain_is_paired() -> None:
    # against a constant: right, right, wrong less a half each
    gain = accuracy_gain(SPLIT, REWARD, np.zeros(5))
    assert gain.gain == pytest.approx((0.5 + 0.5 - 0.5) / 3)
    assert gain.standard_error is None


def test_quarters_of_the_pairs_by_effect() -> None:
    split = split_of(*[[(f"{i}a", 1000, 10), (f"{i}b", 1000, 11 + i)] for i in range(8)])
    found = bands(split, np.tile([0.0, 1], 8), split.decided.effect.abs().to_numpy())
    assert [band.pairs for band in found] == [2, 2, 2, 2]
    assert (found[0].low, found[3].high) == pytest.approx((math.log(1.1), math.log(1.8)))
    assert [band.accuracy for band in found] == [1, 1, 1, 1]
    assert [band.ceiling for band in found] == pytest.approx([LABEL] * 4)


def test_the_first_of_the_table_is_under_test() -> None:
    evaluation = compare(SPLIT, {"chance": np.zeros(5), "reward_model": REWARD})
    assert list(evaluation.models) == ["reward_model", "chance"]
    assert list(evaluation.gains) == ["chance"]
