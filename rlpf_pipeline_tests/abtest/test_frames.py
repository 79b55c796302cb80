"""The tables that `log_binomial` takes: columns, types and names, in pandas and pyarrow."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from rlpf_pipeline.abtest import log_binomial
from rlpf_pipeline.errors import UserError
from rlpf_pipeline_tests.abtest.experiment_data import COUNTS, experiment, with_treatment


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    return with_treatment(experiment(1200, seed=1))


def test_pyarrow_gives_what_pandas_gives(data):
    assert log_binomial(pa.Table.from_pandas(data), "~ treatment", **COUNTS) == log_binomial(
        data, "~ treatment", **COUNTS
    )


def test_decimals_are_numbers(data):
    years = [Decimal(int(days)) / 8 for days in data["account_age_years"] * 365]
    fit = log_binomial(data.assign(years=years), "~ treatment + years", **COUNTS)
    assert fit == log_binomial(data.assign(years=np.array(years, dtype=float)), "~ treatment + years", **COUNTS)


@pytest.mark.parametrize(
    "dtype",
    ["string", "string[pyarrow]", pd.ArrowDtype(pa.string()), pd.ArrowDtype(pa.dictionary(pa.int8(), pa.string()))],
    ids=str,
)
def test_text_is_a_category_in_every_type_that_holds_it(data, dtype):
    levels = data["industry"].sort_values()  # a dictionary's words come in the order of the rows
    rows = data.loc[levels.index]
    fit = log_binomial(rows.assign(industry=levels.astype(dtype)), "~ treatment + industry", **COUNTS)
    assert fit == log_binomial(rows, "~ treatment + industry", **COUNTS)


def test_numbers_held_as_objects_are_numbers(data):
    years = data["account_age_years"].round()
    fit = log_binomial(data.assign(years=years.astype(int).astype(object)), "~ treatment + years", **COUNTS)
    assert fit == log_binomial(data.assign(years=years), "~ treatment + years", **COUNTS)


def test_clusters_named_by_long_decimals_are_kept_apart(data):
    """As floats, 10^17 + 1 and 10^17 + 2 are the same number."""
    rows = data.assign(group=data.index % 37)
    long = rows.assign(group=[Decimal(10**17 + int(group)) for group in rows["group"]])
    assert log_binomial(long, "~ treatment", **COUNTS, cluster="group") == log_binomial(
        rows, "~ treatment", **COUNTS, cluster="group"
    )


def test_clusters_that_cannot_be_told_apart_are_refused(data):
    with pytest.raises(UserError, match="group holds unhashable type: 'list'"):
        log_binomial(data.assign(group=[[1]] * len(data)), "~ treatment", **COUNTS, cluster="group")


@pytest.mark.parametrize("number", [int, float])
def test_clusters_named_by_a_number_and_by_text_are_refused(data, number):
    """pandas.read_csv gives such a column where only some of the file's chunks hold a name that is no number."""
    names = [number(week) if row % 2 else str(week) for row, week in enumerate(data.index % 37)]
    with pytest.raises(UserError, match=r"group holds \S+ also as text.* dtype=\{'group': str\}"):
        log_binomial(data.assign(group=names), "~ treatment", **COUNTS, cluster="group")


def test_columns_of_several_levels_are_told(data):
    totals = data.groupby(["treatment", "industry"])[["clicks", "impressions"]].agg(["sum"])
    with pytest.raises(UserError, match="names of several levels"):
        log_binomial(totals, "~ 1", **COUNTS)


@pytest.mark.parametrize("given", [["industry"], np.arange(3), pd.Series(["a"])])
def test_a_cluster_that_is_no_name_is_told(data, given):
    with pytest.raises(UserError, match=f"`cluster` is the name of one column, not a {type(given).__name__}"):
        log_binomial(data, "~ treatment", **COUNTS, cluster=given)
