"""The effect as it came about: cumulative with a confidence sequence, period by period, and whether it wears off.

The novelty trend is the least-squares slope of the periods' log CTR ratios. Their covariance is that of the
advertisers' influences summed over both arms, so that an advertiser's periods may depend on each other.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from rlpf_pipeline.abtest.design import Design
from rlpf_pipeline.abtest.log_binomial import SMALLEST_ERROR, RelativeRisk, risk_from
from rlpf_pipeline.abtest.maximum import Array, Counts
from rlpf_pipeline.abtest.panel import Experiment
from rlpf_pipeline.abtest.ratio import ArmCounts
from rlpf_pipeline.abtest.robustness import risk_among
from rlpf_pipeline.abtest.sequential import AnytimeInterval, anytime_interval, count_as, may_look
from rlpf_pipeline.errors import UserError

LEAST_ALONE = 10
"""Effective advertisers of each arm that a period's own effect needs: of fewer its error is anything."""


class PeriodEffect(NamedTuple):
    period: int
    """From 1."""
    cumulative: RelativeRisk
    """All up to the period's end, adjusted as the headline is, with its error."""
    anytime: AnytimeInterval | None
    """None where it is too early for a look (sequential.may_look)."""
    alone: RelativeRisk | None
    """The period by itself, not adjusted (delta method); None where an arm has no clicks in it, or counts as
    fewer than LEAST_ALONE advertisers."""


class Novelty(NamedTuple):
    slope: float
    """Change of the log relative risk from one period to the next."""
    standard_error: float
    z: float
    p_value: float


class OverTime(NamedTuple):
    period_name: str
    """day, week or period."""
    periods: tuple[PeriodEffect, ...]
    anytime_p_value: float
    """Smallest over the looks: valid whenever one looked. 1 where every period is too early."""
    decided_at: int | None
    """First period whose confidence sequence leaves out 1."""
    novelty: Novelty | None
    """None with fewer than 3 periods that have an effect of their own, or where they do not differ."""


def effects_over_time(experiment: Experiment, design: Design) -> tuple[OverTime | None, list[str]]:
    """The effect by period, and notes on periods that could not be estimated; None without a date."""
    if experiment.periods is None:
        return None, []
    everyone = pd.Index(experiment.advertisers["advertiser_id"])
    clicks, impressions = by_advertiser(
        experiment.periods, everyone.get_indexer(pd.Index(design.frame["advertiser_id"]))
    )
    effects: list[PeriodEffect] = []
    notes: list[str] = []
    for period in np.flatnonzero(impressions.sum(axis=0)).tolist():
        alone = alone_in(clicks[:, period], impressions[:, period], design)
        so_far = impressions[:, : period + 1].sum(axis=1)
        try:
            risk = cumulative(clicks[:, : period + 1].sum(axis=1), so_far, design)
        except UserError as error:
            notes.append(f"Up to {experiment.period_name} {period + 1} there is no estimate: {error}")
            continue
        anytime = anytime_interval(risk) if may_look(so_far, design.treated > 0) else None
        effects.append(PeriodEffect(period + 1, risk, anytime, alone))
    if not effects:
        return None, notes
    looks = [(effect.period, effect.anytime) for effect in effects if effect.anytime]
    decided = [period for period, anytime in looks if not anytime.low <= 1 <= anytime.high]
    return OverTime(
        period_name=experiment.period_name,
        periods=tuple(effects),
        anytime_p_value=min((anytime.p_value for _, anytime in looks), default=1.0),
        decided_at=decided[0] if decided else None,
        novelty=novelty_trend(clicks, impressions, design),
    ), notes


def by_advertiser(periods: pd.DataFrame, rows: npt.NDArray[np.intp]) -> tuple[Array, Array]:
    """Clicks and impressions, each (rows, periods), of the advertisers with these numbers."""
    shape = (int(periods["advertiser"].max()) + 1, int(periods["period"].max()) + 1)
    where = periods["advertiser"].to_numpy(int), periods["period"].to_numpy(int)
    clicks, impressions = np.zeros(shape), np.zeros(shape)
    clicks[where], impressions[where] = periods["clicks"].to_numpy(float), periods["impressions"].to_numpy(float)
    return clicks[rows], impressions[rows]


def cumulative(clicks: Array, impressions: Array, design: Design) -> RelativeRisk:
    shown = impressions > 0
    return risk_among(design, Counts(design.matrix.to_numpy(float)[shown], clicks[shown], impressions[shown]))


def alone_in(clicks: Array, impressions: Array, design: Design) -> RelativeRisk | None:
    log_ratio, influence = log_ratio_of(clicks, impressions, design)
    error = 0.0 if influence is None else float(np.linalg.norm(influence))
    return risk_from(log_ratio, error) if error > SMALLEST_ERROR else None


def log_ratio_of(clicks: Array, impressions: Array, design: Design) -> tuple[float, Array | None]:
    """Log ratio of the arms' CTRs and each advertiser's influence on it, (advertisers,), over 1 - its share of its
    arm's impressions, as HC3 has it; None where an arm has no clicks, or counts as too few advertisers."""
    log_ratio, influence = 0.0, np.zeros(len(clicks))
    for sign, arm in ((1.0, design.treated > 0), (-1.0, design.treated == 0)):
        counts = ArmCounts(clicks[arm], impressions[arm])
        if counts.k.sum() == 0 or not count_as(LEAST_ALONE, counts.n):
            return 0.0, None
        log_ratio += sign * math.log(counts.ctr)
        influence[arm] = sign * counts.influence / len(counts.k) / (1 - counts.n / counts.n.sum())
    return log_ratio, influence


def novelty_trend(clicks: Array, impressions: Array, design: Design) -> Novelty | None:
    periods, log_ratios, influences = [], [], []
    for period in range(clicks.shape[1]):
        log_ratio, influence = log_ratio_of(clicks[:, period], impressions[:, period], design)
        if influence is not None:
            periods.append(period)
            log_ratios.append(log_ratio)
            influences.append(influence)
    if len(periods) < 3:
        return None
    centred = np.array(periods, float) - np.mean(periods)
    weights = centred / (centred @ centred)
    slope, error = float(weights @ np.array(log_ratios)), float(np.linalg.norm(weights @ np.array(influences)))
    if error <= SMALLEST_ERROR:
        return None
    trend = risk_from(slope, error)
    return Novelty(slope, error, trend.z, trend.p_value)
