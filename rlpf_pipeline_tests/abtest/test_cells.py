"""Rows of a cluster with the same covariates are summed for the fit, which is that of the rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from rlpf_pipeline.abtest import LogBinomialFit, log_binomial
from rlpf_pipeline.abtest.cells import cells_of
from rlpf_pipeline.abtest.formulas import is_plain
from rlpf_pipeline.errors import UserError
from rlpf_pipeline_tests.abtest.experiment_data import COUNTS, experiment, panel_of, with_treatment


@pytest.fixture(scope="module")
def panel() -> pd.DataFrame:
    """Of each advertiser another number of days, in no order."""
    days = panel_of(with_treatment(experiment(400, seed=4)), days=7)
    rng = np.random.default_rng(2)
    return days[rng.random(len(days)) < rng.random(400)[days.index]].assign(heat=lambda rows: rows["day"].dt.day % 3)


def equal_but_for_clusters(rows: pd.DataFrame, formula: str) -> LogBinomialFit:
    """Only the clustered errors depend on clusters; without them no rows are summed."""
    apart = log_binomial(rows, formula, **COUNTS)
    fit = log_binomial(rows, formula, **COUNTS, cluster="advertiser_id")
    assert (fit.n, fit.status) == (apart.n, apart.status)
    assert fit.coefficients == pytest.approx(apart.coefficients, rel=1e-9, abs=1e-11)
    assert fit.log_likelihood == pytest.approx(apart.log_likelihood, rel=1e-12)
    for kind, errors in apart.standard_errors.items():
        assert fit.standard_errors[kind] == pytest.approx(errors, rel=1e-8), kind
    return fit


@pytest.mark.parametrize(
    "formula",
    [
        "~ 1",
        "~ treatment + C(industry) + C(budget, Treatment('low')) + business_account + account_age_years",
        "~ treatment + C(heat) + expertise:treatment",
        "~ treatment + np.log(lifetime_ctr + 0.001)",
        "~ treatment + scale(account_age_years) + {ads_before - ads_before.mean()}",
        "~ treatment + bs(account_age_years, df=4)",
    ],
)
def test_a_panel_has_the_fit_of_its_rows(panel, formula):
    equal_but_for_clusters(panel, formula)


def test_clustered_errors_are_those_by_hand_where_some_days_differ(panel):
    rows = panel[panel["impressions"] > 0]
    fit = log_binomial(rows, "~ treatment + heat", **COUNTS, cluster="advertiser_id")
    x = np.column_stack([np.ones(len(rows)), rows["treatment"], rows["heat"]])
    k, n = rows["clicks"].to_numpy(float), rows["impressions"].to_numpy(float)
    mean = np.exp(x @ np.array(list(fit.coefficients.values())))
    scores = pd.DataFrame(x * ((k - n * mean) / (1 - mean))[:, None]).groupby(rows["advertiser_id"].to_numpy()).sum()
    bread = np.linalg.inv(x.T @ (x * ((n - k) * mean / (1 - mean) ** 2)[:, None]))
    expected = np.sqrt(np.diag(bread @ scores.T.to_numpy() @ scores.to_numpy() @ bread))
    assert list(fit.standard_errors["cluster"].values()) == pytest.approx(expected, rel=1e-9)


def test_a_panel_on_the_boundary_or_beyond_it_has_the_fit_of_its_rows():
    """Every trial of `full` succeeds; in the other table no point has all means below 1."""
    rows = pd.DataFrame(
        {
            "advertiser_id": np.repeat(np.arange(12), 5),
            "treatment": np.repeat(np.arange(12) % 2, 5),
            "full": np.repeat(np.arange(12) >= 10, 5).astype(float),
            "impressions": 4,
            "clicks": np.r_[np.tile([1, 2, 0, 3, 1], 10), [4] * 10],
        }
    )
    assert equal_but_for_clusters(rows, "~ treatment + full").status == "boundary"
    signed = rows.assign(slope=np.where(rows["treatment"] == 1, 1.0, -1.0))
    assert equal_but_for_clusters(signed, "~ 0 + slope").status == "modified-poisson"


def test_a_missing_covariate_of_one_day_is_told(panel):
    last = panel.index == panel.index[-1]
    holed = panel.assign(heat=panel["heat"].where(~last | (np.arange(len(panel)) < len(panel) - 1)))
    assert holed["heat"].isna().sum() == 1
    with pytest.raises(UserError, match="Fill them in or leave those rows out"):
        log_binomial(holed, "~ treatment + heat", **COUNTS, cluster="advertiser_id")


def test_rows_are_alike_only_within_their_cluster_and_in_every_column():
    clusters = np.array([0, 1, 0, 1, 2, 0])
    words = pd.Series(["a", "a", "a", "b", "a", "a"])
    numbers = pd.Series([1.0, 1.0, 1.0, 1.0, 1.0, np.nan])
    assert cells_of([words], clusters).cell.tolist() == [0, 1, 0, 2, 3, 0]
    cells = cells_of([words, numbers], clusters)
    assert cells.cell.tolist() == [0, 1, 0, 2, 3, 4]
    assert cells.shown.tolist() == [0, 1, 3, 4, 5]


@pytest.mark.parametrize("kind", ["category", "Int64", "boolean", "datetime64[ns]", "object"])
def test_values_of_any_type_are_compared(kind):
    values = pd.Series([1, 1, 0], dtype="int64").astype(kind)
    assert cells_of([values], np.zeros(3, dtype=np.intp)).cell.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("expression", "plain"),
    [
        ("C(industry, contr.treatment('a'))", True),
        ("np.log(x + 1) ** 2 > -y", True),
        ("x.mean()", False),
        ("x - np.mean(x)", False),
        ("C(scale(x))", False),
        ("x @ y", False),
        ("x[0]", False),
        ("lag(x)", False),
        ("log(`x y`)", False),
    ],
)
def test_functions_that_look_at_other_rows_are_known(expression, plain):
    assert is_plain(expression) is plain
