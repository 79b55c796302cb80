"""Ratio estimators against tea-tasting, against figures of gbstats, and by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import tea_tasting as tt

from rlpf_pipeline.abtest import ratio
from rlpf_pipeline.abtest.evidence import sample_ratio
from rlpf_pipeline.abtest.sequential import anytime_interval

CONTROL = {"n": [1000, 2500, 400, 8000, 1500, 600], "k": [30, 60, 15, 250, 40, 12]}
TREATMENT = {"n": [1200, 2000, 500, 7000, 1800, 700], "k": [45, 70, 14, 260, 60, 25]}
GBSTATS = {
    "lift": 0.23520214429305347,
    "lift_error": 0.08189992631096431,
    "sequential_low": -0.015480330866435799,
    "sequential_high": 0.48588461945254274,
    "sequential_p": 0.07947104342203948,
    "sample_ratio_520_480": 0.20590321073206466,
    "sample_ratio_620_380_of_60_40": 0.1967056024589432,
}
"""gbstats 0.8.0 (which needs numpy 1, so it is not installed here) on CONTROL and TREATMENT: RatioStatistic with
TwoSidedTTest and SequentialTwoSidedTTest (sequential_tuning_parameter 20), relative differences; check_srm."""


def small() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    k, n = (np.array(CONTROL[name] + TREATMENT[name], float) for name in ("k", "n"))
    return k, n, np.repeat([False, True], 6)


@pytest.fixture(scope="module")
def users() -> pd.DataFrame:
    rng = np.random.default_rng(12)
    x = rng.gamma(2.0, 0.02, 400)
    n = np.ceil(np.exp(rng.normal(6, 1, 400))).astype(int)
    k = rng.binomial(n, np.minimum(0.02 + 0.5 * x, 0.9))
    return pd.DataFrame({"k": k, "n": n, "x": x, "variant": np.arange(400) % 2})


def arrays(users: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return users["k"].to_numpy(float), users["n"].to_numpy(float), (users["variant"] == 1).to_numpy()


@pytest.mark.parametrize("covariate", [None, "x"])
def test_delta_method_and_cuped_equal_tea_tasting(users, covariate):
    metric = tt.RatioOfMeans("k", "n", covariate, equal_var=False, use_t=False)
    theirs = tt.Experiment(ctr=metric).analyze(users)["ctr"]
    ours = ratio.cuped(*arrays(users), users["x"].to_numpy()) if covariate else ratio.delta_method(*arrays(users))
    assert ours.estimate - 1 == pytest.approx(theirs.rel_effect_size, abs=1e-6)
    assert ours.low - 1 == pytest.approx(theirs.rel_effect_size_ci_lower, abs=1e-6)
    assert ours.high - 1 == pytest.approx(theirs.rel_effect_size_ci_upper, abs=1e-6)


def test_mean_ctr_of_advertisers_equals_tea_tasting(users):
    frame = users.assign(ctr=users["k"] / users["n"])
    theirs = tt.Experiment(ctr=tt.Mean("ctr", equal_var=False, use_t=False)).analyze(frame)["ctr"]
    ours = ratio.advertiser_means(*arrays(users))
    assert ours.estimate - 1 == pytest.approx(theirs.rel_effect_size, abs=1e-6)
    assert ours.high - 1 == pytest.approx(theirs.rel_effect_size_ci_upper, abs=1e-6)


def test_delta_method_equals_gbstats():
    """Their error is of the lift, ours of its logarithm: the ratio lies between."""
    risk = ratio.delta_method(*small())
    assert risk.estimate - 1 == pytest.approx(GBSTATS["lift"], abs=1e-6)
    assert risk.standard_error * risk.estimate == pytest.approx(GBSTATS["lift_error"], abs=1e-6)


def test_confidence_sequence_equals_gbstats():
    """Theirs is on the lift, with rho^2 N in the place of tau^2 over the squared error."""
    lift, error = GBSTATS["lift"], GBSTATS["lift_error"]
    rho = math.sqrt((-2 * math.log(0.05) + math.log(-2 * math.log(0.05) + 1)) / 20)
    risk = ratio.delta_method(*small())._replace(estimate=math.exp(lift), standard_error=error, z=lift / error)
    interval = anytime_interval(risk, mixture=error * rho * math.sqrt(12))
    assert math.log(interval.low) == pytest.approx(GBSTATS["sequential_low"], abs=1e-6)
    assert math.log(interval.high) == pytest.approx(GBSTATS["sequential_high"], abs=1e-6)
    assert interval.p_value == pytest.approx(GBSTATS["sequential_p"], abs=1e-6)


def test_sample_ratio_equals_gbstats():
    even = sample_ratio(pd.Series(["control"] * 520 + ["treatment"] * 480))
    planned = sample_ratio(pd.Series(["control"] * 620 + ["treatment"] * 380), treatment_share=0.4)
    assert even.p_value == pytest.approx(GBSTATS["sample_ratio_520_480"], abs=1e-6)
    assert planned.p_value == pytest.approx(GBSTATS["sample_ratio_620_380_of_60_40"], abs=1e-6)


def test_lins_adjustment_is_the_interacted_regression_of_the_influences(users):
    """Statsmodels' OLS of each arm's influences on the centred covariate: intercepts, and HC3 errors of residuals over
    one less the share of the arm's impressions."""
    k, n, treated = arrays(users)
    x = users["x"].to_numpy()
    log_means, variances = [], []
    for arm in (~treated, treated):
        ctr = k[arm].sum() / n[arm].sum()
        influence = (k[arm] - ctr * n[arm]) / k[arm].mean()
        design = sm.add_constant(x[arm] - x.mean())
        fit = sm.OLS(influence, design).fit()
        log_means.append(math.log(ctr) + fit.params[0])
        outsized = influence - fit.fittedvalues
        outsized = outsized / (1 - n[arm] / n[arm].sum()) / (1 - fit.get_influence().hat_matrix_diag)
        bread = np.linalg.inv(design.T @ design)
        variances.append((bread @ (design * outsized[:, None] ** 2).T @ design @ bread)[0, 0])
    risk = ratio.regression_adjusted(k, n, treated, x[:, None])
    assert risk.estimate == pytest.approx(math.exp(log_means[1] - log_means[0]), rel=1e-12)
    assert risk.standard_error == pytest.approx(math.sqrt(sum(variances)), rel=1e-12)


def test_regression_adjustment_needs_more_advertisers_in_each_arm_than_columns():
    k, n, treated = small()
    covariates = np.vander(np.arange(12.0), 5, increasing=True)[:, 1:]
    assert ratio.regression_adjusted(k, n, treated, covariates) is not None
    assert ratio.regression_adjusted(k[1:], n[1:], treated[1:], covariates[1:]) is None


def test_winsorising_caps_impressions_and_keeps_the_ctr():
    """Only the largest of 101 advertisers lies above the 99 % quantile, which is the second largest's 100."""
    n = np.append(np.full(100, 100.0), 10_000.0)
    k = np.append(np.tile([2.0, 4.0], 50), 1000.0)
    treated = np.append(np.arange(100) % 4 < 2, True)
    capped = ratio.delta_method(np.append(k[:100], 10.0), np.append(n[:100], 100.0), treated)
    assert ratio.winsorised(k, n, treated) == pytest.approx(capped)
