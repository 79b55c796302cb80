"""The study's robustness table: the same question asked of other models, each with its estimand and scale.

Logistic, Poisson and linear regressions are statsmodels'; GLMs as rates with `var_weights` and HC0 times n/(n-p)
(statsmodels returns HC0 under every HC name for a GLM).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import statsmodels.api as sm

from rlpf_pipeline.abtest.design import TREATMENT, Design
from rlpf_pipeline.abtest.linear import LinearEffect
from rlpf_pipeline.abtest.log_binomial import LogBinomialFit, RelativeRisk, log_binomial, relative_risk, risk_from

CTR_RATIO = "CTR of treatment over CTR of control, impression-weighted"


class RobustnessRow(NamedTuple):
    model: str
    estimand: str
    scale: str
    """What estimate, low and high are measured in."""
    estimate: float
    low: float
    high: float
    p_value: float
    ratio: RelativeRisk | None
    """The same effect as a ratio to control, the common scale of the forest plot; None where it has none."""
    note: str


def robustness_table(
    design: Design, headline: LogBinomialFit, linear: Mapping[str, LinearEffect]
) -> tuple[RobustnessRow, ...]:
    """One row per model. `headline` is the log-binomial fit with the design's covariates; `linear` has the effects on
    clicks and impressions where these vary."""
    adjusted = (
        f"adjusted for {len(design.covariates)} covariates" if design.covariates else "No covariate to adjust for"
    )
    plain = log_binomial(design.frame, f"~ {TREATMENT}", successes="clicks", trials="impressions")
    return (
        ratio_row("Log-binomial", CTR_RATIO, "relative risk", relative_risk(headline, TREATMENT), f"{adjusted}; HC1"),
        ratio_row("Log-binomial, unadjusted", CTR_RATIO, "relative risk", relative_risk(plain, TREATMENT), "HC1"),
        ratio_row(
            "Quasi-binomial",
            CTR_RATIO,
            "relative risk",
            relative_risk(headline, TREATMENT, errors="quasi"),
            "One dispersion for all; too narrow when impressions are heavy-tailed",
        ),
        ratio_row(
            "Logistic",
            CTR_RATIO,
            "marginal relative risk",
            logistic_relative_risk(design),
            f"{adjusted}; g-computation over the advertisers; HC1",
        ),
        ratio_row("Poisson", CTR_RATIO, "relative risk", poisson_relative_risk(design), f"{adjusted}; HC1"),
        *(
            linear_row(f"Linear, {outcome}", linear[outcome], adjusted)
            for outcome in ("clicks", "impressions")
            if outcome in linear
        ),
    )


def ratio_row(model: str, estimand: str, scale: str, risk: RelativeRisk, note: str) -> RobustnessRow:
    return RobustnessRow(model, estimand, scale, risk.estimate, risk.low, risk.high, risk.p_value, risk, note)


def linear_row(model: str, effect: LinearEffect, adjusted: str) -> RobustnessRow:
    return RobustnessRow(
        model=model,
        estimand=f"Difference of mean {effect.outcome} per advertiser, every advertiser counts once",
        scale=f"{effect.outcome} per advertiser",
        estimate=effect.difference,
        low=effect.low,
        high=effect.high,
        p_value=effect.p_value,
        ratio=effect.ratio,
        note=f"{adjusted}; HC1",
    )


def poisson_relative_risk(design: Design) -> RelativeRisk:
    result, covariance = rate_regression(sm.families.Poisson(), design)
    position = list(design.matrix.columns).index(TREATMENT)
    return risk_from(float(result.params[position]), float(np.sqrt(covariance[position, position])))


def logistic_relative_risk(design: Design) -> RelativeRisk:
    """Mean predicted CTR with all treated over that with none, weighted by impressions (g-computation, Robins 1986).

    The error is the delta method on the coefficients' HC1 covariance, given the advertisers and their impressions.
    """
    result, covariance = rate_regression(sm.families.Binomial(), design)
    impressions = design.frame["impressions"].to_numpy(float)
    log_means, gradients = [], []
    for arm in (0.0, 1.0):
        x = design.matrix.assign(**{TREATMENT: arm}).to_numpy(float)
        ctr = 1 / (1 + np.exp(-(x @ result.params)))
        clicks = impressions * ctr
        log_means.append(float(np.log(clicks.sum())))
        gradients.append(x.T @ (clicks * (1 - ctr)) / clicks.sum())
    gradient = gradients[1] - gradients[0]
    return risk_from(log_means[1] - log_means[0], float(np.sqrt(gradient @ covariance @ gradient)))


def rate_regression(family: Any, design: Design) -> tuple[Any, npt.NDArray[np.float64]]:
    """A GLM of CTR on the design and its coefficients' HC1 covariance."""
    impressions = design.frame["impressions"].to_numpy(float)
    x = design.matrix.to_numpy(float)
    model = sm.GLM(design.frame["clicks"].to_numpy(float) / impressions, x, family=family, var_weights=impressions)
    result = model.fit(cov_type="HC0", maxiter=100, tol=1e-10, tol_criterion="params")
    rows, columns = x.shape
    return result, np.asarray(result.cov_params()) * rows / (rows - columns)
