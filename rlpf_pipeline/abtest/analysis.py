"""The whole analysis of one experiment, as a referee asks: validity, effect, other models, adoption, time, segments.

analysis = analyse(pandas.read_parquet("experiment_advertisers.parquet"))
analysis.headline.estimate        # 1.067 is +6.7 % CTR
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from rlpf_pipeline.abtest.arms import (
    ArmTotals,
    Distribution,
    QuantileEffect,
    arm_totals,
    distributions,
    quantile_effects,
)
from rlpf_pipeline.abtest.design import Design, build_design
from rlpf_pipeline.abtest.frames import with_exposure
from rlpf_pipeline.abtest.linear import LinearEffect, linear_effect
from rlpf_pipeline.abtest.log_binomial import Estimate, RelativeRisk, estimate, one_thread
from rlpf_pipeline.abtest.over_time import OverTime, effects_over_time
from rlpf_pipeline.abtest.panel import Experiment, load_experiment
from rlpf_pipeline.abtest.power import Power, realised_power
from rlpf_pipeline.abtest.rerandomise import certify, randomisation_test, rerandomise
from rlpf_pipeline.abtest.robustness import RobustnessRow, risk_of, robustness_table
from rlpf_pipeline.abtest.sandwich import HEADLINE
from rlpf_pipeline.abtest.segments import Segments, segment_effects
from rlpf_pipeline.abtest.spec import LIFETIME_CTR_OFFSET, OUTCOMES, ExperimentSpec
from rlpf_pipeline.abtest.validity import Validity, assess

ADOPTION = ("variations", "ads")
"""Outcomes that come before delivery, so that all randomised advertisers have them."""
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
    validity: Validity
    robustness: tuple[RobustnessRow, ...]
    adoption: tuple[LinearEffect, ...]
    """Variations, then ads, per randomised advertiser, delivered or not; empty where the table has neither."""
    distributions: tuple[Distribution, ...]
    quantile_effects: tuple[QuantileEffect, ...]
    over_time: OverTime | None
    """None where the table has no date."""
    segments: Segments
    power: Power
    notes: tuple[str, ...]
    """What was left out of the data or the model, and why."""


def analyse(source: Any, spec: ExperimentSpec | None = None, query: str | None = None) -> ExperimentAnalysis:
    """Analyse an experiment: a table of contracts.EXPERIMENT_ADVERTISERS, or what the spec describes.

    source, query: as in `panel.load_experiment`; the order of rows does not matter.
    Raises UserError for data that cannot be analysed: see there and `frames.with_exposure`.
    """
    with one_thread():
        return analysis_of(load_experiment(source, spec, query))


def analysis_of(experiment: Experiment) -> ExperimentAnalysis:
    exposed = with_exposure(experiment.advertisers)
    design = build_design(exposed, experiment.covariates)
    fit = estimate(design.counts, design.names)
    headline = risk_of(design, fit)
    linear, constant_notes = linear_effects(
        design, ("clicks", "impressions", *(name for name in experiment.outcomes if name not in ADOPTION))
    )
    adoption, same_notes = linear_effects(
        everyone(experiment, design), tuple(name for name in ADOPTION if name in experiment.outcomes)
    )
    again = rerandomise(design)
    validity = assess(experiment, design, fit, linear, certify(again) if again else None)
    over_time, time_notes = effects_over_time(experiment, design)
    robustness, model_notes = robustness_table(design, fit, linear, randomisation_test(again) if again else None)
    segments, segment_notes = segment_effects(design, experiment.covariates, experiment.segments)
    return ExperimentAnalysis(
        verdict=verdict_of(headline, validity),
        headline=headline,
        model=describe(design, fit),
        arms=arm_totals(experiment.advertisers, exposed, experiment.outcomes),
        validity=validity,
        robustness=robustness,
        adoption=tuple(adoption.values()),
        distributions=distributions(exposed, experiment.outcomes),
        quantile_effects=quantile_effects(exposed, experiment.outcomes),
        over_time=over_time,
        segments=segments,
        power=realised_power(headline.standard_error),
        notes=(
            *left_out(experiment, len(exposed)),
            *design.notes,
            *constant_notes,
            *same_notes,
            *model_notes,
            *time_notes,
            *segment_notes,
        ),
    )


def verdict_of(headline: RelativeRisk, validity: Validity) -> Verdict:
    if any(check.light == "fail" for check in validity.checks):
        return "invalid"
    if headline.low > 1:
        return "raises"
    return "lowers" if headline.high < 1 else "undecided"


def describe(design: Design, fit: Estimate) -> Model:
    return Model(
        formula=design.formula,
        covariates=design.covariates,
        lifetime_ctr_offset=LIFETIME_CTR_OFFSET,
        status=fit.status,
        iterations=fit.iterations,
        advertisers=len(design.frame),
        columns=len(design.names),
        errors=HEADLINE,
    )


def everyone(experiment: Experiment, exposed: Design) -> Design:
    """The design of all randomised advertisers, delivered or not."""
    if len(experiment.advertisers) == len(exposed.frame):
        return exposed
    return build_design(experiment.advertisers, experiment.covariates)


def linear_effects(design: Design, outcomes: tuple[str, ...]) -> tuple[dict[str, LinearEffect], list[str]]:
    """Effects by outcome, and a note for each outcome that does not vary and so has none."""
    varying = [outcome for outcome in outcomes if design.frame[outcome].nunique() > 1]
    notes = [
        f"Every advertiser has the same {outcome}: no effect on it was estimated."
        for outcome in outcomes
        if outcome not in varying
    ]
    return {outcome: linear_effect(outcome, design.frame[outcome], design.matrix) for outcome in varying}, notes


def left_out(experiment: Experiment, exposed: int) -> list[str]:
    notes = []
    randomised = len(experiment.advertisers)
    if randomised != exposed:
        notes.append(f"{randomised - exposed} of {randomised} advertisers had no impressions and were left out.")
    absent = [outcome for outcome in OUTCOMES if outcome not in experiment.outcomes]
    if absent:
        notes.append(f"The table has no {', '.join(absent)}: nothing is said about them.")
    if experiment.periods is None:
        notes.append("The table has no date, or one day only: there is no effect over time.")
    return notes
