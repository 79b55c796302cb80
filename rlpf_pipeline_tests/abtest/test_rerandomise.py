"""The certificate's short way against full fits, and what it certifies."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from rlpf_pipeline.abtest.design import build_design
from rlpf_pipeline.abtest.frames import with_exposure
from rlpf_pipeline.abtest.log_binomial import estimate, risk_from
from rlpf_pipeline.abtest.panel import load_experiment
from rlpf_pipeline.abtest.rerandomise import SEED, Effects, certify, randomisation_test, rerandomise, wilson_interval
from rlpf_pipeline_tests.abtest.experiment_data import experiment


def design_of(frame):
    loaded = load_experiment(frame)
    return build_design(with_exposure(loaded.advertisers), loaded.covariates)


@pytest.fixture(scope="module")
def design():
    return design_of(experiment(2000, seed=21))


@pytest.fixture(scope="module")
def effects(design):
    return rerandomise(design, assignments=300)


@pytest.fixture(scope="module")
def even():
    """Without a long tail of impressions: there the sandwich's normal approximation is good."""
    frame = experiment(2000, seed=21)
    frame["impressions"] = 2000
    frame["clicks"] = np.random.default_rng(5).binomial(2000, np.minimum(frame["lifetime_ctr"] + 0.01, 0.5))
    return rerandomise(design_of(frame), assignments=300)


def test_each_assignment_has_the_estimate_and_error_of_a_full_fit(design, effects):
    rng = np.random.default_rng(SEED)
    counts, j = design.counts, design.position
    for assignment in range(5):
        x = counts.x.copy()
        x[:, j] = rng.permutation(design.treated)
        fit = estimate(counts._replace(x=x), design.names)
        assert effects.log_risk[assignment] == pytest.approx(fit.beta[j], abs=1e-6)
        assert effects.standard_error[assignment] == pytest.approx(fit.covariances["hc3"][j, j] ** 0.5, rel=1e-2)


def test_five_percent_reject_and_intervals_cover(even):
    """300 assignments: 5 % +- 4 standard errors of 1.26 %."""
    certificate = certify(even)
    assert certificate.assignments == 300
    assert abs(certificate.false_positive_rate - 0.05) < 0.05
    assert certificate.low <= certificate.false_positive_rate <= certificate.high
    assert [c.level for c in certificate.coverage] == [0.5, 0.8, 0.9, 0.95, 0.99]
    assert certificate.mean_standard_error == pytest.approx(certificate.standard_deviation, rel=0.15)


def test_the_interval_of_a_share_equals_scipys():
    theirs = stats.binomtest(41, 1000).proportion_ci(0.95, method="wilson")
    assert wilson_interval(41, 1000) == pytest.approx((theirs.low, theirs.high))


def test_randomisation_p_value_counts_assignments_at_least_as_large():
    """|z| of 1, 2, 3, 4; observed 2.5: two of four, so (1 + 2) / (1 + 4)."""
    effects = Effects(np.array([1.0, -2.0, 3.0, -4.0]), np.ones(4))
    test = randomisation_test(effects, risk_from(2.5, 1.0))
    assert test.p_value == pytest.approx(0.6)
    assert test.critical_value == pytest.approx(3.85)


def test_a_true_effect_is_found_by_randomisation_too(design, effects):
    fit = estimate(design.counts, design.names)
    observed = risk_from(float(fit.beta[design.position]), 0.02)
    assert randomisation_test(effects, observed).p_value < 0.05


def test_where_most_assignments_have_no_estimate_there_is_no_certificate():
    """All clicks lie with two of twenty advertisers: half of the assignments put both into one arm."""
    frame = experiment(20, seed=2)
    frame["clicks"] = 0
    frame.loc[[frame.index[frame["arm"] == arm][0] for arm in ("control", "treatment")], "clicks"] = 50
    frame["impressions"] = 10_000
    effects = rerandomise(design_of(frame), assignments=200)
    assert effects is None or np.isfinite(effects.log_risk).all()
