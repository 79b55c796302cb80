"""The whole analysis on an experiment with a planted relative risk, and on every kind of bad input."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from rlpf_pipeline.abtest import analyse
from rlpf_pipeline.errors import UserError
from rlpf_pipeline_tests.abtest.experiment_data import experiment


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    return experiment(3000, seed=4)


@pytest.fixture(scope="module")
def analysis(data):
    return analyse(data)


def numbers(value):
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
    assert treatment.mean_variations == pytest.approx(treated["variations"].mean())


def test_covariates_sharpen_the_estimate(analysis):
    adjusted, plain = analysis.robustness[:2]
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


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda d: d.drop(columns=["budget", "ads"]), "no column ads, budget"),
        (lambda d: d.assign(clicks=d["impressions"] + 1), "more clicks than impressions"),
        (lambda d: pd.concat([d, d.head(1)]), "more than one row"),
        (
            lambda d: pd.concat([d, d.head(1).assign(arm={"control": "treatment"}.get(d["arm"][0], "control"))]),
            "one arm",
        ),
        (lambda d: d[d["arm"] == "control"], "both control and treatment"),
        (lambda d: d.assign(arm=d["arm"].replace("control", "holdout")), "holdout"),
        (lambda d: d.assign(lifetime_ctr=d["lifetime_ctr"].where(d.index != 3)), r"lifetime_ctr \(1\).*row 4"),
        (lambda d: d.assign(clicks=d["clicks"].where(d["arm"] == "control", 0)), "treatment arm has no clicks"),
        (lambda d: d.head(9), "at least 10"),
        (lambda d: d.assign(industry=None), "Missing values in industry"),
        (lambda d: d.assign(new_advertiser="maybe"), "true or false"),
        (lambda d: d.assign(impressions="many"), "finite number"),
        (lambda d: d.assign(ads=d["ads"] + 0.5), "whole things"),
        (lambda d: d.assign(lifetime_ctr=-0.1), "never negative"),
        (lambda d: d.head(0), "no rows"),
    ],
)
def test_bad_input_is_refused_with_the_reason(data, broken, message):
    with pytest.raises(UserError, match=message):
        analyse(broken(data))


def test_something_else_than_a_table_is_refused():
    with pytest.raises(UserError, match=r"pandas\.DataFrame"):
        analyse([1, 2, 3])
