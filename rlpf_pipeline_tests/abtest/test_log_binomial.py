"""The log-binomial fit against statsmodels called directly, and against cases solvable by hand."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from rlpf_pipeline.abtest import log_binomial, relative_risk
from rlpf_pipeline.abtest.log_binomial import dependent_columns, triangle_of
from rlpf_pipeline.errors import UserError
from rlpf_pipeline_tests.abtest.experiment_data import COUNTS, experiment, with_treatment


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    return with_treatment(experiment(1200, seed=1))


def arm_counts(frame: pd.DataFrame, treated: int) -> tuple[float, float]:
    arm = frame[frame["treatment"] == treated]
    return float(arm["clicks"].sum()), float(arm["impressions"].sum())


def test_coefficients_and_errors_equal_statsmodels_in_its_right_form(data):
    fit = log_binomial(data, "~ treatment + C(industry) + account_age_years", **COUNTS)
    design = np.column_stack(
        [
            np.ones(len(data)),
            *[data["industry"] == level for level in ("games", "retail", "travel")],
            data["treatment"],
            data["account_age_years"],
        ]
    ).astype(float)
    names = [
        "Intercept",
        *[f"C(industry)[T.{level}]" for level in ("games", "retail", "travel")],
        "treatment",
        "account_age_years",
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        family = sm.families.Binomial(sm.families.links.Log())
        model = sm.GLM(data["clicks"] / data["impressions"], design, family=family, var_weights=data["impressions"])
        naive = model.fit(tol=1e-12, tol_criterion="params")
        quasi = model.fit(tol=1e-12, tol_criterion="params", scale="X2")
        robust = model.fit(tol=1e-12, tol_criterion="params", cov_type="HC0")
    for name, beta, *errors in zip(names, naive.params, naive.bse, quasi.bse, robust.bse, strict=True):
        assert fit.coefficients[name] == pytest.approx(beta, abs=1e-8)
        for kind, error in zip(("naive", "quasi", "hc0"), errors, strict=True):
            assert fit.standard_errors[kind][name] == pytest.approx(error, rel=1e-8)
        assert fit.standard_errors["hc1"][name] == pytest.approx(errors[2] * (1200 / 1194) ** 0.5)
    assert fit.status == "converged"
    assert fit.n == 1200


def test_one_binary_covariate_gives_the_ratio_of_pooled_ctrs(data):
    fit = log_binomial(data, "~ treatment", **COUNTS)
    (k1, n1), (k0, n0) = arm_counts(data, 1), arm_counts(data, 0)
    assert relative_risk(fit, "treatment").estimate == pytest.approx((k1 / n1) / (k0 / n0), rel=1e-10)
    assert fit.standard_errors["naive"]["treatment"] == pytest.approx((1 / k1 - 1 / n1 + 1 / k0 - 1 / n0) ** 0.5)
    p1, p0 = k1 / n1, k0 / n0
    binomial = k1 * np.log(p1) + (n1 - k1) * np.log(1 - p1) + k0 * np.log(p0) + (n0 - k0) * np.log(1 - p0)
    assert fit.log_likelihood == pytest.approx(binomial, rel=1e-12)


def test_robust_error_of_one_binary_covariate_by_hand(data):
    """log(k/n) has the delta-method variance sum (k_i - n_i p)^2 / k^2 in each arm, and the arms are independent."""
    fit = log_binomial(data, "~ treatment", **COUNTS)
    variance = 0.0
    for treated in (0, 1):
        arm = data[data["treatment"] == treated]
        k, n = arm_counts(data, treated)
        variance += float(((arm["clicks"] - arm["impressions"] * k / n) ** 2).sum()) / k**2
    assert fit.standard_errors["hc0"]["treatment"] == pytest.approx(variance**0.5, rel=1e-9)


def test_clusters_of_one_row_change_nothing(data):
    fit = log_binomial(data, "~ treatment + C(industry)", **COUNTS, cluster="advertiser_id")
    assert fit.standard_errors["cluster"] == pytest.approx(fit.standard_errors["hc0"], rel=1e-12)


def test_clustered_panel_equals_robust_errors_of_the_totals(data):
    rng = np.random.default_rng(5)
    first_clicks = rng.hypergeometric(data["clicks"], data["impressions"] - data["clicks"], data["impressions"] // 2)
    first = data.assign(impressions=data["impressions"] // 2, clicks=first_clicks)
    second = data.assign(
        impressions=data["impressions"] - first["impressions"], clicks=data["clicks"] - first["clicks"]
    )
    panel = pd.concat([first, second]).sample(frac=1, random_state=3)
    totals = log_binomial(data, "~ treatment + C(industry)", **COUNTS)
    weeks = log_binomial(panel, "~ treatment + C(industry)", **COUNTS, cluster="advertiser_id")
    assert weeks.coefficients == pytest.approx(totals.coefficients, abs=1e-9)
    assert weeks.standard_errors["cluster"] == pytest.approx(totals.standard_errors["hc0"], rel=1e-7)


def test_trials_of_one_a_row_give_the_aggregate_estimate():
    rows = pd.DataFrame(
        {"treatment": [0] * 40 + [1] * 40, "clicks": [1] * 8 + [0] * 32 + [1] * 12 + [0] * 28, "shown": 1}
    )
    fit = log_binomial(rows, "~ treatment", successes="clicks", trials="shown")
    assert relative_risk(fit, "treatment").estimate == pytest.approx((12 / 40) / (8 / 40))


def test_rows_without_trials_do_not_count(data):
    more = pd.concat([data, data.head(30).assign(clicks=0, impressions=0)])
    assert log_binomial(more, "~ treatment", **COUNTS) == log_binomial(data, "~ treatment", **COUNTS)


def test_hc3_by_its_formula(data):
    """Scores divided by 1 - h, h the leverage of the weighted regression; bread is the observed information."""
    fit = log_binomial(data, "~ treatment + account_age_years", **COUNTS)
    x = np.column_stack([np.ones(len(data)), data["treatment"], data["account_age_years"]])
    k, n = data["clicks"].to_numpy(float), data["impressions"].to_numpy(float)
    mean = np.exp(x @ np.array(list(fit.coefficients.values())))
    weight = n * mean / (1 - mean)
    leverage = np.diag(x @ np.linalg.inv(x.T @ np.diag(weight) @ x) @ x.T) * weight
    scores = x * ((k - n * mean) / (1 - mean) / (1 - leverage))[:, None]
    bread = np.linalg.inv(x.T @ np.diag((n - k) * mean / (1 - mean) ** 2) @ x)
    expected = np.sqrt(np.diag(bread @ scores.T @ scores @ bread))
    assert list(fit.standard_errors["hc3"].values()) == pytest.approx(expected, rel=1e-9)


def test_clustered_errors_equal_those_of_statsmodels_without_its_correction(data):
    rows = data.assign(group=data.index % 37)
    fit = log_binomial(rows, "~ treatment", **COUNTS, cluster="group")
    family = sm.families.Binomial(sm.families.links.Log())
    design, ctr, shown = sm.add_constant(rows["treatment"]), rows["clicks"] / rows["impressions"], rows["impressions"]
    options = {"groups": rows["group"], "use_correction": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = sm.GLM(ctr, design, family=family, var_weights=shown)
        clustered = model.fit(tol=1e-12, tol_criterion="params", cov_type="cluster", cov_kwds=options)
    assert fit.standard_errors["cluster"]["treatment"] == pytest.approx(clustered.bse["treatment"], rel=1e-8)


def test_where_no_mean_below_one_exists_modified_poisson_answers_and_is_labelled():
    """Without an intercept x and -x cannot both have a mean below 1; the Poisson estimator does not mind."""
    rows = pd.DataFrame({"x": np.repeat([-1.0, 1.0], 5), "trials": 50, "k": [20, 22, 18, 25, 19, 40, 41, 39, 44, 42]})
    fit = log_binomial(rows, "~ 0 + x", successes="k", trials="trials")
    family = sm.families.Poisson()
    poisson = sm.GLM(rows["k"], rows[["x"]], family=family, offset=np.log(rows["trials"])).fit(
        cov_type="HC0", tol=1e-12
    )
    assert fit.status == "modified-poisson"
    assert fit.coefficients["x"] == pytest.approx(poisson.params["x"], rel=1e-8)
    assert fit.standard_errors["hc0"]["x"] == pytest.approx(poisson.bse["x"], rel=1e-7)
    assert fit.log_likelihood == float("-inf")


def test_naive_errors_reject_far_too_often_where_robust_ones_do_not():
    """60 experiments without an effect, each of 800 advertisers. At a true 5 % the robust test rejects more than 9 of
    60 with probability 0.1 %; the naive test is known to reject most."""
    rejected = {"naive": 0, "hc1": 0}
    for seed in range(60):
        frame = with_treatment(experiment(800, seed=1000 + seed, relative_risk=1.0))
        fit = log_binomial(frame, "~ treatment", **COUNTS)
        for kind in rejected:
            rejected[kind] += relative_risk(fit, "treatment", errors=kind).p_value < 0.05
    assert rejected["hc1"] <= 9
    assert rejected["naive"] > 40


@pytest.mark.parametrize(
    ("change", "formula", "message"),
    [
        ({"clicks": 10**9}, "~ treatment", "more clicks than impressions"),
        ({"clicks": -1}, "~ treatment", "negative"),
        ({"impressions": 1e21}, "~ treatment", r"not a finite number \(up to 9\.0072e\+15\)"),
        ({"clicks": None}, "~ treatment", "Missing values in clicks"),
        ({"one": 1.0}, "~ treatment + one", "collinear columns: one"),
        ({"clicks": "few"}, "~ treatment", "clicks and impressions are to hold numbers.*'few'"),
        ({"impressions": 0, "clicks": 0}, "~ treatment", "No row has impressions above 0"),
    ],
)
def test_what_cannot_be_fitted_is_said(data, change, formula, message):
    with pytest.raises(UserError, match=message):
        log_binomial(data.assign(**change), formula, **COUNTS)


@pytest.mark.parametrize("level", [0.0, 1.0, 95, -0.5, math.nan])
def test_a_level_that_is_none_is_told(data, level):
    fit = log_binomial(data, "~ treatment", **COUNTS)
    with pytest.raises(UserError, match="lies between 0 and 1"):
        relative_risk(fit, "treatment", level=level)


def test_the_relative_risk_of_a_clustered_fit_has_the_clustered_error(data):
    """Twice the same rows: one advertiser's two rows carry what one does, of which rows as units know nothing."""
    twice = log_binomial(pd.concat([data, data]), "~ treatment", **COUNTS, cluster="advertiser_id")
    once = log_binomial(data, "~ treatment", **COUNTS)
    error = relative_risk(twice, "treatment").standard_error
    assert error == pytest.approx(once.standard_errors["hc0"]["treatment"], rel=1e-9)
    assert relative_risk(once, "treatment").standard_error == once.standard_errors["hc3"]["treatment"]


