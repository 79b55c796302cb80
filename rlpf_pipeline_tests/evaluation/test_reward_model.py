import math

import numpy as np
import pandas as pd
import pytest

from rlpf_pipeline.evaluation.reward_model import (
    accuracy,
    clustered_standard_error,
    negative_log_likelihood,
    score_pairs,
)
from rlpf_pipeline.training.snapshot import Ad


def ad(clicks: tuple[int, ...]) -> Ad:
    left, right = np.array([0, 0, 1]), np.array([1, 2, 2])
    ones = np.ones(3)
    return Ad("a", None, ("one", "three", "eleven"), (100, 100, 100), clicks, left, right, ones / 2, ones, ones)


class ScoresByLength:
    def score(self, ads):  # type: ignore[no-untyped-def]
        return [np.array([[len(text)] for text in texts], np.float32) for _, texts in ads]


def test_pairs_are_judged_by_the_observed_winner() -> None:
    pairs = score_pairs(ScoresByLength(), [ad((5, 9, 7))])  # type: ignore[arg-type]
    # margins 3-5, 3-6, 5-6 are all negative; the right side wins the first two
    assert pairs.margin.tolist() == [-2.0, -3.0, -1.0]
    assert pairs.left_won.tolist() == [False, False, True]
    assert accuracy(pairs.margin, pairs.left_won) == pytest.approx(2 / 3)


def test_tied_variants_are_left_out() -> None:
    assert len(score_pairs(ScoresByLength(), [ad((5, 5, 7))])) == 2  # type: ignore[arg-type]


def test_equal_scores_count_a_half() -> None:
    assert accuracy(pd.Series([0.0, 1.0]), pd.Series([True, True])) == 0.75


def test_a_model_that_knows_nothing_pays_log_two() -> None:
    assert negative_log_likelihood(pd.Series([0.0, 0.0]), pd.Series([0.9, 0.4])) == pytest.approx(math.log(2))


def test_likelihood_by_hand() -> None:
    # -(.8 log sigmoid(1) + .2 log sigmoid(-1))
    sigmoid = 1 / (1 + math.exp(-1))
    expected = -(0.8 * math.log(sigmoid) + 0.2 * math.log(1 - sigmoid))
    assert negative_log_likelihood(pd.Series([1.0]), pd.Series([0.8])) == pytest.approx(expected)


def test_pairs_of_one_ad_count_as_one_cluster() -> None:
    # two ads, two pairs each, one ad all right and one all wrong: residuals sum to +1 and -1
    pairs = pd.DataFrame({"ad_id": list("aabb"), "margin": [1.0, 1, 1, 1], "left_won": [True, True, False, False]})
    assert clustered_standard_error(pairs) == pytest.approx(math.sqrt(2) / 4)
