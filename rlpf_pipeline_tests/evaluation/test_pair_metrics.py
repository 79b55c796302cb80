import math

import numpy as np
import pytest
from scipy.special import expit
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss
from statsmodels.regression.linear_model import OLS

from rlpf_pipeline.evaluation.pair_metrics import (
    ReliabilityBin,
    accuracy,
    ceiling_closed,
    clustered_standard_error,
    equal_mass,
    expected_calibration_error,
    negative_log_likelihood,
    reliability,
)


def test_equal_scores_count_a_half() -> None:
    assert accuracy([0.0, 1.0], [True, True]) == 0.75


def test_a_model_that_knows_nothing_pays_log_two() -> None:
    assert negative_log_likelihood([0.0, 0.0], [0.9, 0.4]) == pytest.approx(math.log(2))


def test_likelihood_by_hand() -> None:
    # -(.8 log sigmoid(1) + .2 log sigmoid(-1))
    sigmoid = 1 / (1 + math.exp(-1))
    expected = -(0.8 * math.log(sigmoid) + 0.2 * math.log(1 - sigmoid))
    assert negative_log_likelihood([1.0], [0.8]) == pytest.approx(expected)


def test_likelihood_of_hard_labels_is_sklearns_log_loss() -> None:
    rng = np.random.default_rng(0)
    margin, won = rng.normal(size=200), rng.random(200) < 0.5
    assert negative_log_likelihood(margin, won) == pytest.approx(log_loss(won, expit(margin)), rel=1e-12)


def test_likelihood_of_a_large_margin_stays_finite() -> None:
    # softplus(-1000) is 0 and softplus(1000) is 1000: the soft label's other tenth pays it
    assert negative_log_likelihood([1000.0], [0.9]) == pytest.approx(100.0)


def test_ceiling_closed_by_hand() -> None:
    assert ceiling_closed(0.62, 0.8) == pytest.approx(0.12 / 0.3)
    assert ceiling_closed(0.5, 0.5) is None


def test_reliability_looks_at_the_favoured_side() -> None:
    # a margin of -log 3 favours the right side with 3/4; its label is 1 - .2
    (only,) = reliability([-math.log(3)], [0.2])
    assert only == pytest.approx(ReliabilityBin(1, 0.75, 0.8))


def test_equal_scores_favour_no_side() -> None:
    assert reliability([0.0, 0.0], [0.9, 0.4]) == [ReliabilityBin(2, 0.5, 0.5)]


def test_calibration_error_by_hand() -> None:
    # two bins of two pairs: .6 and .8 predicted, .5 and .9 found
    low, high = math.log(0.6 / 0.4), math.log(0.8 / 0.2)
    bins = reliability([low, low, high, high], [0.4, 0.6, 0.85, 0.95], bins=2)
    assert [own.pairs for own in bins] == [2, 2]
    assert expected_calibration_error(bins) == pytest.approx((2 * 0.1 + 2 * 0.1) / 4)


def test_calibration_error_weighs_bins_by_their_pairs() -> None:
    assert expected_calibration_error([ReliabilityBin(3, 0.6, 0.5), ReliabilityBin(1, 0.9, 0.5)]) == pytest.approx(
        0.175
    )


def test_bins_hold_as_many_values_and_never_part_equal_ones() -> None:
    assert [own.tolist() for own in equal_mass(np.array([4.0, 1, 3, 2]), 2)] == [[1, 3], [0, 2]]
    assert [own.tolist() for own in equal_mass(np.array([1.0, 1, 1, 2]), 4)] == [[0, 1, 2], [3]]
    assert [own.tolist() for own in equal_mass(np.array([7.0]), 4)] == [[0]]


def test_reliability_of_hard_labels_is_sklearns_curve() -> None:
    rng = np.random.default_rng(1)
    margin = np.abs(rng.normal(size=500))
    won = rng.random(500) < expit(margin)
    found = reliability(margin, won, bins=10)
    label, predicted = calibration_curve(won, expit(margin), n_bins=10, strategy="quantile")
    assert [own.predicted for own in found] == pytest.approx(predicted.tolist())
    assert [own.label for own in found] == pytest.approx(label.tolist())


def test_pairs_of_one_ad_count_as_one_cluster() -> None:
    # two clusters, two pairs each, one all right and one all wrong: residuals sum to +1 and -1; factor 2 / (2 - 1)
    assert clustered_standard_error([1, 1, 0, 0], ["a", "a", "b", "b"]) == pytest.approx(math.sqrt(2 * 2) / 4)


def test_clustered_standard_error_is_statsmodels() -> None:
    rng = np.random.default_rng(2)
    values, cluster = rng.random(300), rng.integers(40, size=300)
    fit = OLS(values, np.ones(300)).fit(cov_type="cluster", cov_kwds={"groups": cluster})
    assert clustered_standard_error(values, cluster) == pytest.approx(fit.bse[0])


def test_one_cluster_has_no_standard_error() -> None:
    assert clustered_standard_error([1.0, 0.0], ["a", "a"]) is None
