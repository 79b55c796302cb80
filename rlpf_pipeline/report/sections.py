"""The report's body as sections of paragraphs, tables and a figure: what HTML and Markdown both show, said once."""

from __future__ import annotations

from typing import NamedTuple

from rlpf_pipeline.abtest.analysis import ExperimentAnalysis
from rlpf_pipeline.abtest.arms import QUANTILES, QuantileEffect
from rlpf_pipeline.abtest.figures import decimals_for, fixed, signed
from rlpf_pipeline.abtest.over_time import OverTime
from rlpf_pipeline.abtest.segments import FALSE_DISCOVERY_RATE
from rlpf_pipeline.abtest.sequential import LEAST_ADVERTISERS
from rlpf_pipeline.report.methods import FORMULAS, REFERENCES, model_paragraphs
from rlpf_pipeline.report.wording import (
    LIGHTS,
    change,
    change_interval,
    change_with_interval,
    decimals_of,
    estimate,
    integer,
    interval,
    percent,
    probability,
)

NONE = "–"


class Grid(NamedTuple):
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    prose: tuple[int, ...] = ()
    """Columns of text that may wrap, by number."""


class Section(NamedTuple):
    title: str
    paragraphs: tuple[str, ...] = ()
    figure: str = ""
    """Name of a plot (plots.py)."""
    caption: str = ""
    grids: tuple[Grid, ...] = ()
    formulas: tuple[str, ...] = ()
    items: tuple[str, ...] = ()


def sections_of(analysis: ExperimentAnalysis, notes: tuple[str, ...]) -> list[Section]:
    over_time = [over_time_section(analysis.over_time)] if analysis.over_time else []
    adoption = [adoption_section(analysis)] if analysis.adoption else []
    segments = [segments_section(analysis)] if analysis.segments.effects else []
    return [
        forest_section(analysis),
        *over_time,
        *segments,
        *adoption,
        validity_section(analysis),
        *balance_sections(analysis),
        arms_section(analysis),
        power_section(analysis),
        *([Section("Notes", items=notes)] if notes else []),
        Section("Methods", model_paragraphs(analysis), formulas=FORMULAS),
        Section("References", items=REFERENCES),
    ]


def forest_section(analysis: ExperimentAnalysis) -> Section:
    agreement = {True: "agrees", False: "differs", None: NONE}
    rows = tuple(
        (row.model, estimate(row), interval(row), probability(row.p_value), agreement[row.agrees])
        for row in analysis.robustness
    )
    asked = tuple((row.model, f"{row.estimand}; {row.weighting}", row.note) for row in analysis.robustness)
    differing = [row.model for row in analysis.robustness if row.agrees is False]
    said = (
        f"These disagree with the headline: {', '.join(differing)}."
        if differing
        else "All models that ask about clicks agree with the headline: each holds its estimate, or lies inside it."
    )
    return Section(
        "The same question, other models",
        (said,),
        "forest",
        "Each effect as a ratio to control, with its 95 % interval. Impressions (grey) should not move.",
        (
            Grid("Each on its own scale", ("Model", "Estimate", "95 % interval", "p", "Headline"), rows),
            Grid("What each model asks", ("Model", "Estimand and weighting", "Notes"), asked, (1, 2)),
        ),
    )


def over_time_section(over_time: OverTime) -> Section:
    unit = over_time.period_name
    decided = (
        f"The confidence sequence first leaves out no effect at the end of {unit} {over_time.decided_at}."
        if over_time.decided_at
        else "The confidence sequence holds no effect all along."
        if any(effect.anytime for effect in over_time.periods)
        else f"Every {unit} is too early for a look: the confidence sequence says nothing."
    )
    paragraphs = [
        f"{decided} Its p-value, valid whenever one looked, is {probability(over_time.anytime_p_value)}. The "
        "headline's interval is for one look, at the end."
    ]
    if any(effect.anytime is None for effect in over_time.periods):
        paragraphs.append(
            f"It is too early for a look while the impressions of an arm count as fewer than {LEAST_ADVERTISERS} "
            "advertisers of equal size: (Σn)²/Σn²."
        )
    if over_time.novelty:
        novelty = over_time.novelty
        decimals = decimals_for(100 * novelty.standard_error, fewest=2)
        slope, error = signed(100 * novelty.slope, decimals), fixed(100 * novelty.standard_error, decimals)
        trend = f"{slope} % per {unit} (standard error {error})"
        paragraphs.append(f"Novelty trend of the effect, {unit} by {unit}: {trend}; p {probability(novelty.p_value)}.")
    rows = tuple(
        (
            str(effect.period),
            change_with_interval(effect.cumulative),
            change_interval(effect.anytime) if effect.anytime else "too early",
            change_with_interval(effect.alone) if effect.alone else NONE,
        )
        for effect in over_time.periods
    )
    header = (
        unit.capitalize(),
        "Cumulative (one look)",
        "Confidence sequence",
        f"{unit.capitalize()} alone, unadjusted",
    )
    return Section(
        "The effect over time",
        tuple(paragraphs),
        "over_time",
        f"Cumulative effect at the end of each {unit}; bars: interval for one look, band: confidence sequence.",
        (Grid("Relative change of the click-through rate", header, rows),),
    )


