"""The headline alone, as fast as DuckDB sums the rows: the estimate of `analyse` without the rest of the report.

    headline_of("days.parquet", ExperimentSpec(date="day")).risk.estimate

The rows are judged as for the report, covariates and model are the same. What reaches Python is a row of numbers per
advertiser: no names, no pandas.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from rlpf_pipeline.abtest.design import TREATMENT, Values, regression_on
from rlpf_pipeline.abtest.frames import ARMS, require_exposure
from rlpf_pipeline.abtest.log_binomial import RelativeRisk, Status, estimate, one_thread, risk_from, standard_errors
from rlpf_pipeline.abtest.maximum import Array, Counts
from rlpf_pipeline.abtest.panel import Opened, make_advertisers, opened
from rlpf_pipeline.abtest.rows import literal, quoted
from rlpf_pipeline.abtest.sandwich import HEADLINE
from rlpf_pipeline.abtest.spec import MISSING_LEVEL, Covariate, ExperimentSpec

FLAWED = "coalesce(wrong OR crossed OR row_count > days, false)"
"""Of an advertiser: what `make_advertisers` refuses. Only the arms are to be looked at beside it."""


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
    with opened(source, spec or ExperimentSpec(), query, with_levels=True) as table:
        numbers = exposed_numbers(table)
    require_exposure(numbers.treated > 0, numbers.clicks)
    with one_thread():
        regression = regression_on(numbers.treated, numbers.clicks, numbers.covariates)
        fit = estimate(Counts(regression.x, numbers.clicks, numbers.impressions), regression.names)
    position = regression.names.index(TREATMENT)
    errors = {kind: float(standard_errors(matrix)[position]) for kind, matrix in fit.covariances.items()}
    return Headline(
        risk=risk_from(float(fit.beta[position]), errors[HEADLINE]),
        standard_errors=errors,
        status=fit.status,
        formula=regression.formula,
        advertisers=len(numbers.clicks),
        notes=regression.notes,
    )


class Numbers(NamedTuple):
    """The advertisers with impressions, in the order of their ids; (advertisers,) each."""

    treated: Array
    """0 or 1"""
    clicks: Array
    impressions: Array
    covariates: list[Values]


def exposed_numbers(table: Opened) -> Numbers:
    """What the regression needs, as numbers: a category as the numbers of its levels.

    Raises UserError for what cannot be analysed: what is flawed in one row or another is sought once one is.
    """
    columns = {name: name for name in ("clicks", "impressions")}
    columns[TREATMENT] = f"coalesce(arm = {literal(ARMS[1])}, false)"
    for covariate in table.covariates:
        name, known = quoted(covariate.name), ", ".join(map(literal, table.levels.get(covariate.name, ())))
        level = f"enum_code(coalesce({name}, {literal(MISSING_LEVEL)})::ENUM({known}))"
        columns[covariate.name] = level if known else f"coalesce({name}::DOUBLE, 'nan')"
    selected = ", ".join(f"{value} AS {quoted(name)}" for name, value in columns.items())
    found = table.connection.execute(
        f"""SELECT {FLAWED} AS flawed, {selected} FROM ({table.advertisers})
        WHERE impressions > 0 OR flawed ORDER BY advertiser_id""",  # noqa: S608 (names are quoted)
        table.days,
    ).fetchnumpy()
    arrays = {name: np.asarray(column, dtype=np.float64) for name, column in found.items()}
    if arrays["flawed"].any() or not 0 < arrays[TREATMENT].sum() < len(arrays[TREATMENT]):
        make_advertisers(table)
    values = [values_of(c, arrays[c.name], table.levels.get(c.name)) for c in table.covariates]
    return Numbers(arrays[TREATMENT], arrays["clicks"], arrays["impressions"], values)


def values_of(covariate: Covariate, numbers: Array, levels: tuple[str, ...] | None) -> Values:
    """levels: of a category, those of all rows; an advertiser has one only, and may have no impressions."""
    if levels is None:
        return Values(covariate, numbers)
    codes = numbers.astype(np.intp)
    is_used = np.bincount(codes, minlength=len(levels)) > 0
    renumbered: Array = np.cumsum(is_used, dtype=np.float64) - 1
    return Values(covariate, renumbered[codes], tuple(np.array(levels)[is_used].tolist()))
