"""The whole analysis on an experiment with a planted relative risk, and on every kind of bad input."""

from __future__ import annotations

import math
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from rlpf_pipeline.abtest import ExperimentSpec, analyse
from rlpf_pipeline.errors import UserError
from rlpf_pipeline_tests.abtest.experiment_data import experiment


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    return experiment(3000, seed=4)


@pytest.fixture(scope="module")
def analysis(data):
    return analyse(data)


def numbers(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (tuple, list)):
        for part in value:
            yield from numbers(part)
    elif isinstance(value, float):
        yield value


def test_the_planted_relative_risk_is_found(analysis):
    assert abs(math.log(analysis.headline.estimate / 1.067)) < 3 * analysis.headline.standard_error
    assert analysis.verdict == "raises"
    assert analysis.model.status == "converged"
    assert analysis.model.covariates[0] == "lifetime_ctr"


def test_nothing_is_nan_or_infinite(analysis):
    assert all(math.isfinite(number) for number in numbers(analysis))


def test_the_order_of_rows_and_the_kind_of_table_do_not_matter(data, analysis):
    shuffled = pa.Table.from_pandas(data.sample(frac=1, random_state=1))
    assert analyse(shuffled) == analysis


def test_arm_totals_are_plain_sums(data, analysis):
    treated = data[data["arm"] == "treatment"]
    control, treatment = analysis.arms
    assert (control.arm, treatment.arm) == ("control", "treatment")
    assert treatment.clicks == treated["clicks"].sum()
    assert treatment.ctr == treated["clicks"].sum() / treated["impressions"].sum()
    assert treatment.means["variations"] == pytest.approx(treated["variations"].mean())


def test_covariates_sharpen_the_estimate(analysis):
    adjusted, _, plain = analysis.robustness[:3]
    assert adjusted.ratio.standard_error < plain.ratio.standard_error


def test_advertisers_without_impressions_are_left_out_and_counted(data):
    silent = data.head(7)["advertiser_id"]
    changed = data.assign(
        impressions=data["impressions"].where(~data["advertiser_id"].isin(silent), 0),
        clicks=data["clicks"].where(~data["advertiser_id"].isin(silent), 0),
    )
    result = analyse(changed)
    assert sum(arm.without_impressions for arm in result.arms) == 7
    assert "7 of 3000 advertisers had no impressions" in result.notes[0]


def test_constant_and_collinear_covariates_are_left_out_by_name(data):
    result = analyse(data.assign(budget="low", expertise=data["industry"]))
    assert "budget" not in result.model.covariates
    assert any("budget is constant" in note for note in result.notes)
    assert any("expertise was left out: collinear" in note for note in result.notes)


def test_a_level_without_clicks_costs_its_covariate_only(data):
    rare = data.assign(industry=data["industry"].where(data.index >= 5, "rare"))
    rare.loc[:4, "clicks"] = 0
    result = analyse(rare)
    assert "industry" not in result.model.covariates
    assert any("no clicks where it is rare" in note for note in result.notes)


@pytest.mark.parametrize("levels", ["one without clicks", "more than a regression carries"])
def test_a_covariate_that_leaves_the_regression_is_balanced_all_the_same(data, levels):
    """Two in three of the treated are experts and one in three of the others: the arms are not alike."""
    treated = data["arm"] == "treatment"
    expert = (data.index % 3 < np.where(treated, 2, 1)).astype(int)
    if levels == "one without clicks":
        broken = data.assign(expertise=pd.Series(expert).map({0: "novice", 1: "expert"}))
        broken.loc[0, ["expertise", "clicks"]] = ["unknown", 0]
    else:
        broken = data.assign(expertise=[f"{'en'[own]}{i % 26}" for i, own in enumerate(expert)])
        broken.loc[:40, "expertise"] = [f"x{i % 10}" for i in range(41)]
    result = analyse(broken)
    assert "expertise" not in result.model.covariates
    assert {check.name: check.light for check in result.validity.checks}["Balance"] == "fail"
    assert result.verdict == "invalid"


def test_adoption_is_of_all_randomised_advertisers(data):
    """Who creates more and is not shown is left out of the CTR, not of what was created."""
    treated = data["arm"] == "treatment"
    hidden = data.index % 4 == 0
    changed = data.assign(
        impressions=data["impressions"].where(~hidden, 0),
        clicks=data["clicks"].where(~hidden, 0),
        variations=data["variations"] + 40 * (hidden & treated),
    )
    (variations, ads) = analyse(changed).adoption
    assert (variations.outcome, ads.outcome) == ("variations", "ads")
    gap = changed["variations"][treated].mean() - changed["variations"][~treated].mean()
    assert gap > 12
    assert abs(variations.difference - gap) < 3 * variations.standard_error


def test_a_small_arm_is_judged_by_itself(data):
    """Of 3,000 advertisers that count as hundreds twelve are treated."""
    treated = data.index[data["arm"] == "treatment"]
    few = data.drop(treated[12:])
    checks = analyse(few, ExperimentSpec(treatment_share=0.01)).validity.checks
    (size,) = (check for check in checks if check.name == "Sample size")
    assert size.light == "warn"
    assert re.search(r"count as \d{3} in control and \d in treatment", size.detail)


def test_few_advertisers_are_analysed_without_covariates_and_flagged(data):
    result = analyse(data.head(40))
    assert result.model.covariates == ()
    assert any("All covariates were left out" in note for note in result.notes)
    assert {check.name: check.light for check in result.validity.checks}["Sample size"] == "warn"
    assert all(math.isfinite(number) for number in numbers(result))