def segments_section(analysis: ExperimentAnalysis) -> Section:
    segments = analysis.segments
    found = [f"{e.segment} {e.level}" for e in segments.effects if e.discovery]
    differing = [test.segment for test in segments.heterogeneity if test.adjusted_p_value < FALSE_DISCOVERY_RATE]
    said = (
        f"The effect differs between levels of {', '.join(differing)}."
        if differing
        else "No segment's levels differ from each other in a way that chance would not explain."
    )
    effects = tuple(
        (
            e.segment.replace("_", " "),
            e.level,
            integer(e.advertisers),
            change_with_interval(e.risk),
            probability(e.risk.p_value),
            probability(e.adjusted_p_value),
        )
        for e in segments.effects
    )
    tests = tuple(
        (
            t.segment.replace("_", " "),
            fixed(t.chi_square, 2),
            str(t.degrees_of_freedom),
            probability(t.p_value),
            probability(t.adjusted_p_value),
        )
        for t in segments.heterogeneity
    )
    return Section(
        "Segments",
        (f"{said} Levels with an effect at a false discovery rate of 5 %: {', '.join(found) or 'none'}.",),
        "segments",
        "Relative risk by level, adjusted as the headline is.",
        (
            Grid(
                "p by level, and adjusted for looking at all of them",
                ("Segment", "Level", "Advertisers", "Effect", "p", "Adjusted p"),
                effects,
                (1,),
            ),
            Grid("One effect for all levels?", ("Segment", "χ²", "Degrees of freedom", "p", "Adjusted p"), tests),
        ),
    )


def adoption_section(analysis: ExperimentAnalysis) -> Section:
    rows = tuple(
        (
            effect.outcome,
            fixed(effect.control_mean, decimals),
            signed(effect.difference, decimals),
            f"{signed(effect.low, decimals)} to {signed(effect.high, decimals)}",
            probability(effect.p_value),
            change_with_interval(effect.ratio) if effect.ratio else NONE,
        )
        for effect in analysis.adoption
        for decimals in (decimals_for(effect.high - effect.low, fewest=2),)
    )
    header = ("Outcome", "Control mean", "Difference", "95 % interval", "p", "Relative")
    how = (
        "Over all randomised advertisers, also those without impressions. Ordinary least squares with the same "
        "covariates and HC1 errors; relative to the adjusted mean of control."
    )
    return Section("Adoption", (how,), grids=(Grid("What advertisers create, per advertiser", header, rows),))


def validity_section(analysis: ExperimentAnalysis) -> Section:
    validity = analysis.validity
    errors = validity.errors
    checks = tuple((check.name, LIGHTS[check.light], check.detail) for check in validity.checks)
    grids = [Grid("", ("Check", "Light", "What was found"), checks, (2,))]
    if validity.certificate:
        certificate = validity.certificate
        rows = tuple((percent(c.level, 0), percent(c.covered)) for c in certificate.coverage)
        caption = f"A/A certificate: intervals of {integer(certificate.assignments)} random assignments that hold 1"
        grids.append(Grid(caption, ("Interval", "Coverage"), rows))
    if validity.removals:
        removed = tuple(
            (r.advertiser_id, integer(r.impressions), change_with_interval(r.risk)) for r in validity.removals
        )
        caption = "The headline without one advertiser: those with most impressions"
        grids.append(Grid(caption, ("Advertiser", "Impressions", "Effect without it"), removed))
    if validity.missing:
        missing = tuple(
            (m.column, integer(m.control), integer(m.treatment), probability(m.p_value)) for m in validity.missing
        )
        grids.append(Grid("Missing values by arm", ("Covariate", "Control", "Treatment", "p"), missing))
    naive, quasi, hc1, hc3 = (error_of(error, 5) for error in (errors.naive, errors.quasi, errors.hc1, errors.robust))
    ratio = (
        f"Standard error of the log relative risk: naive {naive}, quasi-binomial "
        f"{quasi} ({fixed(errors.quasi_over_naive, 1)} times), HC1 {hc1}, HC3 "
        f"{hc3} ({fixed(errors.robust_over_naive, 1)} times). Only HC1 and HC3 allow for "
        "advertisers that differ, and only HC3, the headline’s, for the leverage of the largest."
    )
    return Section("Validity", (ratio,), grids=tuple(grids))


