"""Does the effect differ between kinds of advertisers? One fit per segment, treatment interacted with its levels.

Looking at many levels finds something by chance: the p-values are adjusted to a false discovery rate (Benjamini and
Hochberg 1995), over all levels of all segments. The heterogeneity test asks whether a segment's effects are all equal
(Wald's chi-square with the headline's covariance, HC3).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import special

from rlpf_pipeline.abtest.design import MISSING_LEVEL, MOST_LEVELS, TREATMENT, Design
from rlpf_pipeline.abtest.log_binomial import RelativeRisk, dependent_columns, estimate, risk_from
from rlpf_pipeline.abtest.maximum import Array, Counts
from rlpf_pipeline.abtest.sandwich import HEADLINE

FALSE_DISCOVERY_RATE = 0.05
FEWEST = 10
"""Advertisers of an arm that a level needs."""


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


class Segments(NamedTuple):
    effects: tuple[SegmentEffect, ...]
    heterogeneity: tuple[Heterogeneity, ...]


def segment_effects(design: Design, exposed: pd.DataFrame, segments: tuple[str, ...]) -> tuple[Segments, list[str]]:
    """Effects by level of each segment, and notes on levels that have too few advertisers or no clicks."""
    found: list[tuple[str, str, int, RelativeRisk]] = []
    tests: list[Heterogeneity] = []
    notes: list[str] = []
    for segment in segments:
        labels = labels_of(exposed[segment])
        levels, poor = usable_levels(labels, design)
        if poor:
            notes.append(
                f"Segment {segment}: no effect was estimated for {', '.join(poor)} (fewer than {FEWEST} advertisers or "
                "no clicks in an arm)."
            )
        if not 2 <= len(levels) <= MOST_LEVELS:
            continue
        beta, covariance = interacted_fit(labels, levels, design)
        for j, level in enumerate(levels):
            risk = risk_from(float(beta[j]), math.sqrt(covariance[j, j]))
            found.append((segment, level, int((labels == level).sum()), risk))
        tests.append(heterogeneity(segment, beta, covariance))
    adjusted = benjamini_hochberg([risk.p_value for *_, risk in found])
    effects = [SegmentEffect(*row, p, p < FALSE_DISCOVERY_RATE) for row, p in zip(found, adjusted, strict=True)]
    return Segments(tuple(effects), tuple(tests)), notes


def labels_of(values: pd.Series[Any]) -> npt.NDArray[np.object_]:
    """Levels as text, true and false as yes and no."""
    codes, levels = pd.factorize(values)
    words = {True: "yes", False: "no"}
    names = [words[bool(level)] if isinstance(level, (bool, np.bool_)) else str(level) for level in levels]
    return np.array([*names, MISSING_LEVEL], object)[codes]  # the code of a missing value is -1


def usable_levels(labels: npt.NDArray[np.object_], design: Design) -> tuple[list[str], list[str]]:
    usable: list[str] = []
    poor: list[str] = []
    clicks = design.frame["clicks"].to_numpy(float)
    for level in sorted(set(labels)):
        arms = [(labels == level) & (design.treated == arm) for arm in (0.0, 1.0)]
        enough = all(arm.sum() >= FEWEST and clicks[arm].sum() > 0 for arm in arms)
        (usable if enough else poor).append(level)
    return usable, poor


def interacted_fit(labels: npt.NDArray[np.object_], levels: list[str], design: Design) -> tuple[Array, Array]:
    """Log relative risks by level and their covariance, of the headline's kind."""
    rows = np.isin(labels, levels)
    counts = design.counts
    interactions = np.stack([(labels[rows] == level) * design.treated[rows] for level in levels], axis=1)
    own = np.stack([(labels[rows] == level).astype(float) for level in levels], axis=1)
    others = design.matrix.drop(columns=["Intercept", TREATMENT]).to_numpy(float)[rows]
    x = np.hstack([interactions, own, others])
    x = np.delete(x, dependent_columns(x), axis=1)
    names = [*(f"{TREATMENT} {level}" for level in levels), *(f"column {j}" for j in range(x.shape[1] - len(levels)))]
    fit = estimate(Counts(x, counts.k[rows], counts.n[rows]), names)
    size = len(levels)
    return fit.beta[:size], fit.covariances[HEADLINE][:size, :size]


def heterogeneity(segment: str, beta: Array, covariance: Array) -> Heterogeneity:
    contrasts = np.eye(len(beta))[1:] - np.eye(len(beta))[0]
    gaps = contrasts @ beta
    statistic = float(gaps @ np.linalg.solve(contrasts @ covariance @ contrasts.T, gaps))
    return Heterogeneity(segment, statistic, len(gaps), float(special.chdtrc(len(gaps), statistic)))


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