def test_a_table_of_as_many_rows_as_columns_has_the_errors_of_the_binomial_alone():
    """log(15/100) - log(10/100) and its variance by the delta method, as textbooks have them for two proportions."""
    arms = pd.DataFrame({"treatment": [0, 1], "k": [10, 15], "n": [100, 100]})
    fit = log_binomial(arms, "~ treatment", "k", "n")
    assert fit.status == "converged"
    assert fit.coefficients["treatment"] == pytest.approx(math.log(1.5), abs=1e-12)
    assert list(fit.standard_errors) == ["naive"]
    expected = math.sqrt(1 / 10 - 1 / 100 + 1 / 15 - 1 / 100)
    assert fit.standard_errors["naive"]["treatment"] == pytest.approx(expected, rel=1e-12)
    with pytest.raises(UserError, match="no 'hc3' errors"):
        relative_risk(fit, "treatment")


def test_such_a_table_may_lie_on_the_boundary():
    arms = pd.DataFrame({"treatment": [0, 1], "k": [10, 100], "n": [100, 100]})
    fit = log_binomial(arms, "~ treatment", "k", "n")
    assert fit.status == "boundary"
    assert fit.coefficients["treatment"] == pytest.approx(math.log(10), abs=1e-9)
    assert fit.standard_errors["naive"]["treatment"] == pytest.approx(math.sqrt(1 / 10 - 1 / 100), rel=1e-9)


