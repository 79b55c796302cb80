"""The certificate's short way against full fits, and what it certifies."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from rlpf_pipeline.abtest.log_binomial import estimate, risk_from
from rlpf_pipeline.abtest.refits import Prepared
from rlpf_pipeline.abtest.rerandomise import (
    SEED,
    Effects,
    Randomisation,
    certify,
    draw,
    randomisation_interval,
    randomisation_test,
    rerandomise,
    wilson_interval,
)
from rlpf_pipeline.errors import UserError
from rlpf_pipeline_tests.abtest.experiment_data import design_of, experiment, odd_experiment


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


def full_fits(design, assignments):
    """Log relative risk and HC3 of each assignment, one regression after the other; NaN where there is none."""
    counts, j = design.counts, design.position
    found = np.full((2, assignments), np.nan)
    drawn = draw(design.treated > 0, assignments, np.random.SeedSequence(SEED).spawn(1)[0])
    for assignment in range(assignments):
        x = counts.x.copy()
        x[:, j] = drawn[:, assignment]
        try:
            fit = estimate(counts._replace(x=x), design.names)
        except UserError:
            continue
        found[:, assignment] = fit.beta[j], fit.covariances["hc3"][j, j] ** 0.5
    return found


def concentrated(share: float, ctr_ratio: float):
    """The first of 600 advertisers has `share` times the impressions of all others, and so many times their CTR."""
    frame = experiment(600, seed=21)
    others = frame[["impressions", "clicks"]].iloc[1:].sum()
    impressions = int(share * others["impressions"])
    ctr = others["clicks"] / others["impressions"]
    frame.loc[0, ["impressions", "clicks"]] = [impressions, int(ctr_ratio * ctr * impressions)]
    return design_of(frame)


def test_assignments_are_complete_randomisations():
    """Each of the 20 ways to treat three of six is as likely as any other; whom the experiment treated has no say."""
    treated = np.array([True, True, False, False, True, False])
    drawn = draw(treated, 4000, np.random.SeedSequence(3))
    assert (drawn.sum(axis=0) == 3).all()
    ways, seen = np.unique(drawn, axis=1, return_counts=True)
    assert ways.shape == (6, 20)
    assert stats.chisquare(seen).pvalue > 0.01


def test_each_assignment_has_the_estimate_and_error_of_a_full_fit(design, effects):
    log_risk, error = full_fits(design, 10)
    assert effects.log_risk[:10] == pytest.approx(log_risk, abs=1e-6)
    assert effects.standard_error[:10] == pytest.approx(error, rel=1e-3)


@pytest.mark.parametrize(("share", "ctr_ratio"), [(1.0, 4.0), (0.3, 2.0)])
def test_so_it_has_where_one_advertiser_holds_much_of_the_impressions(share, ctr_ratio):
    design = concentrated(share, ctr_ratio)
    effects = rerandomise(design, assignments=60)
    log_risk, error = full_fits(design, 60)
    assert effects.log_risk == pytest.approx(log_risk, abs=1e-5)
    assert effects.standard_error == pytest.approx(error, rel=1e-3)
    quantile = np.quantile(np.abs(log_risk / error), 0.95)
    assert randomisation_test(effects).critical_value == pytest.approx(quantile, rel=1e-3)


def test_so_it_has_where_clicks_are_likely_and_steps_leave_the_domain():
    """Means near 1, where a step of Newton's often goes beyond: those assignments are fitted in full."""
    rng = np.random.default_rng(7)
    frame = experiment(60, seed=21).assign(impressions=rng.integers(1, 9, 60))
    frame["clicks"] = rng.binomial(frame["impressions"], 0.93)
    design = design_of(frame[["advertiser_id", "arm", "impressions", "clicks"]])
    effects = rerandomise(design, assignments=60)
    log_risk, error = full_fits(design, 60)
    assert effects.log_risk == pytest.approx(log_risk, abs=1e-5)
    assert effects.standard_error == pytest.approx(error, rel=2e-3)


def an_industry_of_one(frame):
    return frame.assign(industry=frame["industry"].where(frame.index != 7, "alone"))


def an_industry_of_two_of_which_one_has_all_impressions(frame):
    frame.loc[7, ["impressions", "clicks"]] = [100_000_000, 3_000_000]
    return frame.assign(industry=frame["industry"].where(~frame.index.isin([7, 8]), "two"))


def a_covariate_of_many_digits(frame):
    return frame.assign(account_age_years=1.7e9 + np.random.default_rng(1).normal(size=len(frame)))


