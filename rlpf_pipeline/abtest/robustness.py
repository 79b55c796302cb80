"""The study's robustness table and more: the same question asked of other models, each with its estimand and scale.

Logistic, Poisson and linear regressions are statsmodels'; GLMs as rates with `var_weights`, and HC3 by its formula
(statsmodels returns HC0 under every HC name for a GLM).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from rlpf_pipeline.abtest import ratio
from rlpf_pipeline.abtest.design import TREATMENT, Design
from rlpf_pipeline.abtest.linear import LinearEffect
from rlpf_pipeline.abtest.log_binomial import (
    Estimate,
    RelativeRisk,
    dependent_columns,
    estimate,
    fitted_risk,
    log_binomial,
    relative_risk,
    risk_from,
    standard_errors,
)
from rlpf_pipeline.abtest.maximum import Array, Counts, products
from rlpf_pipeline.abtest.rerandomise import Randomisation, randomisation_interval
from rlpf_pipeline.abtest.sandwich import HEADLINE, OWN_LEVEL, quadratic
from rlpf_pipeline.errors import UserError

CTR_RATIO = "Ratio of CTRs"
LOGISTIC, POISSON, LIN = "Logistic", "Poisson", "Regression-adjusted (Lin)"
IMPRESSIONS_SCALE = "impressions per advertiser"
BY_IMPRESSION, BY_ADVERTISER = "each impression counts once", "each advertiser counts once"


class RobustnessRow(NamedTuple):
    model: str
    estimand: str
    weighting: str
    scale: str
    """What estimate, low and high are measured in."""
    estimate: float
    low: float
    high: float
    p_value: float
    ratio: RelativeRisk | None
    """The same effect as a ratio to control, the common scale of the forest plot; None where it has none."""
    agrees: bool | None
    """Whether its interval and the headline's overlap in an estimate: one of them holds the other's. None where it does
    not ask about clicks."""
    note: str


def robustness_table(
    design: Design, headline: Estimate, linear: Mapping[str, LinearEffect], randomisation: Randomisation | None
) -> tuple[tuple[RobustnessRow, ...], list[str]]:
    """One row per model, and a note on models without an estimate. `headline` is the log-binomial fit with the design's
    covariates; `linear` has the effects on clicks and impressions where these vary."""
    rows = [*ctr_rows(design, headline, randomisation), *linear_rows(design, linear)]
    first, models = rows[0].ratio, [row.model for row in rows]
    absent = [model for model in (LOGISTIC, POISSON, *([LIN] if design.covariates else [])) if model not in models]
    notes = [f"{' and '.join(absent)}: no estimate, as an arm or a level has hardly a miss."] if absent else []
    return tuple(row._replace(agrees=agreement(first, row)) for row in rows), notes


def agreement(headline: RelativeRisk | None, row: RobustnessRow) -> bool | None:
    if headline is None or row.ratio is None or row.scale == IMPRESSIONS_SCALE:
        return None
    return headline.low <= row.ratio.estimate <= headline.high or row.ratio.low <= headline.estimate <= row.ratio.high


def ctr_rows(design: Design, headline: Estimate, randomisation: Randomisation | None) -> Iterator[RobustnessRow]:
    adjusted = adjustment(design)
    counts, treated = design.counts, design.treated > 0
    k, n = counts.k, counts.n
    observed = risk_of(design, headline)
    plain = log_binomial(design.frame, f"~ {TREATMENT}", successes="clicks", trials="impressions")
    quasi = "One dispersion for all; too narrow when impressions are heavy-tailed"
    yield ratio_row("Log-binomial", observed, f"{adjusted}; HC3")
    yield ratio_row("Log-binomial, HC1", risk_of(design, headline, "hc1"), "The same; the study's kind of error")
    yield ratio_row("Log-binomial, unadjusted", relative_risk(plain, TREATMENT), "HC3")
    yield ratio_row("Quasi-binomial", risk_of(design, headline, "quasi"), quasi)
    logistic, poisson = logistic_relative_risk(design), poisson_relative_risk(design)
    if logistic:
        row = ratio_row(LOGISTIC, logistic, f"{adjusted}; g-computation; HC3")
        yield row._replace(scale="marginal relative risk")
    if poisson:
        yield ratio_row(POISSON, poisson, f"{adjusted}; HC3")
    yield ratio_row(
        "Delta method", ratio.delta_method(k, n, treated), "No covariates, no likelihood; too narrow in a small arm"
    )
    if design.covariates:
        columns = design.matrix.drop(columns=["Intercept", TREATMENT]).to_numpy(float)
        by_arm = ratio.regression_adjusted(k, n, treated, columns)
        if by_arm:
            yield ratio_row(LIN, by_arm, f"{adjusted}, slopes by arm; HC3")
    if "log_lifetime_ctr" in design.matrix:
        past = ratio.cuped(k, n, treated, design.matrix["log_lifetime_ctr"].to_numpy(float))
        if past:
            yield ratio_row("CUPED", past, "Adjusted for log lifetime CTR by one slope")
    yield ratio_row("Winsorised", ratio.winsorised(k, n, treated), "Impressions capped at their 99 % quantile")
    mean = ratio_row("Mean CTR of advertisers", ratio.advertiser_means(k, n, treated), "Delta method")
    yield mean._replace(weighting=BY_ADVERTISER)
    if randomisation:
        risk = randomisation_interval(observed, randomisation)
        yield ratio_row(
            "Randomisation inference", risk, f"Studentised; critical |z| {randomisation.critical_value:.2f}"
        )


def adjustment(design: Design) -> str:
    number = len(design.covariates)
    return f"Adjusted for {number} covariate{'s' if number > 1 else ''}" if number else "No covariate to adjust for"


def linear_rows(design: Design, linear: Mapping[str, LinearEffect]) -> Iterator[RobustnessRow]:
    for outcome in ("clicks", "impressions"):
        if outcome in linear:
            effect = linear[outcome]
            yield RobustnessRow(
                model=f"Linear, {outcome}",
                estimand=f"Difference of mean {outcome}",
                weighting=BY_ADVERTISER,
                scale=f"{outcome} per advertiser",
                estimate=effect.difference,
                low=effect.low,
                high=effect.high,
                p_value=effect.p_value,
                ratio=effect.ratio,
                agrees=None,
                note=f"{adjustment(design)}; HC1",
            )


def ratio_row(model: str, risk: RelativeRisk, note: str) -> RobustnessRow:
    figures = risk.estimate, risk.low, risk.high, risk.p_value, risk
    return RobustnessRow(model, CTR_RATIO, BY_IMPRESSION, "relative risk", *figures, agrees=None, note=note)


def risk_of(design: Design, fit: Estimate, errors: str = HEADLINE) -> RelativeRisk:
    """The relative risk of treatment."""
    return risk_at(design.position, fit, errors)


def risk_at(position: int, fit: Estimate, errors: str = HEADLINE) -> RelativeRisk:
    error = float(standard_errors(fit.covariances[errors])[position])
    return fitted_risk(float(fit.beta[position]), error, fit.status)


def risk_among(design: Design, counts: Counts) -> RelativeRisk:
    """The headline on other rows of the design, adjusted for the covariates that vary there.

    Raises UserError where the rows are too few, or an estimate does not exist.
    """
    dropped = dependent_columns(counts.x)
    names = [name for j, name in enumerate(design.names) if j not in dropped]
    if design.position in dropped or len(counts.x) <= len(names):
        raise UserError("too few advertisers have impressions.")
    fit = estimate(counts._replace(x=np.delete(counts.x, dropped, axis=1)), names)
    return risk_at(names.index(TREATMENT), fit)


def poisson_relative_risk(design: Design) -> RelativeRisk | None:
    found = rate_regression("Poisson", design)
    if found is None:
        return None
    result, covariance = found
    position = design.position
    return risk_from(float(result.params[position]), float(np.sqrt(covariance[position, position])))


def logistic_relative_risk(design: Design) -> RelativeRisk | None:
    """Mean predicted CTR with all treated over that with none, weighted by impressions (g-computation, Robins 1986).

    The error is the delta method on the coefficients' HC3 covariance, given the advertisers and their impressions.
    """
    found = rate_regression("Binomial", design)
    if found is None:
        return None
    result, covariance = found
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


def rate_regression(family: str, design: Design) -> tuple[Any, Array] | None:
    """A GLM of CTR on the design, of a family of statsmodels with its canonical link, and the coefficients' HC3
    covariance; None where that is singular, as of odds where every impression of an arm was clicked."""
    from statsmodels.genmod import families  # heavy, and not needed by the fit alone
    from statsmodels.genmod.generalized_linear_model import GLM

    x, k, n = design.counts
    model = GLM(k / n, x, family=getattr(families, family)(), var_weights=n)
    result = model.fit(maxiter=100, tol=1e-10, tol_criterion="params")
    weight = n * model.family.variance(result.mu)
    return None if dependent_columns(x * weight[:, None]) else (result, canonical_hc3(x, k - n * result.mu, weight))


def canonical_hc3(x: Array, residual: Array, weight: Array) -> Array:
    """HC3 of a GLM with its canonical link: residual k - n mu and weight n V(mu) by row. See sandwich.py."""
    bread = np.asarray(np.linalg.inv(products(x, weight)), dtype=np.float64)
    rest = 1 - weight * quadratic(x, bread)
    adjusted = residual / np.where(rest > OWN_LEVEL, rest, np.inf)
    return np.asarray(bread @ products(x, adjusted**2) @ bread)
