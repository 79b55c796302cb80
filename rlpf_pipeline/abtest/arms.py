"""Totals by arm, before any model."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from rlpf_pipeline.abtest.frames import ARMS


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
    mean_ads: float
    """Per advertiser with impressions."""
    mean_variations: float


def arm_totals(randomised: pd.DataFrame, exposed: pd.DataFrame) -> tuple[ArmTotals, ArmTotals]:
    """Control, treatment."""
    control, treatment = (
        totals(arm, randomised[randomised["arm"] == arm], exposed[exposed["arm"] == arm]) for arm in ARMS
    )
    return control, treatment


def totals(arm: str, randomised: pd.DataFrame, exposed: pd.DataFrame) -> ArmTotals:
    clicks, impressions = int(exposed["clicks"].sum()), int(exposed["impressions"].sum())
    return ArmTotals(
        arm=arm,
        advertisers=len(exposed),
        without_impressions=len(randomised) - len(exposed),
        impressions=impressions,
        clicks=clicks,
        ctr=clicks / impressions,
        mean_ads=float(exposed["ads"].mean()),
        mean_variations=float(exposed["variations"].mean()),
    )
