"""The effect over time: the last cumulative one is the headline; novelty by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from rlpf_pipeline.abtest import analyse
from rlpf_pipeline.abtest.over_time import alone_in
from rlpf_pipeline.abtest.spec import ExperimentSpec
from rlpf_pipeline_tests.abtest.experiment_data import experiment


def weekly(effects: list[float], number: int = 1500, seed: int = 3) -> pd.DataFrame:
    """A panel of numbered weeks with the planted relative risk of each."""
    rng = np.random.default_rng(seed)
    base = experiment(number, seed)
    treated = (base["arm"] == "treatment").to_numpy()
    own = 0.03 * np.exp(rng.normal(0, 0.4, number))
    parts = []
    for week, risk in enumerate(effects):
        n = rng.poisson(800, number) + 1
        k = rng.binomial(n, np.minimum(own * np.where(treated, risk, 1.0), 1))
        parts.append(base.assign(week=week, impressions=n, clicks=k, ads=1, variations=2))
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def fading():
    return analyse(weekly([1.3, 1.2, 1.1, 1.0, 1.0]), ExperimentSpec(date="week"))


def test_the_last_cumulative_effect_is_the_headline(fading):
    assert fading.over_time.periods[-1].cumulative == fading.headline


def test_an_effect_that_wears_off_is_a_novelty_trend(fading):
    """log 1.3 to log 1.0 over four steps falls by about 0.07 a week."""
    novelty = fading.over_time.novelty
    assert novelty.slope == pytest.approx(-0.07, abs=4 * novelty.standard_error)
    assert novelty.p_value < 0.001


def test_a_week_alone_is_its_own_ctr_ratio(fading):
    week = weekly([1.3, 1.2, 1.1, 1.0, 1.0])
    week = week[week["week"] == 1]
    clicks, impressions = (week.groupby("arm")[name].sum() for name in ("clicks", "impressions"))
    ctr = clicks / impressions
    assert fading.over_time.periods[1].alone.estimate == pytest.approx(ctr["treatment"] / ctr["control"])


def test_the_confidence_sequence_is_wider_and_decides_a_large_effect(fading):
    for effect in fading.over_time.periods:
        assert effect.anytime.low < effect.cumulative.low < effect.cumulative.high < effect.anytime.high
    assert fading.over_time.decided_at == 1
    assert fading.over_time.anytime_p_value < 0.05


def test_weeks_without_impressions_are_no_looks():
    """Monthly rows in weeks 0, 4 and 8: a table of nine rows repeated the row above in six of them."""
    panel = weekly([1.1, 1.1, 1.1], number=600)
    effects = analyse(panel.assign(week=4 * panel["week"]), ExperimentSpec(date="week")).over_time.periods
    assert [effect.period for effect in effects] == [1, 5, 9]


def early_weeks() -> pd.DataFrame:
    """Twice the CTR in the first week, of forty advertisers in each arm; then everyone, and no effect."""
    panel = weekly([2.0, 1.0, 1.0], seed=8)
    first = panel["week"] == 0
    panel.loc[
        first & (panel[first].groupby("arm").cumcount().reindex(panel.index) >= 40), ["impressions", "clicks"]
    ] = 0
    return panel


def test_a_look_at_few_advertisers_is_too_early_and_decides_nothing():
    over_time = analyse(early_weeks(), ExperimentSpec(date="week")).over_time
    first, *later = over_time.periods
    assert first.cumulative.low > 1
    assert first.anytime is None
    assert all(effect.anytime for effect in later)
    assert over_time.decided_at is None
    assert over_time.anytime_p_value == min(effect.anytime.p_value for effect in later)


def test_where_every_period_is_too_early_nothing_is_decided():
    over_time = analyse(weekly([3.0] * 3, number=60), ExperimentSpec(date="week")).over_time
    assert [effect.anytime for effect in over_time.periods] == [None] * 3
    assert (over_time.decided_at, over_time.anytime_p_value) == (None, 1.0)


def test_a_steady_effect_has_no_trend():
    novelty = analyse(weekly([1.1] * 4), ExperimentSpec(date="week")).over_time.novelty
    assert abs(novelty.z) < 3.3


def alone_of(counts: list[int]):
    """Of 12 advertisers an arm, of equal impressions, with these clicks in treatment and 10 each in control."""
    treated = np.arange(24) < 12
    clicks, impressions = np.full(24, 10.0), np.where(np.arange(24) < len(counts), 100.0, np.where(treated, 0.0, 100.0))
    clicks[treated] = np.pad(counts, (0, 12 - len(counts)))
    clicks[12:] = [8, 12] * 6
    return alone_in(clicks, impressions, SimpleNamespace(treated=treated.astype(float)))


def test_the_error_of_a_period_alone_is_hc3_by_hand():
    """Clicks of 12 and 8 by turns, mean 10: u = +-0.2 / 12, and h = 1 / 12 of each; twice 12 of them."""
    assert alone_of([12, 8] * 6).standard_error == pytest.approx((24 * (0.2 / 12 / (11 / 12)) ** 2) ** 0.5)


def test_a_period_of_few_advertisers_in_an_arm_has_no_effect_alone():
    assert alone_of([12, 8] * 4 + [12]) is None
    assert alone_of([12, 8] * 5) is not None


def test_a_week_without_clicks_in_an_arm_is_left_out_not_nan():
    panel = weekly([1.1] * 4)
    panel.loc[(panel["week"] == 0) & (panel["arm"] == "control"), "clicks"] = 0
    result = analyse(panel, ExperimentSpec(date="week"))
    assert [effect.period for effect in result.over_time.periods] == [2, 3, 4]
    assert any("Up to period 1 there is no estimate" in note for note in result.notes)
    assert math.isfinite(result.over_time.novelty.slope)
