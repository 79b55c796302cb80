"""Other models of the same effect: without covariates the CTR models must agree."""

from __future__ import annotations

import pytest

from rlpf_pipeline.abtest.design import build_design
from rlpf_pipeline.abtest.frames import checked_advertisers, with_exposure
from rlpf_pipeline.abtest.linear import linear_effect
from rlpf_pipeline.abtest.log_binomial import log_binomial, relative_risk
from rlpf_pipeline.abtest.robustness import logistic_relative_risk, poisson_relative_risk, robustness_table
from rlpf_pipeline_tests.abtest.experiment_data import experiment


def design_of(frame):
    return build_design(with_exposure(checked_advertisers(frame)))


@pytest.fixture(scope="module")
def plain():
    """Ninety advertisers: too few for covariates."""
    return design_of(experiment(90, seed=8))


def test_saturated_models_give_the_same_risk_and_robust_error(plain):
    fit = log_binomial(plain.frame, "~ treatment", successes="clicks", trials="impressions")
    expected = relative_risk(fit, "treatment")
    for risk in (logistic_relative_risk(plain), poisson_relative_risk(plain)):
        assert risk.estimate == pytest.approx(expected.estimate, rel=1e-8)
        assert risk.standard_error == pytest.approx(expected.standard_error, rel=1e-6)


def test_g_computation_averages_predictions_over_advertisers():
    """Against a marginal effect by finite differences: the risk itself, from statsmodels' own predictions."""
    import statsmodels.api as sm

    design = design_of(experiment(600, seed=9))
    impressions = design.frame["impressions"]
    family = sm.families.Binomial()
    result = sm.GLM(design.frame["clicks"] / impressions, design.matrix, family=family, var_weights=impressions).fit()
    clicks = [(result.predict(design.matrix.assign(treatment=arm)) * impressions).sum() for arm in (0.0, 1.0)]
    assert logistic_relative_risk(design).estimate == pytest.approx(clicks[1] / clicks[0], rel=1e-6)


def test_every_row_names_its_estimand_and_contains_its_estimate():
    design = design_of(experiment(800, seed=10))
    fit = log_binomial(design.frame, design.formula, successes="clicks", trials="impressions")
    linear = {name: linear_effect(name, design.frame[name], design.matrix) for name in ("clicks", "impressions")}
    table = robustness_table(design, fit, linear)
    assert [row.model for row in table] == [
        "Log-binomial",
        "Log-binomial, unadjusted",
        "Quasi-binomial",
        "Logistic",
        "Poisson",
        "Linear, clicks",
        "Linear, impressions",
    ]
    assert all(row.low < row.estimate < row.high and row.estimand and row.scale for row in table)
    quasi = fit.standard_errors["quasi"]["treatment"]
    assert table[2].ratio.standard_error == quasi
