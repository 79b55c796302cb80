"""Effects by segment against separate fits, and the false discovery rate by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rlpf_pipeline.abtest.design import build_design
from rlpf_pipeline.abtest.frames import with_exposure
from rlpf_pipeline.abtest.panel import load_experiment
from rlpf_pipeline.abtest.ratio import delta_method
from rlpf_pipeline.abtest.segments import benjamini_hochberg, segment_effects
from rlpf_pipeline.abtest.spec import ExperimentSpec
from rlpf_pipeline_tests.abtest.experiment_data import experiment


def found(frame: pd.DataFrame, segments: tuple[str, ...], spec: ExperimentSpec | None = None):
    loaded = load_experiment(frame, spec)
    exposed = with_exposure(loaded.advertisers)
    return segment_effects(build_design(exposed, loaded.covariates), loaded.covariates, segments)


def test_adjusted_p_values_equal_scipys():
    p_values = [0.01, 0.8, 0.03, 0.02, 0.04, 0.5]
    assert benjamini_hochberg(p_values) == pytest.approx(stats.false_discovery_control(p_values))


def test_adjusted_p_values_by_hand():
    """0.01 x 3 / 1, 0.02 x 3 / 2, 0.5 x 3 / 3; the second pulls the first down."""
    assert benjamini_hochberg([0.5, 0.011, 0.02]) == pytest.approx([0.5, 0.03, 0.03])
    assert benjamini_hochberg([]) == []


def test_without_other_covariates_a_level_has_the_ratio_of_its_own_ctrs():
    frame = experiment(900, seed=5)
    only = ExperimentSpec(covariates={"industry": "category"})
    segments, notes = found(frame, ("industry",), only)
    assert notes == []
    for effect in segments.effects:
        level = frame[frame["industry"] == effect.level]
        k, n = (level[name].to_numpy(float) for name in ("clicks", "impressions"))
        alone = delta_method(k, n, (level["arm"] == "treatment").to_numpy())
        assert effect.risk.estimate == pytest.approx(alone.estimate, rel=1e-7)
        assert effect.risk.standard_error == pytest.approx(hc3_error(level), rel=1e-6)
        assert effect.advertisers == len(level)


def hc3_error(level):
    """Of the log ratio of two arms' CTRs R: sums over each arm of ((k - R n) / sum k / (1 - n / sum n))^2, as an
    advertiser's leverage is its share of its arm's impressions."""
    variance = 0.0
    for _, arm in level.groupby("arm"):
        k, n = arm["clicks"], arm["impressions"]
        variance += (((k - k.sum() / n.sum() * n) / k.sum() / (1 - n / n.sum())) ** 2).sum()
    return variance**0.5


def test_an_effect_in_one_level_only_is_found_there_and_as_heterogeneity():
    frame = experiment(3000, seed=6, relative_risk=1.0)
    boosted = (frame["industry"] == "games") & (frame["arm"] == "treatment")
    frame.loc[boosted, "clicks"] = np.minimum(frame["impressions"], (frame["clicks"] * 1.5).round())[boosted]
    segments, _ = found(frame, ("industry", "expertise", "budget"))
    assert [e.level for e in segments.effects if e.segment == "industry" and e.discovery] == ["games"]
    by_segment = {test.segment: test for test in segments.heterogeneity}
    assert by_segment["industry"].p_value < 0.001
    assert by_segment["industry"].degrees_of_freedom == 3
    adjusted = stats.false_discovery_control([test.p_value for test in segments.heterogeneity])
    assert [test.adjusted_p_value for test in segments.heterogeneity] == pytest.approx(adjusted)


def test_heterogeneity_of_two_levels_is_the_squared_z_of_their_difference():
    frame = experiment(6000, seed=7)
    only = ExperimentSpec(covariates={"new_advertiser": "flag"})
    segments, _ = found(frame, ("new_advertiser",), only)
    no, yes = segments.effects
    gap = math.log(yes.risk.estimate / no.risk.estimate)
    z = gap / math.hypot(no.risk.standard_error, yes.risk.standard_error)
    assert segments.heterogeneity[0].chi_square == pytest.approx(z**2, rel=1e-6)
    assert (no.level, yes.level) == ("no", "yes")


def test_a_level_with_few_advertisers_is_named_and_left_out():
    frame = experiment(800, seed=8)
    frame.loc[:6, "industry"] = "rare"
    segments, notes = found(frame, ("industry",))
    assert "rare" not in [effect.level for effect in segments.effects]
    assert "rare" in notes[0]


def test_a_level_needs_twenty_effective_advertisers_in_each_arm():
    """Forty treated in `games`, one of which is shown as often as all others: (2 x 39)^2 / (39^2 + 39) = 3.9."""
    frame = experiment(2400, seed=8).assign(impressions=1000, clicks=30)
    frame.loc[frame.index[::2], "clicks"] = 20
    games = frame.index[(frame["industry"] == "games") & (frame["arm"] == "treatment")]
    frame.loc[games[40:], "industry"] = "food"
    assert "games" in {effect.level for effect in found(frame, ("industry",))[0].effects}
    frame.loc[games[0], ["impressions", "clicks"]] = [39_000, 975]
    segments, notes = found(frame, ("industry",))
    assert "games" not in {effect.level for effect in segments.effects}
    assert "games (an arm counts as fewer than 20 advertisers, or has no clicks)" in notes[0]


def poor_in_part() -> pd.DataFrame:
    """Industry has a level of five advertisers; without them a level of budget has no clicks."""
    frame = experiment(400, seed=3)
    frame["industry"] = np.where(frame.index % 2, "A", "B")
    frame.loc[:4, "industry"] = "rare"
    frame["budget"] = np.where(frame.index % 3, "medium", "low")
    frame.loc[[0, 1, 2, 20, 21, 22], "budget"] = "high"
    frame.loc[20:22, "clicks"] = 0
    return frame


def test_thousands_of_levels_are_counted_and_the_first_named():
    frame = experiment(3000, seed=5)
    large = frame.index < 2000
    frame = frame.assign(industry=np.where(large, frame["industry"], [f"i{i:04d}" for i in frame.index]))
    segments, notes = found(frame, ("industry",))
    assert {effect.level for effect in segments.effects} == {"retail", "travel", "food", "games"}
    assert "i2008, i2009 and 990 more (an arm counts as fewer than 20" in notes[0]


def test_a_covariate_that_the_usable_levels_cannot_carry_is_left_out_there_and_noted():
    """What remains is a fit of its own: the same as on a table that never had the poor level nor that covariate."""
    frame = poor_in_part()
    segments, notes = found(frame, ("industry", "expertise"))
    alone, _ = found(frame[frame["industry"] != "rare"].drop(columns="budget"), ("industry",))
    assert [effect.risk for effect in segments.effects[:2]] == [effect.risk for effect in alone.effects]
    assert {effect.segment for effect in segments.effects} == {"industry", "expertise"}
    assert notes[1] == "Segment industry: not adjusted for budget, which the usable levels alone cannot carry."


def test_a_segment_without_an_estimate_is_a_note_and_the_others_remain():
    """Without the poor level, two flags differ only where nobody clicked, though each has clicks."""
    frame = experiment(400, seed=3).assign(first=False, second=False)
    frame["industry"] = np.where(frame.index % 2, "A", "B")
    frame.loc[:4, "industry"] = "rare"
    frame.loc[0, "first"] = frame.loc[1, "second"] = True
    frame.loc[10:29, "first"] = frame.loc[10:24, "second"] = True
    frame.loc[25:29, "clicks"] = 0
    forms = {"first": "flag", "second": "flag", "industry": "category", "expertise": "category"}
    spec = ExperimentSpec(covariates=forms)
    segments, notes = found(frame, ("industry", "expertise"), spec)
    assert {effect.segment for effect in segments.effects} == {"expertise"}
    assert "Segment industry: no effect was estimated. There are no clicks where" in notes[1]
    assert "first" in notes[1]


def test_a_level_whose_ctr_does_not_vary_is_a_note_and_the_others_remain():
    frame = experiment(2400, seed=3)
    still = frame["industry"] == "food"
    frame.loc[still, ["impressions", "clicks"]] = [1000, 30]
    segments, notes = found(frame, ("industry",), ExperimentSpec(covariates={"industry": "category"}))
    assert [effect.level for effect in segments.effects] == ["games", "retail", "travel"]
    assert segments.heterogeneity[0].degrees_of_freedom == 2
    assert notes == [
        "Segment industry: no effect was estimated for food (the click-through rate does not vary within an arm)."
    ]
