"""The headline alone, as fast as DuckDB sums the rows: the estimate of `analyse` without the rest of the report.

    headline_of("days.parquet", ExperimentSpec(date="day")).risk.estimate

The rows are judged as for the report, but for outcomes that the estimate does not need (ads, variations, spend), which
are not read; covariates and model are the same. What reaches Python is a row of numbers per advertiser: no names, no
pandas.
"""

from __future__ import annotations

from itertools import compress
from typing import Any, NamedTuple

import numpy as np

from rlpf_pipeline.abtest.design import TREATMENT, Values, regression_on
from rlpf_pipeline.abtest.frames import require_exposure
from rlpf_pipeline.abtest.log_binomial import RelativeRisk, Status, estimate, fitted_risk, one_thread, standard_errors
from rlpf_pipeline.abtest.maximum import Array, Counts
from rlpf_pipeline.abtest.panel import Opened, make_advertisers, opened
from rlpf_pipeline.abtest.rows import selected, value_of
from rlpf_pipeline.abtest.sandwich import HEADLINE
from rlpf_pipeline.abtest.spec import MISSING_LEVEL, Covariate, ExperimentSpec, Form
from rlpf_pipeline.contracts import ARMS
from rlpf_pipeline.warehouse import literal, quoted


class Headline(NamedTuple):
    risk: RelativeRisk
    """CTR of treatment over CTR of control."""
    standard_errors: dict[str, float]
    """Of the log relative risk, by kind (sandwich.py)."""
    status: Status
    formula: str
    advertisers: int
    """With impressions."""
    notes: tuple[str, ...]
    """Covariates that were left out or filled."""


def headline_of(source: Any, spec: ExperimentSpec | None = None, query: str | None = None) -> Headline:
    """source, query: as in `panel.load_experiment`. Raises UserError for data that cannot be analysed, as `analyse`."""
    with opened(source, spec or ExperimentSpec(), query, headline=True) as table:
        numbers = exposed_numbers(table)
    require_exposure(numbers.treated > 0, numbers.clicks)
    with one_thread():
        regression = regression_on(numbers.treated, numbers.clicks, numbers.covariates)
        position = regression.names.index(TREATMENT)
        counts = Counts(regression.x, numbers.clicks, numbers.impressions)
        fit = estimate(counts, regression.names, of=slice(position, position + 1))
    errors = {kind: float(standard_errors(matrix)[0]) for kind, matrix in fit.covariances.items()}
    return Headline(
        risk=fitted_risk(float(fit.beta[position]), errors[HEADLINE], fit.status),
        standard_errors=errors,
        status=fit.status,
        formula=regression.formula,
        advertisers=len(numbers.clicks),
        notes=regression.notes,
    )


class Numbers(NamedTuple):
    """The advertisers with impressions, in an order that is theirs and not the rows'; (advertisers,) each."""

    treated: Array
    """0 or 1"""
    clicks: Array
    impressions: Array
    covariates: list[Values]


def exposed_numbers(table: Opened) -> Numbers:
    """What the regression needs, as numbers: a category as the numbers of its levels.

    Raises UserError for what cannot be analysed: what is flawed in one row or another is sought once one is.
    """
    # A type made by a SELECT: as words of a query, tens of thousands of levels take seconds.
    made = "CREATE TEMP TYPE level AS ENUM (SELECT unnest($levels) AS level ORDER BY level)"
    table.connection.execute(made, {"levels": list(table.levels)})
    columns = {name: quoted(name) for name in ("clicks", "impressions", *(c.name for c in table.covariates))}
    columns[TREATMENT] = f"CASE WHEN NOT flawed THEN (arm = {literal(ARMS[1])})::DOUBLE ELSE 'nan' END"
    found = table.connection.execute(
        f"""SELECT hash(advertiser_id) AS advertiser_id, {selected(columns)}
        FROM ({table.advertisers(number_of)}) WHERE impressions > 0 OR flawed""",  # noqa: S608 (names are quoted)
        table.parameters,
    ).fetchnumpy()
    order = np.argsort(found.pop("advertiser_id"))  # threads return them in any order; a hash is sorted fast
    arrays = {name: np.asarray(column, dtype=np.float64)[order] for name, column in found.items()}
    if not 0 < arrays[TREATMENT].sum() < len(arrays[TREATMENT]):  # also where one is not a number, being flawed
        make_advertisers(table)
    values = [values_of(covariate, arrays[covariate.name], table.levels) for covariate in table.covariates]
    return Numbers(arrays[TREATMENT], arrays["clicks"], arrays["impressions"], values)


def number_of(form: Form, given: str, kind: str) -> str:
    """A covariate as a number: of a category that of its given value among all, which costs less than its level."""
    if form == "category":
        return f"enum_code(coalesce({given}::VARCHAR, {literal(MISSING_LEVEL)})::level)"
    return f"coalesce({value_of(form, given, kind)}::DOUBLE, 'nan')"


def values_of(covariate: Covariate, numbers: Array, levels: dict[str, str]) -> Values:
    """numbers: of a category those among the given values of all categories and rows, of which it has some."""
    if covariate.form != "category":
        return Values(covariate, numbers)
    codes = numbers.astype(np.intp)
    is_used = np.bincount(codes, minlength=len(levels)) > 0
    own, position = np.unique(list(compress(levels.values(), is_used)), return_inverse=True)
    renumbered = np.zeros(len(levels))
    renumbered[is_used] = position
    return Values(covariate, renumbered[codes], tuple(own.tolist()))
