"""Formulas over a user's table: what stands for what, and what is said of mistakes."""

from __future__ import annotations

import pandas as pd
import pytest

from rlpf_pipeline.abtest import log_binomial
from rlpf_pipeline.errors import UserError
from rlpf_pipeline_tests.abtest.experiment_data import COUNTS, experiment, with_treatment


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    return with_treatment(experiment(1200, seed=1))


@pytest.mark.parametrize(
    ("change", "formula", "message"),
    [
        ({"account_age_years": None}, "~ treatment + account_age_years", "account_age_years"),
        ({}, "~ treatment + absent", "absent"),
        ({}, "clicks ~ treatment", "left side"),
        ({}, "~ 0", "no column"),
        ({}, "~ treatment + frame", "frame"),
        ({}, "~ treatment + __import__('os').getpid()", "invalid syntax"),
        ({"since": pd.Timestamp("2024-05-01")}, "~ treatment + since", "make numbers of days of them: since"),
        ({"since": pd.Timedelta("3D")}, "~ treatment + since", "make numbers of days of them: since"),
        ({"past ctr": 0.1}, "~ treatment + past ctr", r"`past` and `ctr`\. .* stand in backticks: `past ctr`\.$"),
        ({"age": None}, "~ treatment + age", "Fill them in or leave those rows out"),
        ({"class": "a"}, "~ treatment + C(class)", r"is written Q\('class'\)\.$"),
        ({"industry[T.games]": 1.0}, "~ treatment + industry + .", r"two columns of the name industry\[T\.games\]"),
        ({"log": 1.0}, "~ treatment + log(log)", r"stand for functions; rename the columns: log\.$"),
        ({}, "~ C(industry, Treatment)", r"Treatment is written with the level"),
        ({}, "~ treatment + np.exp(20 * account_age_years)", "has values up to .*Rescale it"),
        ({}, "cbind(clicks, impressions - clicks) ~ treatment", "left side"),
    ],
)
def test_a_formula_that_does_not_fit_is_told_in_words(data, change, formula, message):
    with pytest.raises(UserError, match=message):
        log_binomial(data.assign(**change), formula, **COUNTS)


def test_a_list_of_terms_is_no_formula(data):
    """Formulaic would leave out the intercept."""
    with pytest.raises(UserError, match=r"a text such as .*, not a list"):
        log_binomial(data, ["treatment", "industry"], **COUNTS)


def test_a_column_named_by_a_number_is_told(data):
    with pytest.raises(UserError, match=r"evaluation context\.\]\. Columns named by numbers .* by text: 7\.$"):
        log_binomial(data.rename(columns={"account_age_years": 7}), "~ treatment + `7`", **COUNTS)


@pytest.mark.parametrize("formula", ["~ treatment + group", "~ treatment + C(group)"])
def test_a_level_held_as_number_and_as_text_is_refused(data, formula):
    """Of the two estimates under one name, one was lost."""
    group = [row % 3 if row < 600 else str(row % 3) for row in range(len(data))]
    with pytest.raises(UserError, match="group holds 0 also as text"):
        log_binomial(data.assign(group=group), formula, **COUNTS)


@pytest.mark.parametrize("name", ["clicks", "industry"])
def test_a_name_of_two_columns_is_refused_where_it_is_needed(data, name):
    with pytest.raises(UserError, match=f"More than one column is called {name}"):
        log_binomial(pd.concat([data, data[[name]]], axis=1), "~ treatment + C(industry)", **COUNTS)


def test_a_name_of_two_columns_that_are_not_needed_is_no_matter(data):
    spare = data[["industry"]].astype("category")
    fit = log_binomial(
        pd.concat([data[["treatment", *COUNTS.values()]], spare, spare], axis=1), "~ treatment", **COUNTS
    )
    assert fit == log_binomial(data, "~ treatment", **COUNTS)


def test_a_column_named_as_a_function_of_formulas_takes_no_place_of_it(data):
    formula = "~ treatment + C(industry) + log(account_age_years)"
    named = data.assign(C=1.0, log=data["account_age_years"], scale="x")
    assert log_binomial(named, formula, **COUNTS) == log_binomial(data, formula, **COUNTS)
    itself = log_binomial(named, "~ treatment + log", **COUNTS)
    assert itself.coefficients["log"] == pytest.approx(
        log_binomial(data, "~ treatment + account_age_years", **COUNTS).coefficients["account_age_years"]
    )


def test_a_dot_in_a_formula_is_every_column_but_the_counts_and_the_cluster(data):
    few = data[["advertiser_id", "impressions", "clicks", "treatment", "account_age_years"]]
    fit = log_binomial(few, "~ .", **COUNTS, cluster="advertiser_id")
    assert list(fit.coefficients) == ["Intercept", "treatment", "account_age_years"]
