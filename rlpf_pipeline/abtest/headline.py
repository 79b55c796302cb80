"""The headline alone, as fast as DuckDB sums the rows: the estimate of `analyse` without the rest of the report.

    headline_of("days.parquet", ExperimentSpec(date="day")).risk.estimate

The rows are judged as for the report, covariates and model are the same. What reaches Python is a row of numbers per
advertiser: no names, no pandas.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from rlpf_pipeline.abtest.design import MISSING_LEVEL, MOST_LEVELS, TREATMENT, Values, regression_on
from rlpf_pipeline.abtest.frames import ARMS, require_exposure
from rlpf_pipeline.abtest.log_binomial import RelativeRisk, Status, estimate, one_thread, risk_from, standard_errors
from rlpf_pipeline.abtest.maximum import Array, Counts
from rlpf_pipeline.abtest.panel import Judged, judged
from rlpf_pipeline.abtest.rows import literal, quoted
from rlpf_pipeline.abtest.sandwich import HEADLINE
from rlpf_pipeline.abtest.spec import OUTCOMES, Covariate, ExperimentSpec


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
    with judged(source, spec or ExperimentSpec(), query, without=OUTCOMES) as table:
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


def exposed_numbers(table: Judged) -> Numbers:
    """What the regression needs, as numbers: a category as the numbers of its levels."""
    levels = {c.name: levels_of(table, c) for c in table.covariates if c.form == "category"}
    counts = (f"(arm = {literal(ARMS[1])})::DOUBLE AS treated", "clicks", "impressions")
    columns = [f"{level_number(name, known)} AS {quoted(name)}" for name, known in levels.items()]
    columns += [
        f"coalesce({quoted(c.name)}::DOUBLE, 'nan') AS {quoted(c.name)}"
        for c in table.covariates
        if c.form != "category"
    ]
    arrays = table.connection.sql(
        f"SELECT {', '.join((*counts, *columns))} FROM advertisers WHERE impressions > 0 ORDER BY advertiser_id"  # noqa: S608
    ).fetchnumpy()
    values = [Values(c, np.asarray(arrays[c.name]), levels.get(c.name, ())) for c in table.covariates]
    treated, clicks, impressions = (np.asarray(arrays[name]) for name in ("treated", "clicks", "impressions"))
    return Numbers(treated, clicks, impressions, values)


def level_number(name: str, levels: tuple[str, ...]) -> str:
    """By a cast to an ENUM, which looks levels up faster than a list. Of too many, the covariate is not used; of none,
    there is no row either."""
    known = ", ".join(map(literal, levels[:MOST_LEVELS] or (MISSING_LEVEL,)))
    return f"enum_code(TRY_CAST({category(name)} AS ENUM({known})))::DOUBLE"


def levels_of(table: Judged, covariate: Covariate) -> tuple[str, ...]:
    """Sorted, that of missing values among them."""
    rows = table.connection.execute(
        f"SELECT DISTINCT {category(covariate.name)} FROM advertisers WHERE impressions > 0 ORDER BY ALL"  # noqa: S608
    ).fetchall()
    return tuple(level for (level,) in rows)


def category(name: str) -> str:
    return f"coalesce({quoted(name)}, {literal(MISSING_LEVEL)})"
