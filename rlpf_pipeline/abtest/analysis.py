"""The whole analysis of one experiment, as a referee asks: effect, other models, adoption, validity, power.

analysis = analyse(pandas.read_parquet("experiment_advertisers.parquet"))
analysis.headline.estimate        # 1.067 is +6.7 % CTR
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from rlpf_pipeline.abtest.arms import ArmTotals, arm_totals
from rlpf_pipeline.abtest.design import LIFETIME_CTR_OFFSET, TREATMENT, Design, build_design
from rlpf_pipeline.abtest.frames import checked_advertisers, with_exposure
from rlpf_pipeline.abtest.linear import LinearEffect, linear_effect
from rlpf_pipeline.abtest.log_binomial import LogBinomialFit, RelativeRisk, log_binomial, relative_risk
from rlpf_pipeline.abtest.power import Power, realised_power
from rlpf_pipeline.abtest.robustness import RobustnessRow, robustness_table
from rlpf_pipeline.abtest.validity import Validity, assess

Verdict = Literal["raises", "lowers", "undecided", "invalid"]


class Model(NamedTuple):
    """The headline's regression."""

    formula: str
    covariates: tuple[str, ...]
    lifetime_ctr_offset: float
    status: str
    iterations: int
    advertisers: int
    columns: int
    errors: str


class ExperimentAnalysis(NamedTuple):
    verdict: Verdict
    """raises or lowers CTR (interval without 1), undecided, or invalid (a validity check failed)."""
    headline: RelativeRisk
    """CTR of treatment over CTR of control."""
    model: Model
    arms: tuple[ArmTotals, ArmTotals]
    """Control, treatment."""
    robustness: tuple[RobustnessRow, ...]
    adoption: tuple[LinearEffect, ...]
    """Variations, then ads, per advertiser; empty where neither varies."""
    validity: Validity
    power: Power
    notes: tuple[str, ...]
    """What was left out of the data or the model, and why."""


def analyse(advertisers: Any) -> ExperimentAnalysis:
    """Analyse contracts.EXPERIMENT_ADVERTISERS (pandas.DataFrame or pyarrow.Table); the order of rows does not matter.

    Raises UserError for data that cannot be analysed: see `frames.checked_advertisers` and `frames.with_exposure`.
    """
    randomised = checked_advertisers(advertisers)
    exposed = with_exposure(randomised)
    design = build_design(exposed)
    fit = log_binomial(design.frame, design.formula, successes="clicks", trials="impressions")
    headline = relative_risk(fit, TREATMENT)
    linear, constant_notes = linear_effects(design, ("clicks", "impressions", "variations", "ads"))
    validity = assess(randomised, design, fit, linear.get("impressions"))
    return ExperimentAnalysis(
        verdict=verdict_of(headline, validity),
        headline=headline,
        model=describe(design, fit),
        arms=arm_totals(randomised, exposed),
        robustness=robustness_table(design, fit, linear),
        adoption=tuple(linear[outcome] for outcome in ("variations", "ads") if outcome in linear),
        validity=validity,
        power=realised_power(headline.standard_error),
        notes=(*exposure_notes(len(randomised), len(exposed)), *design.notes, *constant_notes),
    )


def verdict_of(headline: RelativeRisk, validity: Validity) -> Verdict:
    if any(check.light == "fail" for check in validity.checks):
        return "invalid"
    if headline.low > 1:
        return "raises"
    return "lowers" if headline.high < 1 else "undecided"


def describe(design: Design, fit: LogBinomialFit) -> Model:
    return Model(
        formula=design.formula,
        covariates=design.covariates,
        lifetime_ctr_offset=LIFETIME_CTR_OFFSET,
        status=fit.status,
        iterations=fit.iterations,
        advertisers=fit.n,
        columns=len(fit.coefficients),
        errors="hc1",
    )


def linear_effects(design: Design, outcomes: tuple[str, ...]) -> tuple[dict[str, LinearEffect], list[str]]:
    """Effects by outcome, and a note for each outcome that does not vary and so has none."""
    varying = [outcome for outcome in outcomes if design.frame[outcome].nunique() > 1]
    notes = [
        f"Every advertiser has the same {outcome}: no effect on it was estimated."
        for outcome in outcomes
        if outcome not in varying
    ]
    return {outcome: linear_effect(outcome, design.frame[outcome], design.matrix) for outcome in varying}, notes


def exposure_notes(randomised: int, exposed: int) -> tuple[str, ...]:
    if randomised == exposed:
        return ()
    return (f"{randomised - exposed} of {randomised} advertisers had no impressions and were left out.",)