def test_one_cluster_for_all_rows_is_refused(data):
    with pytest.raises(UserError, match="All rows have the same week: errors by cluster need several"):
        log_binomial(data.assign(week=7), "~ treatment", **COUNTS, cluster="week")


@pytest.mark.parametrize("empty", ["food", "travel"])
def test_a_level_without_clicks_has_no_finite_estimate(data, empty):
    silent = data.assign(clicks=data["clicks"].where(data["industry"] != empty, 0))
    with pytest.raises(UserError, match="no clicks"):
        log_binomial(silent, "~ treatment + C(industry)", **COUNTS)


def test_an_advertiser_alone_in_its_level_says_nothing_of_the_others():
    """Its leverage is 1 and its column fits it exactly: errors of treatment are those without it, but for rounding."""
    rng = np.random.default_rng(12)
    frame = pd.DataFrame({"treatment": np.arange(60) % 2.0, "industry": "food", "n": 1000})
    frame["k"] = rng.binomial(1000, 0.05 + 0.05 * rng.random(60))
    alone = pd.DataFrame({"treatment": [1.0], "industry": ["toys"], "n": [50_000], "k": [9000]})
    fit = log_binomial(pd.concat([frame, alone]), "~ treatment + C(industry)", "k", "n")
    without = log_binomial(frame, "~ treatment", "k", "n")
    for kind in ("hc0", "hc3"):
        expected = without.standard_errors[kind]["treatment"]
        assert fit.standard_errors[kind]["treatment"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_levels_of_a_row_each_have_no_error_but_rounding(seed):
    """Both are fitted exactly, and no residual tells how such rows differ."""
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame({"level": ["a", "b"] + ["c"] * 28, "n": rng.integers(50, 3000, 30)})
    fit = log_binomial(rows.assign(k=1 + rng.binomial(rows["n"] - 1, 0.2)), "~ level", "k", "n")
    with pytest.raises(UserError, match="standard error is zero"):
        relative_risk(fit, "level[T.b]")


@pytest.mark.parametrize("apart", [1e3, 1.0, 1e-3, 0.0])
def test_the_triangle_of_columns_near_and_far_from_collinear_is_that_of_all_rows_at_once(apart):
    rng = np.random.default_rng(3)
    x = np.column_stack([np.ones(9000), *rng.normal(size=(2, 9000))]) * [1, 1e3, 1e-3]
    x = np.column_stack([x, 2 * x[:, 0] - x[:, 1] + apart * rng.normal(size=9000)])
    found, expected = np.abs(triangle_of(x)), np.abs(np.linalg.qr(x, mode="r"))
    assert (np.abs(found - expected) < 1e-11 * np.linalg.norm(x, axis=0)).all()
    assert dependent_columns(x) == ([3] if apart == 0 else [])
