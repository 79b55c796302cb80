"""Does the effect differ between kinds of advertisers? One fit per segment, treatment interacted with its levels.

Looking at many levels finds something by chance: the p-values are adjusted to a false discovery rate (Benjamini and
Hochberg 1995), over all levels of all segments. The heterogeneity test asks whether a segment's effects are all equal
(Wald's chi-square with the headline's covariance, HC3), its p-value adjusted over the segments.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import special

from rlpf_pipeline.abtest.design import MOST_LEVELS, TREATMENT, Design, build_design
from rlpf_pipeline.abtest.log_binomial import (
    SMALLEST_ERROR,
    RelativeRisk,
    dependent_columns,
    estimate,
    risk_from,
    standard_errors,
)
from rlpf_pipeline.abtest.maximum import Array, Counts
from rlpf_pipeline.abtest.sandwich import HEADLINE
from rlpf_pipeline.abtest.spec import MISSING_LEVEL, Covariate
from rlpf_pipeline.errors import UserError

FALSE_DISCOVERY_RATE = 0.05
FEWEST = 20
"""Effective advertisers of each arm that a level needs: with fewer, errors are too small for what many levels ask."""
MOST_NAMED = 10
"""Levels in a note."""


class SegmentEffect(NamedTuple):
    segment: str
    level: str
    advertisers: int
    risk: RelativeRisk
    adjusted_p_value: float
    """Benjamini-Hochberg, over all levels of all segments."""
    discovery: bool
    """Adjusted p below the false discovery rate of 5 %."""


class Heterogeneity(NamedTuple):
    segment: str
    chi_square: float
    degrees_of_freedom: int
    p_value: float
    """Of one common effect."""
    adjusted_p_value: float
    """Benjamini-Hochberg, over all segments."""


class Segments(NamedTuple):
    effects: tuple[SegmentEffect, ...]
    heterogeneity: tuple[Heterogeneity, ...]


class Fitted(NamedTuple):
    """The levels of a segment that have an effect, and the fit's log relative risks of them."""

    levels: list[str]
    advertisers: list[int]
    beta: Array
    covariance: Array
    """Of the headline's kind."""


def segment_effects(
    design: Design, covariates: tuple[Covariate, ...], segments: tuple[str, ...]
) -> tuple[Segments, list[str]]:
    """Effects by level of each segment, and notes on what could not be estimated; `covariates`: the experiment's."""
    found: list[tuple[str, str, int, RelativeRisk]] = []
    tests: list[tuple[str, float, int, float]] = []
    notes: list[str] = []
    for segment in segments:
        fitted, said = fitted_levels(segment, design, covariates)
        notes += [f"Segment {segment}: {what}" for what in said]
        if fitted is None:
            continue
        errors = standard_errors(fitted.covariance)
        for level, advertisers, beta, error in zip(fitted.levels, fitted.advertisers, fitted.beta, errors, strict=True):
            found.append((segment, level, advertisers, risk_from(float(beta), float(error))))
        if len(fitted.levels) > 1:
            tests.append(heterogeneity(segment, fitted.beta, fitted.covariance))
    adjusted = benjamini_hochberg([risk.p_value for *_, risk in found])
    effects = [SegmentEffect(*row, p, p < FALSE_DISCOVERY_RATE) for row, p in zip(found, adjusted, strict=True)]
    differences = benjamini_hochberg([p for *_, p in tests])
    return Segments(
        tuple(effects), tuple(Heterogeneity(*row, p) for row, p in zip(tests, differences, strict=True))
    ), notes