def test_equal_impressions_leave_out_the_impressions_model(data):
    clicks = np.random.default_rng(2).binomial(1000, 0.03, len(data))
    result = analyse(data.assign(impressions=1000, clicks=clicks))
    assert "Linear, impressions" not in [row.model for row in result.robustness]
    assert any("same impressions" in note for note in result.notes)


def test_a_broken_assignment_invalidates_the_verdict(data):
    treated = data["arm"] == "treatment"
    result = analyse(data[~treated | (data.index % 3 > 0)])
    assert result.verdict == "invalid"
    assert {check.name: check.light for check in result.validity.checks}["Sample ratio"] == "fail"


def test_missing_covariates_are_filled_marked_and_shown(data):
    holes = data.assign(
        lifetime_ctr=data["lifetime_ctr"].where((data.index > 200) | (data["arm"] == "control")),
        industry=data["industry"].where(data.index % 50 > 0),
    )
    result = analyse(holes)
    assert "log_lifetime_ctr + lifetime_ctr_missing" in result.model.formula
    assert {row.column for row in result.validity.missing} == {"lifetime_ctr", "industry"}
    assert {check.name: check.light for check in result.validity.checks}["Missing data"] == "warn"
    assert all(math.isfinite(number) for number in numbers(result))


@pytest.mark.parametrize("name", ["industry", "lifetime_ctr"])
def test_a_covariate_that_is_missing_everywhere_is_left_out(data, name):
    result = analyse(data.assign(**{name: None}))
    assert name not in result.model.covariates
    said = [note for note in result.notes if name in note and note.startswith("Covariate")]
    assert said == [f"Covariate {name} is missing for all advertisers and was left out."]
    assert math.isfinite(result.headline.estimate)


def test_spend_is_an_exposure(data):
    treated = data["arm"] == "treatment"
    spend = data["impressions"] * 0.01 * np.where(treated, 1.5, 1.0)
    result = analyse(data.assign(spend=spend))
    assert [effect.outcome for effect in result.validity.exposure] == ["impressions", "spend"]
    assert {check.name: check.light for check in result.validity.checks}["Equal exposure"] == "warn"


def test_a_difference_of_spend_is_told_in_digits_that_its_size_needs(data):
    treated = data["arm"] == "treatment"
    spend = data["impressions"] * 1e-7 * np.where(treated, 0.5, 1.0)
    result = analyse(data.assign(spend=spend))
    effect = result.validity.exposure[1]
    detail = next(check.detail for check in result.validity.checks if check.name == "Equal exposure")
    told = re.search(r"spend per advertiser: (\S+) \((\S+) to (\S+)\)", detail)
    assert told is not None
    numbers_told = [float(number.replace("\u2212", "-").replace(",", "")) for number in told.groups()]
    width = effect.high - effect.low
    assert numbers_told == pytest.approx([effect.difference, effect.low, effect.high], abs=width / 20)
    assert numbers_told[0] < 0


def test_the_ten_largest_are_removed_one_by_one(data):
    removals = analyse(data).validity.removals
    largest = data.sort_values("impressions", ascending=False)["advertiser_id"].head(10)
    assert [removal.advertiser_id for removal in removals] == list(largest)


def test_an_advertiser_on_whom_everything_hangs_is_flagged(data):
    """One treated advertiser with as many impressions as all others and twice their CTR."""
    heavy = data.copy()
    row = data.index[data["arm"] == "treatment"][0]
    heavy.loc[row, ["impressions", "clicks"]] = [int(data["impressions"].sum()), int(2 * data["clicks"].sum())]
    checks = {check.name: check.light for check in analyse(heavy).validity.checks}
    assert checks["Influence"] == "warn"


def test_a_planned_share_is_not_a_mismatch(data):
    treated = data["arm"] == "treatment"
    fewer = data[~treated | (data.index % 4 == 0)]
    share = float((fewer["arm"] == "treatment").mean())
    assert analyse(fewer).verdict == "invalid"
    assert analyse(fewer, ExperimentSpec(treatment_share=share)).verdict != "invalid"


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda d: d.assign(clicks=d["clicks"].where(d["arm"] == "control", 0)), "treatment arm has no clicks"),
        (lambda d: d.head(9), "at least 10"),
        (lambda d: d.assign(impressions=0, clicks=0), "at least 10"),
        (lambda d: d.assign(impressions=100, clicks=3), "do not vary"),
        (lambda d: d.assign(clicks=d["impressions"]), "Every trial is a success"),
    ],
)
def test_bad_input_is_refused_with_the_reason(data, broken, message):
    with pytest.raises(UserError, match=message):
        analyse(broken(data))


@pytest.mark.parametrize("seed", range(12))
def test_tiny_experiments_are_analysed_without_nan_or_refused(seed):
    """Ten to forty advertisers with few clicks: whatever has no estimate is left out and said."""
    rng = np.random.default_rng(seed)
    frame = experiment(int(rng.integers(10, 40)), seed=100 + seed)
    frame["impressions"] = rng.integers(0, 60, len(frame))
    frame["clicks"] = rng.binomial(frame["impressions"], rng.choice([0.02, 0.3, 0.9]))
    try:
        result = analyse(frame)
    except UserError:
        return
    assert all(math.isfinite(number) for number in numbers(result))