def three_treated(frame):
    return frame.assign(arm=np.where(frame.index < 3, "treatment", "control"))


def billions_of_impressions(frame):
    return frame.assign(impressions=frame["impressions"] * 1_000_000, clicks=frame["clicks"] * 1_000_000)


@pytest.mark.parametrize(
    "change",
    [
        an_industry_of_one,
        an_industry_of_two_of_which_one_has_all_impressions,
        a_covariate_of_many_digits,
        three_treated,
        billions_of_impressions,
    ],
)
def test_so_it_has_where_single_precision_is_taxed(change):
    design = design_of(change(experiment(600, seed=5)))
    assert Prepared(design).number == np.float32
    effects = rerandomise(design, assignments=20)
    log_risk, error = full_fits(design, 20)
    assert effects.log_risk == pytest.approx(log_risk, abs=1e-6)
    assert effects.standard_error == pytest.approx(error, rel=2e-3)


@pytest.mark.parametrize("seed", [90, 102, 258, 389])
def test_so_it_has_where_one_advertiser_nearly_decides_the_effect(seed):
    """Two to nine treated, of whom one has nearly all impressions: 1 - leverage of 1e-3 to 1e-6."""
    design = design_of(odd_experiment(seed))
    drawn = draw(design.treated > 0, 15, np.random.SeedSequence(SEED).spawn(1)[0])
    log_risk, error = Prepared(design).effects(drawn)
    expected, expected_error = full_fits(design, 15)
    assert log_risk == pytest.approx(expected, abs=1e-6, nan_ok=True)
    assert error == pytest.approx(expected_error, rel=3e-3, abs=1e-7, nan_ok=True)


def test_the_observed_z_is_computed_as_the_others_and_equals_the_headlines():
    design = concentrated(1.0, 4.0)
    fit = estimate(design.counts, design.names)
    j = design.position
    headline = fit.beta[j] / fit.covariances["hc3"][j, j] ** 0.5
    assert rerandomise(design, assignments=10).observed_z == pytest.approx(headline, rel=1e-3)


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


def test_the_interval_of_a_share_lies_within_0_and_1():
    for number in range(800, 900):
        assert f"{wilson_interval(0, number)[0]:.1f}" == "0.0"  # and not "-0.0"
        assert wilson_interval(number, number)[1] <= 1


def test_randomisation_p_value_counts_assignments_at_least_as_large():
    """|z| of 1, 2, 3, 4; observed 2.5: two of four, so (1 + 2) / (1 + 4)."""
    test = randomisation_test(Effects(np.array([1.0, -2.0, 3.0, -4.0]), np.ones(4), observed_z=-2.5))
    assert test.p_value == pytest.approx(0.6)
    assert test.critical_value == pytest.approx(3.85)


def test_a_true_effect_is_found_by_randomisation_too():
    """A planted 1.067 makes z about 2 here; 1.2 would be found by any test."""
    frame = experiment(2000, seed=21, relative_risk=1.2)
    assert randomisation_test(rerandomise(design_of(frame), assignments=300)).p_value < 0.05


def test_where_most_assignments_have_no_estimate_there_is_no_certificate():
    """All clicks lie with two of twenty advertisers, 15 to 5: both are in one arm in (15*14 + 5*4) / (20*19) = 61 %."""
    frame = experiment(20, seed=2)
    frame["arm"] = np.where(np.arange(20) < 15, "control", "treatment")
    frame = frame.assign(clicks=0, impressions=10_000)
    frame.loc[[0, 19], "clicks"] = [50, 60]
    assert rerandomise(design_of(frame), assignments=200) is None


def test_an_assignment_that_equals_a_covariate_has_no_estimate():
    """Two of 40 are treated, and two others are new: 1 of 780 assignments treats just these."""
    frame = experiment(40, seed=5)[["advertiser_id", "arm", "impressions", "clicks"]]
    frame = frame.assign(arm="control", new_advertiser=False)
    frame.loc[[3, 7], "arm"], frame.loc[[1, 9], "new_advertiser"] = "treatment", True
    design = design_of(frame)
    treats_the_new = (design.matrix["new_advertiser"] > 0).to_numpy()
    log_risk, error = Prepared(design).effects(np.column_stack([treats_the_new, design.treated > 0]))
    assert list(np.isnan(error)) == list(np.isnan(log_risk)) == [True, False]


def test_an_error_beyond_numbers_leaves_everything_open():
    interval = randomisation_interval(risk_from(900.0, 1e6), Randomisation(0.5, 2.0))
    assert interval.low < 1e-100 < 1e100 < interval.high
