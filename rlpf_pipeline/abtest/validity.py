"""Can the estimate be trusted? Random as planned, arms alike beforehand, no handful of advertisers in command."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

from rlpf_pipeline.abtest.design import Design
from rlpf_pipeline.abtest.evidence import (
    Balance,
    Concentration,
    ErrorRatio,
    MissingRow,
    Removal,
    SampleRatio,
    covariate_balance,
    error_ratio,
    impression_concentration,
    missing_by_arm,
    sample_ratio,
    top_removed,
)
from rlpf_pipeline.abtest.figures import decimals_for, signed
from rlpf_pipeline.abtest.linear import LinearEffect
from rlpf_pipeline.abtest.log_binomial import Estimate, RelativeRisk, Status
from rlpf_pipeline.abtest.panel import Experiment
from rlpf_pipeline.abtest.rerandomise import Certificate
from rlpf_pipeline.abtest.robustness import risk_of

Light = Literal["pass", "warn", "fail"]

MISMATCH_ALPHA = 0.001
"""Usual threshold for sample-ratio mismatch (Fabijan et al. 2019): a false alarm stops a good experiment."""
BALANCE_ALPHA = 0.001
EXPOSURE_ALPHA = 0.01
LIKE_SIZED = 0.4
"""Smaller arm's share from which on the tails of both cancel: HC1 rejects .3 % at 1 % there, 9 % with a twentieth."""
MOST_INFLATION = 1.25
"""HC3 over HC1 beyond which so much hangs on a few advertisers' leverage that hardly a method would be right."""
LARGEST_MOVE = 0.5
"""Of the headline by leaving out one advertiser, in its standard errors. HC3 is close to the sum of all such moves
squared: at a half, one advertiser makes a quarter of the variance."""
FEW_ADVERTISERS = 50
"""Effective advertisers of an arm below which the sandwich's normal approximation is doubtful."""


class Check(NamedTuple):
    name: str
    light: Light
    detail: str


class Validity(NamedTuple):
    randomised: SampleRatio
    exposed: SampleRatio
    """Advertisers with impressions: a gap here that `randomised` lacks means the treatment changed who delivers."""
    balance: Balance
    missing: tuple[MissingRow, ...]
    exposure: tuple[LinearEffect, ...]
    """Effect on impressions, and on spend where the table has it."""
    exposure_p_values: tuple[float, ...]
    """Of these; where one arm is small as covariates are tested for balance, for a regression's are too small there."""
    concentration: Concentration
    removals: tuple[Removal, ...]
    """The ten advertisers with most impressions, removed one by one."""
    errors: ErrorRatio
    certificate: Certificate | None
    """None where the data do not allow it."""
    checks: tuple[Check, ...]


def assess(
    experiment: Experiment,
    design: Design,
    fit: Estimate,
    linear: Mapping[str, LinearEffect],
    certificate: Certificate | None,
) -> Validity:
    """`linear`: effects of treatment on impressions and spend, where these vary."""
    share = experiment.treatment_share
    randomised = sample_ratio(experiment.advertisers["arm"], share)
    exposed = sample_ratio(design.frame["arm"], share)
    balance = covariate_balance(design.characteristics, design.treated > 0)
    missing = missing_by_arm(experiment)
    exposure = tuple(linear[outcome] for outcome in ("impressions", "spend") if outcome in linear)
    unequal = tuple(exposure_p_value(effect, design) for effect in exposure)
    concentration = impression_concentration(design.counts.n, design.treated > 0)
    removals = top_removed(design)
    errors = error_ratio(design, fit)
    return Validity(
        randomised=randomised,
        exposed=exposed,
        balance=balance,
        missing=missing,
        exposure=exposure,
        exposure_p_values=unequal,
        concentration=concentration,
        removals=removals,
        errors=errors,
        certificate=certificate,
        checks=(
            ratio_check("Sample ratio", randomised, "assigned", share),
            ratio_check("Delivery", exposed, "with impressions", share),
            balance_check(balance),
            missing_check(missing),
            exposure_check(exposure, unequal),
            concentration_check(concentration, errors),
            influence_check(risk_of(design, fit), removals),
            certificate_check(certificate),
            convergence_check(fit),
        ),
    )


def ratio_check(name: str, ratio: SampleRatio, who: str, treatment_share: float) -> Check:
    planned = f"{100 * (1 - treatment_share):g} : {100 * treatment_share:g} expected"
    detail = f"{ratio.control:,} control and {ratio.treatment:,} treatment advertisers {who}, {planned}"
    return Check(name, "fail" if ratio.p_value < MISMATCH_ALPHA else "pass", f"{detail}; p = {ratio.p_value:.3g}.")


def balance_check(balance: Balance) -> Check:
    if not balance.rows:
        return Check("Balance", "warn", "No covariate varies: balance cannot be checked.")
    worst = max(balance.rows, key=lambda row: abs(row.standardised_difference))
    detail = (
        f"All covariates at once: p = {balance.p_value:.3g}; largest standardised difference "
        f"{signed(worst.standardised_difference, 3)} ({worst.column})."
    )
    light: Light = "fail" if balance.p_value < BALANCE_ALPHA else "warn" if balance.p_value < 0.05 else "pass"
    return Check("Balance", light, detail)