def fitted_levels(segment: str, design: Design, covariates: tuple[Covariate, ...]) -> tuple[Fitted | None, list[str]]:
    """The segment's fit, on the advertisers of its usable levels alone, and what was left out of it and why."""
    labels = labels_of(design.frame[segment])
    levels, poor = usable_levels(labels, design)
    notes = []
    if poor:
        named = ", ".join(poor[:MOST_NAMED]) + (
            f" and {len(poor) - MOST_NAMED:,} more" if len(poor) > MOST_NAMED else ""
        )
        notes.append(
            f"no effect was estimated for {named} (an arm counts as fewer than {FEWEST} advertisers, or has no clicks)."
        )
    if not 2 <= len(levels) <= MOST_LEVELS:
        return None, [*notes, f"no effects, which need 2 to {MOST_LEVELS} usable levels; it has {len(levels)}."]
    rows = np.isin(labels, levels)
    part = build_design(design.frame[rows], covariates)
    lost = [name for name in design.covariates if name not in part.covariates]
    if lost:
        notes.append(f"not adjusted for {', '.join(lost)}, which the usable levels alone cannot carry.")
    try:
        beta, covariance = interacted_fit(labels[rows], levels, part)
    except UserError as error:
        return None, [*notes, f"no effect was estimated. {error}"]
    varying = standard_errors(covariance) > SMALLEST_ERROR
    if not varying.all():
        still = ", ".join(level for level, varies in zip(levels, varying, strict=True) if not varies)
        notes.append(f"no effect was estimated for {still} (the click-through rate does not vary within an arm).")
    kept = [level for level, varies in zip(levels, varying, strict=True) if varies]
    advertisers = [int((labels == level).sum()) for level in kept]
    return Fitted(kept, advertisers, beta[varying], covariance[np.ix_(varying, varying)]), notes


def labels_of(values: pd.Series[Any]) -> npt.NDArray[np.object_]:
    """Levels as text, true and false as yes and no."""
    codes, levels = pd.factorize(values)
    words = {True: "yes", False: "no"}
    names = [words[bool(level)] if isinstance(level, (bool, np.bool_)) else str(level) for level in levels]
    return np.array([*names, MISSING_LEVEL], object)[codes]  # the code of a missing value is -1


def usable_levels(labels: npt.NDArray[np.object_], design: Design) -> tuple[list[str], list[str]]:
    """Levels whose advertisers of each arm have clicks and count as FEWEST (Kish: (sum n)^2 / sum n^2), and others."""
    levels, numbers = np.unique(labels, return_inverse=True)
    _, clicks, impressions = design.counts
    enough = np.ones(len(levels), dtype=bool)
    for arm in (design.treated == 0, design.treated > 0):
        shown, squared, clicked = (
            np.bincount(numbers[arm], values[arm], len(levels)) for values in (impressions, impressions**2, clicks)
        )
        enough &= (FEWEST * squared <= shown**2) & (clicked > 0)
    return levels[enough].tolist(), levels[~enough].tolist()


def interacted_fit(labels: npt.NDArray[np.object_], levels: list[str], design: Design) -> tuple[Array, Array]:
    """Log relative risks by level and their covariance, of the headline's kind; labels: of the design's advertisers.

    Raises UserError where there is no estimate.
    """
    x, k, n = design.counts
    own = np.stack([(labels == level).astype(float) for level in levels], axis=1)
    columns = np.hstack([own * design.treated[:, None], own, np.delete(x, [0, design.position], axis=1)])
    others = [name for name in design.names if name not in ("Intercept", TREATMENT)]
    names = [*(f"{TREATMENT} of {level}" for level in levels), *levels, *others]
    dropped = dependent_columns(columns)
    kept = [name for j, name in enumerate(names) if j not in dropped]
    size = len(levels)
    fit = estimate(Counts(np.delete(columns, dropped, axis=1), k, n), kept, of=slice(size))
    return fit.beta[:size], fit.covariances[HEADLINE]


def heterogeneity(segment: str, beta: Array, covariance: Array) -> tuple[str, float, int, float]:
    """Segment, chi-square, degrees of freedom, p."""
    contrasts = np.eye(len(beta))[1:] - np.eye(len(beta))[0]
    gaps = contrasts @ beta
    statistic = float(gaps @ np.linalg.solve(contrasts @ covariance @ contrasts.T, gaps))
    return segment, statistic, len(gaps), float(special.chdtrc(len(gaps), statistic))


def benjamini_hochberg(p_values: list[float]) -> list[float]:
    """Adjusted p-values in the order given: the smallest false discovery rate at which each is a discovery."""
    number = len(p_values)
    order = sorted(range(number), key=lambda i: p_values[i])
    adjusted, smallest = [1.0] * number, 1.0
    for rank in range(number, 0, -1):
        position = order[rank - 1]
        smallest = min(smallest, p_values[position] * number / rank)
        adjusted[position] = smallest
    return adjusted
