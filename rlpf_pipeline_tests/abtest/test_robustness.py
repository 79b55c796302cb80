"""Other models of the same effect: without covariates the CTR models must agree."""

from __future__ import annotations

import numpy as np
import pytest

from rlpf_pipeline.abtest.linear import linear_effect
from rlpf_pipeline.abtest.log_binomial import estimate, log_binomial, relative_risk
from rlpf_pipeline.abtest.rerandomise import Randomisation
from rlpf_pipeline.abtest.robustness import (
    agreement,
    logistic_relative_risk,
    poisson_relative_risk,
    risk_of,
    robustness_table,
)
from rlpf_pipeline.errors import UserError
from rlpf_pipeline_tests.abtest.experiment_data import design_of, experiment


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
    fit = estimate(design.counts, design.names)
    linear = {name: linear_effect(name, design.frame[name], design.matrix) for name in ("clicks", "impressions")}
    table, notes = robustness_table(design, fit, linear, Randomisation(0.01, 2.0))
    assert notes == []
    assert [row.model for row in table] == [
        "Log-binomial",
        "Log-binomial, HC1",
        "Log-binomial, unadjusted",
        "Quasi-binomial",
        "Logistic",
        "Poisson",
        "Delta method",
        "Regression-adjusted (Lin)",
        "CUPED",
        "Winsorised",
        "Mean CTR of advertisers",
        "Randomisation inference",
        "Linear, clicks",
        "Linear, impressions",
    ]
    assert all(row.low < row.estimate < row.high and row.estimand and row.scale and row.weighting for row in table)
    position = design.position
    for row, kind in ((0, "hc3"), (1, "hc1"), (3, "quasi")):
        assert table[row].ratio.standard_error == fit.covariances[kind][position, position] ** 0.5
    assert table[11].p_value == 0.01
    assert table[11].ratio.high == pytest.approx(table[0].estimate * np.exp(2.0 * table[0].ratio.standard_error))


def test_agreement_asks_whether_an_interval_holds_the_others_estimate():
    design = design_of(experiment(800, seed=10))
    fit = estimate(design.counts, design.names)
    linear = {"impressions": linear_effect("impressions", design.frame["impressions"], design.matrix)}
    (first, *others), _ = robustness_table(design, fit, linear, None)
    far = first.ratio._replace(estimate=3.0, low=2.9, high=3.1)
    assert first.agrees is True
    assert agreement(far, first) is False
    assert others[-1].agrees is None


def test_where_an_arm_clicks_always_the_logistic_row_is_left_out():
    """Its log odds are infinite; the ratio of CTRs is not."""
    frame = experiment(200, seed=6)[["advertiser_id", "arm", "impressions", "clicks"]].assign(impressions=1)
    frame["clicks"] = np.where(frame["arm"] == "control", 1, frame.index % 10 > 0)
    design = design_of(frame)
    rows, notes = robustness_table(design, estimate(design.counts, design.names), {}, None)
    models = [row.model for row in rows]
    assert "Logistic" not in models
    assert "Poisson" in models
    assert notes == ["Logistic: no estimate, as an arm or a level has hardly a miss."]


def test_a_variance_of_rounding_is_no_error(plain):
    fit = estimate(plain.counts, plain.names)
    rounding = fit._replace(covariances={"hc3": np.full((2, 2), -1e-33)})
    with pytest.raises(UserError, match="standard error is zero"):
        risk_of(plain, rounding)