def missing_check(missing: tuple[MissingRow, ...]) -> Check:
    if not missing:
        return Check("Missing data", "pass", "No covariate has missing values.")
    worst = min(missing, key=lambda row: row.p_value)
    detail = (
        f"{len(missing)} covariate(s) with missing values; most unequal by arm: {worst.column} ({worst.control:,} "
        f"control, {worst.treatment:,} treatment; p = {worst.p_value:.3g})."
    )
    return Check("Missing data", "warn" if worst.p_value * len(missing) < EXPOSURE_ALPHA else "pass", detail)


def exposure_p_value(effect: LinearEffect, design: Design) -> float:
    share = design.treated.mean()
    if min(share, 1 - share) >= LIKE_SIZED:
        return effect.p_value
    return covariate_balance(design.frame[[effect.outcome]], design.treated > 0).p_value


def exposure_check(exposure: tuple[LinearEffect, ...], p_values: tuple[float, ...]) -> Check:
    """Whether one arm was shown or paid more: then budgets may have moved between the arms."""
    if not exposure:
        return Check("Equal exposure", "pass", "Every advertiser has the same impressions.")
    detail = " ".join(
        f"Difference in {effect.outcome} per advertiser: {difference_of(effect)}; p = {p_value:.3g}."
        for effect, p_value in zip(exposure, p_values, strict=True)
    )
    unequal = min(p_values) * len(exposure) < EXPOSURE_ALPHA
    return Check("Equal exposure", "warn" if unequal else "pass", detail)


def difference_of(effect: LinearEffect) -> str:
    """With its interval, whose width is told to two digits."""
    decimals = decimals_for(effect.high - effect.low, fewest=0)
    told, low, high = (signed(number, decimals) for number in (effect.difference, effect.low, effect.high))
    return f"{told} ({low} to {high})"


def concentration_check(concentration: Concentration, errors: ErrorRatio) -> Check:
    inflation = errors.robust / errors.hc1
    detail = (
        f"By impressions the {concentration.advertisers:,} advertisers count as "
        f"{concentration.effective_control:,.0f} in control and {concentration.effective_treatment:,.0f} in treatment; "
        f"the top 1 % ({concentration.top_advertisers}) hold {100 * concentration.top_share:.1f} % of impressions. "
        f"Their leverage makes the error (HC3) {100 * (inflation - 1):.1f} % larger than HC1."
    )
    fewest = min(concentration.effective_control, concentration.effective_treatment)
    doubtful = fewest < FEW_ADVERTISERS or inflation > MOST_INFLATION
    return Check("Sample size", "warn" if doubtful else "pass", detail)


def influence_check(headline: RelativeRisk, removals: tuple[Removal, ...]) -> Check:
    if not removals:
        return Check(
            "Influence", "warn", "No advertiser could be removed: an arm or a level would be left without clicks."
        )
    estimates = [removal.risk.estimate for removal in removals]
    detail = (
        f"Without any one of the {len(removals)} advertisers with most impressions the relative risk is "
        f"{min(estimates):.3f} to {max(estimates):.3f}."
    )
    turned = [removal for removal in removals if settled(removal.risk) != settled(headline)]
    farthest = max(abs(math.log(value / headline.estimate)) for value in estimates)
    moved = farthest > LARGEST_MOVE * headline.standard_error
    if turned:
        more = f" and {len(turned) - 3} more" if len(turned) > 3 else ""
        named = ", ".join(removal.advertiser_id for removal in turned[:3])
        detail += f" Whether the interval holds 1 hangs on {named}{more}."
    return Check("Influence", "warn" if turned or moved else "pass", detail)


def settled(risk: RelativeRisk) -> bool:
    return not risk.low <= 1 <= risk.high


def certificate_check(certificate: Certificate | None) -> Check:
    if certificate is None:
        return Check(
            "A/A certificate", "warn", "Not made: a boundary fit, or most random assignments have no estimate."
        )
    rejected, low, high = (100 * rate for rate in (certificate.false_positive_rate, certificate.low, certificate.high))
    detail = (
        f"Of {certificate.assignments:,} random assignments of the same data {rejected:.1f} % reject at 5 % "
        f"(95 % interval {low:.1f} to {high:.1f} %)."
    )
    return Check("A/A certificate", "warn" if certificate.low > 0.05 else "pass", detail)


def convergence_check(fit: Estimate) -> Check:
    details: dict[Status, str] = {
        "converged": f"The log-binomial likelihood is at its maximum (iterations: {fit.iterations}).",
        "boundary": "The likelihood is highest where fitted means are 1; errors take for granted where.",
        "modified-poisson": "The log-binomial likelihood has no maximum, or several: modified Poisson was used.",
    }
    return Check("Model fit", "pass" if fit.status == "converged" else "warn", details[fit.status])
