"""The arms before any model: totals, distributions over advertisers, and how their quantiles differ."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from rlpf_pipeline.abtest.maximum import Array
from rlpf_pipeline.contracts import ARMS

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
BOOTSTRAPS = 2000
SEED = 7


class ArmTotals(NamedTuple):
    arm: str
    advertisers: int
    """With impressions."""
    without_impressions: int
    """Randomised but left out of the analysis."""
    impressions: int
    clicks: int
    ctr: float
    """Clicks per impression, over the arm."""
    means: dict[str, float]
    """Ads, variations and spend per advertiser with impressions, where the table has them."""


class Distribution(NamedTuple):
    """Of one quantity over an arm's advertisers with impressions."""

    quantity: str
    arm: str
    mean: float
    quantiles: tuple[float, ...]
    """At QUANTILES."""


class QuantileEffect(NamedTuple):
    quantity: str
    quantile: float
    control: float
    difference: float
    """Treatment's quantile less control's."""
    low: float
    high: float
    """95 % percentile interval of the bootstrap over advertisers."""


def arm_totals(
    randomised: pd.DataFrame, exposed: pd.DataFrame, outcomes: tuple[str, ...]
) -> tuple[ArmTotals, ArmTotals]:
    """Control, treatment."""
    control, treatment = (
        totals(arm, randomised[randomised["arm"] == arm], exposed[exposed["arm"] == arm], outcomes) for arm in ARMS
    )
    return control, treatment


def totals(arm: str, randomised: pd.DataFrame, exposed: pd.DataFrame, outcomes: tuple[str, ...]) -> ArmTotals:
    clicks, impressions = int(exposed["clicks"].sum()), int(exposed["impressions"].sum())
    return ArmTotals(
        arm=arm,
        advertisers=len(exposed),
        without_impressions=len(randomised) - len(exposed),
        impressions=impressions,
        clicks=clicks,
        ctr=clicks / impressions,
        means={outcome: float(exposed[outcome].mean()) for outcome in outcomes},
    )


def quantities(exposed: pd.DataFrame, outcomes: tuple[str, ...]) -> dict[str, Array]:
    """What is described: CTR of an advertiser, its impressions and clicks, and the outcomes."""
    counted = ("impressions", "clicks", *outcomes)
    ctr = (exposed["clicks"] / exposed["impressions"]).to_numpy(float)
    return {"CTR": ctr} | {name: exposed[name].to_numpy(float) for name in counted}


def distributions(exposed: pd.DataFrame, outcomes: tuple[str, ...]) -> tuple[Distribution, ...]:
    return tuple(
        Distribution(name, arm, float(part.mean()), tuple(np.quantile(part, QUANTILES).tolist()))
        for name, values in quantities(exposed, outcomes).items()
        for arm in ARMS
        for part in [values[(exposed["arm"] == arm).to_numpy()]]
    )


def quantile_effects(exposed: pd.DataFrame, outcomes: tuple[str, ...]) -> tuple[QuantileEffect, ...]:
    """Quantile treatment effects on an advertiser's CTR, and on variations where the table has them."""
    chosen = {"CTR", "variations"}
    treated = (exposed["arm"] == ARMS[1]).to_numpy()
    rng = np.random.default_rng(SEED)
    effects = []
    for name, values in quantities(exposed, outcomes).items():
        if name not in chosen:
            continue
        arms = np.sort(values[~treated]), np.sort(values[treated])
        for quantile in QUANTILES:
            control, treatment = (float(np.quantile(arm, quantile)) for arm in arms)
            draws = [bootstrapped_quantile(arm, quantile, rng) for arm in arms]
            low, high = np.quantile(draws[1] - draws[0], (0.025, 0.975))
            effects.append(QuantileEffect(name, quantile, control, treatment - control, float(low), float(high)))
    return tuple(effects)


def bootstrapped_quantile(ordered: Array, quantile: float, rng: np.random.Generator) -> Array:
    """BOOTSTRAPS draws of the quantile of a resample, without resampling.

    The j-th smallest of N draws with replacement is the ceil(N U)-th of the data, U the j-th smallest of N uniform
    numbers, which is Beta(j, N + 1 - j).
    """
    number = len(ordered)
    rank = min(max(round(quantile * number + 0.5), 1), number)
    uniform = rng.beta(rank, number + 1 - rank, BOOTSTRAPS)
    return np.asarray(ordered[np.ceil(number * uniform).astype(int) - 1])