def balance_sections(analysis: ExperimentAnalysis) -> list[Section]:
    balance = analysis.validity.balance
    if not balance.rows:
        return []
    source = " (of random assignments: a few advertisers carry a column)" if balance.is_exact else ""
    said = (
        f"All covariates at once: χ² = {fixed(balance.chi_square, 2)} on {balance.degrees_of_freedom} degrees of "
        f"freedom, p {probability(balance.p_value)}{source}."
    )
    rows = tuple(
        (row.column, fixed(row.control_mean), fixed(row.treatment_mean), signed(row.standardised_difference, 3))
        for row in balance.rows
    )
    header = ("Covariate", "Control mean", "Treatment mean", "Standardised difference")
    caption = "Standardised differences of what was known before; dashed at 0.1."
    return [Section("Balance", (said,), "balance", caption, (Grid("", header, rows),))]


def arms_section(analysis: ExperimentAnalysis) -> Section:
    outcomes = tuple(analysis.arms[0].means)
    decimals = decimals_for(10 * min(arm.ctr for arm in analysis.arms), fewest=3)  # three digits of it in percent
    totals = tuple(
        (
            arm.arm,
            integer(arm.advertisers),
            integer(arm.impressions),
            integer(arm.clicks),
            number_of("CTR", arm.ctr, decimals),
            *(fixed(arm.means[outcome], 2) for outcome in outcomes),
            integer(arm.without_impressions),
        )
        for arm in analysis.arms
    )
    header = ("Arm", "Advertisers", "Impressions", "Clicks", "CTR", *(f"Mean {outcome}" for outcome in outcomes))
    quantiles = tuple(f"{100 * q:.0f} %" for q in QUANTILES)
    spread = tuple(
        (d.quantity, d.arm, *(number_of(d.quantity, value, decimals) for value in (d.mean, *d.quantiles)))
        for d in analysis.distributions
    )
    shifts = tuple(shift_row(effect, decimals) for effect in analysis.quantile_effects)
    return Section(
        "The arms before any model",
        (),
        "quantiles",
        "Click-through rate of the advertisers at five quantiles, by arm.",
        (
            Grid("Totals of the advertisers with impressions", (*header, "Without impressions"), totals),
            Grid("Distributions over advertisers", ("Quantity", "Arm", "Mean", *quantiles), spread),
            Grid(
                "Quantile treatment effects (bootstrap)",
                ("Quantity", "Quantile", "Control", "Difference", "95 % interval"),
                shifts,
            ),
        ),
    )


def shift_row(effect: QuantileEffect, decimals: int) -> tuple[str, ...]:
    """decimals: of a CTR in percent, at least; a narrow interval is told to two digits of its width."""
    if effect.high > effect.low:
        decimals = decimals_for(100 * (effect.high - effect.low), decimals)
    numbers = (effect.control, effect.difference, effect.low, effect.high)
    control, difference, low, high = (number_of(effect.quantity, number, decimals) for number in numbers)
    return effect.quantity, f"{100 * effect.quantile:.0f} %", control, difference, f"{low} to {high}"


def error_of(standard_error: float, fewest: int) -> str:
    """A small one to two digits."""
    return fixed(standard_error, decimals_for(standard_error, fewest) if standard_error > 0 else fewest)


def number_of(quantity: str, value: float, decimals: int) -> str:
    """decimals: of a CTR in percent."""
    return f"{fixed(100 * value, decimals)} %" if quantity == "CTR" else fixed(value, 1)


def power_section(analysis: ExperimentAnalysis) -> Section:
    power = analysis.power
    study = change(1 + power.study_effect)
    least = change(1 + power.minimum_detectable_effect, decimals_of(analysis.headline))
    found = (
        f"At the realised standard error of {error_of(power.standard_error, 4)} the experiment finds {least} with 80 % "
        f"probability (two-sided test at 5 %). A true effect of the study’s size, {study}, it finds with probability "
        f"{percent(power.power_at_study_effect, 0)}."
    )
    errors = (
        f"If the truth were {study}, a significant estimate would on average be {fixed(power.exaggeration, 2)} times "
        f"too large (type M) and have the wrong sign with probability {percent(power.sign_risk, 2)} (type S)."
    )
    return Section("Power", (found, errors))
