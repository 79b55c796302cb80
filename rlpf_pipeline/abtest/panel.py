"""An experiment's table (tables.py) to one row per advertiser: DuckDB judges and sums its rows.

Next in the flow: design.py. Every mistake in a user's table is found here and in rows.py, before any fit. Summing an
advertiser's days first is exact: the fit and its sandwich by advertiser are those of the panel with clustered errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import duckdb

from rlpf_pipeline.abtest.rows import DIGITS, ROUNDED, RowQueries, day_of, is_whole, row_queries, value_of
from rlpf_pipeline.abtest.spec import MISSING_LEVEL, Covariate, ExperimentSpec, Form
from rlpf_pipeline.abtest.tables import open_source, readable_to_its_end
from rlpf_pipeline.contracts import ARMS
from rlpf_pipeline.errors import UserError
from rlpf_pipeline.warehouse import Config, connect, literal, quoted, read_sql

if TYPE_CHECKING:
    import pandas as pd

CONNECTION: Config = {
    "memory_limit": "2GB",
    "preserve_insertion_order": False,
    # What reads tables is built in. Nothing is to be fetched for a file's sake, and looking for it costs milliseconds.
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    # What is freed goes back soon: five MiB of a small experiment's memory, for milliseconds.
    "allocator_bulk_deallocation_flush_threshold": "2MB",
}
MOST_DAYS = 3653
"""Ten years. A day that is repeated is found by a bit for each day of an advertiser."""
DAYS_OF_WEEK = 7
LAST_WEEK = 53
"""Of a year, as ISO 8601 numbers weeks."""
SHOWN = 60
"""Characters of a wrong value."""
LONGEST_BY_DAY = 21
"""Experiments of more days are shown by week."""


class Experiment(NamedTuple):
    advertisers: pd.DataFrame
    """One row per advertiser, ordered by advertiser_id: arm (control, treatment), impressions, clicks, the outcomes and
    covariates that the table has; missing covariates are null."""
    covariates: tuple[Covariate, ...]
    outcomes: tuple[str, ...]
    segments: tuple[str, ...]
    periods: pd.DataFrame | None
    """One row per advertiser and period (from 0): advertiser (row of `advertisers`), period, impressions, clicks. None
    without a date."""
    period_name: str
    """day, week or period."""
    rows: int
    """Rows of the table."""
    treatment_share: float


def load_experiment(source: Any, spec: ExperimentSpec | None = None, query: str | None = None) -> Experiment:
    """Read and check an experiment.

    source: pandas.DataFrame, pyarrow.Table, or the path of a CSV, Parquet (also a pattern) or DuckDB file. query: a
    SELECT, or the name of a table, of a DuckDB file.
    Raises UserError for what cannot be read or analysed: columns that are absent, values of the wrong kind, clicks
    above impressions, an advertiser in two arms, or without a date or on one date twice, an arm that is unknown or
    empty.
    """
    spec = spec or ExperimentSpec()
    with opened(source, spec, query) as table:
        make_advertisers(table)
        described = (*table.outcomes, *(covariate.name for covariate in table.covariates))
        columns = ", ".join(map(quoted, ("advertiser_id", "arm", "impressions", "clicks", *described)))
        advertisers = table.connection.sql(f"SELECT {columns} FROM advertisers ORDER BY advertiser_id").df()  # noqa: S608
        periods, name = by_period(table)
        rows = table.connection.sql("SELECT sum(row_count)::BIGINT FROM advertisers").fetchall()[0][0]
    return Experiment(
        advertisers, table.covariates, table.outcomes, table.segments, periods, name, int(rows), spec.treatment_share
    )


class Opened(NamedTuple):
    """An experiment's table in DuckDB, as the relation `source`."""

    connection: duckdb.DuckDBPyConnection
    spec: ExperimentSpec
    kinds: dict[str, str]
    """Type by column."""
    covariates: tuple[Covariate, ...]
    outcomes: tuple[str, ...]
    segments: tuple[str, ...]
    first: int
    last: int
    """Days of the experiment, as numbers (rows.day_of)."""
    levels: dict[str, str]
    """Levels of categories by how they were given, where asked for, in the order of that."""

    @property
    def queries(self) -> RowQueries:
        return row_queries(self.kinds, self.spec, self.covariates, self.outcomes)

    def from_rows(self, select: str) -> str:
        """A SELECT from `ab_rows`, the typed rows, and `ab_descriptions`."""
        queries = self.queries
        return f"WITH ab_rows AS ({queries.typed}), ab_descriptions AS ({queries.descriptions}) FROM ({select})"

    def advertisers(self, value: Callable[[Form, str, str], str] = value_of) -> str:
        """The SELECT of one row per advertiser (ab_advertiser.sql), with `parameters`. value: of a covariate of
        some form, from how it was given and that type."""
        values = [
            f"{value(c.form, quoted(c.name), self.kinds[self.spec.source_of(c.name)])} AS {quoted(c.name)}"
            for c in self.covariates
        ]
        replaced = f" REPLACE ({', '.join(values)})" if values else ""
        return self.from_rows(f"SELECT *{replaced} FROM ({read_sql('abtest/ab_advertiser')})")  # noqa: S608

    @property
    def parameters(self) -> dict[str, object]:
        """Of the SELECT of advertisers."""
        return {"first": self.first, "last": self.last, "rounded": ROUNDED}


@contextmanager
def opened(source: Any, spec: ExperimentSpec, query: str | None, headline: bool = False) -> Iterator[Opened]:
    """headline: with the levels of categories, and without the outcomes, which its estimate does not need.

    Raises UserError where a table cannot be read, also by a query inside of the `with` statement.
    """
    with connect(config=CONNECTION) as connection:
        kinds = dict(open_source(connection, source, spec, query))
        covariates, outcomes, segments = spec.present(list(kinds))
        categories = [spec.source_of(c.name) for c in covariates if c.form == "category" and headline]
        outcomes = () if headline else outcomes
        with readable_to_its_end():
            if are_written_dates(connection, spec, kinds):
                kinds[str(spec.date)] = DIGITS
            first, last = extent(connection, spec, kinds)
            levels = levels_of(connection, {column: kinds[column] for column in categories})
            yield Opened(connection, spec, kinds, covariates, outcomes, segments, first, last, levels)


def make_advertisers(table: Opened) -> None:
    """Make the table `advertisers`, one row each. Raises UserError as `load_experiment` for what cannot be analysed."""
    table.connection.execute(f"CREATE TEMP TABLE advertisers AS {table.advertisers()}", table.parameters)
    require_sound_rows(table)
    require_assignment(table.connection)
    require_distinct_days(table)


def are_written_dates(connection: duckdb.DuckDBPyConnection, spec: ExperimentSpec, kinds: dict[str, str]) -> bool:
    """Whether days are whole numbers like 20240131."""
    if spec.date is None or not is_whole(kinds[spec.date]):
        return False
    ends = f"SELECT coalesce(min({quoted(spec.date)}) >= 19700101 AND max({quoted(spec.date)}) <= 21001231, false)"
    return bool(connection.execute(f"{ends} FROM source").fetchall()[0][0])


def extent(connection: duckdb.DuckDBPyConnection, spec: ExperimentSpec, kinds: dict[str, str]) -> tuple[int, int]:
    """First and last day of the rows, as numbers. Raises UserError where the experiment would be longer than any."""
    ends = ", ".join(day_of(spec.date, kinds, summary) for summary in ("min", "max"))
    first, last = (day or 0 for day in connection.execute(f"SELECT {ends} FROM source").fetchall()[0])  # noqa: S608
    if last - first >= MOST_DAYS:
        start, end = (day_as_given(connection, day, spec, kinds) for day in (first, last))
        raise UserError(
            f"{spec.date} runs from {start} to {end}, which is more than {MOST_DAYS} days. It needs a date, or the "
            "number of a day or week; correct those far off."
        )
    if spec.date is not None and is_whole(kinds[spec.date]) and are_weeks_of_years(first, last):
        raise UserError(
            f"{spec.date} runs from {first} to {last}: as weeks of a year these jump at its end. Give a date in each "
            "week, or number the weeks one after another."
        )
    return first, last


def are_weeks_of_years(first: int, last: int) -> bool:
    """Whether days are numbers like 202452, of several years."""
    (first_year, first_week), (last_year, last_week) = divmod(first, 100), divmod(last, 100)
    weeks = 1 <= first_week <= LAST_WEEK and 1 <= last_week <= LAST_WEEK
    return weeks and 1970 <= first_year < last_year <= 2100


def levels_of(connection: duckdb.DuckDBPyConnection, columns: dict[str, str]) -> dict[str, str]:
    """Level by given value of these categories (columns of the table, with their types), with MISSING_LEVEL."""
    if not columns:
        return {}
    distinct = f"SELECT DISTINCT {', '.join(map(quoted, columns))} FROM source"  # noqa: S608
    pairs = [
        f"({quoted(column)}::VARCHAR, coalesce({value_of('category', quoted(column), kind)}, {literal(MISSING_LEVEL)}))"
        for column, kind in columns.items()
    ]
    found = connection.execute(f"SELECT {', '.join(pairs)} FROM ({distinct})").fetchall()  # noqa: S608
    levels = {given: level for row in found for given, level in row if given is not None}
    return dict(sorted((levels | {MISSING_LEVEL: MISSING_LEVEL}).items()))


def day_as_given(connection: duckdb.DuckDBPyConnection, day: int, spec: ExperimentSpec, kinds: dict[str, str]) -> str:
    if spec.date is None or is_whole(kinds[spec.date]):
        return str(day)
    return str(connection.execute("SELECT (DATE '1970-01-01' + $day::INTEGER)::VARCHAR", {"day": day}).fetchall()[0][0])


def require_sound_rows(table: Opened) -> None:
    """Raise UserError where a row is wrong."""
    if not table.connection.sql("SELECT bool_or(wrong) FROM advertisers").fetchall()[0][0]:
        return
    problems = f"({table.queries.problems}) WHERE problem IS NOT NULL"
    problem, rows = table.connection.sql(
        f"SELECT problem, count(*) AS rows FROM {problems} GROUP BY problem ORDER BY rows DESC, problem LIMIT 1"  # noqa: S608
    ).fetchall()[0]
    named, given = table.connection.execute(
        f"SELECT advertiser_id, left(given, {SHOWN}) FROM {problems} AND problem = $problem ORDER BY ALL LIMIT 1",  # noqa: S608
        {"problem": problem},
    ).fetchall()[0]
    where = f"for example advertiser {named}" if named is not None else "the advertiser's name is missing there"
    where += f" ({given})" if given else ""
    raise UserError(f"{rows} row(s): {problem}; {where}. Correct them at their source, the same way in both arms.")


def require_assignment(connection: duckdb.DuckDBPyConnection) -> None:
    crossed, crossing, *arms = connection.sql(
        "SELECT count(*) FILTER (crossed), min(advertiser_id) FILTER (crossed), min(arm), max(arm) FROM advertisers"
    ).fetchall()[0]
    if crossed:
        raise UserError(
            f"{crossed} advertiser(s) are in more than one arm, for example {crossing}. "
            "The advertiser is the unit of randomisation: find out which arm each was assigned to, or leave them out "
            "of both."
        )
    if tuple(arms) != ARMS:
        only = f"only {arms[0]}" if arms[0] else "no rows"
        raise UserError(
            f"The column arm must hold both control and treatment; it holds {only}. Add the other arm's advertisers."
        )


def require_distinct_days(table: Opened) -> None:
    """Raise UserError where an advertiser has two rows of one day, or two rows without a date."""
    connection, spec, kinds = table.connection, table.spec, table.kinds
    repeated, repeating = connection.sql(
        "SELECT count(*), min(advertiser_id) FROM advertisers WHERE row_count > days"
    ).fetchall()[0]
    if not repeated:
        return
    if spec.date is None:
        raise UserError(
            f"{repeated} advertiser(s) have more than one row, for example {repeating}. "
            "Name the column of the date in a spec (date: …), or sum to one row per advertiser."
        )
    day, number = connection.execute(
        table.from_rows("""SELECT day, count(*) FROM ab_rows WHERE advertiser_id = $repeating
            GROUP BY day HAVING count(*) > 1 ORDER BY day LIMIT 1"""),
        {"repeating": repeating},
    ).fetchall()[0]
    where = day_as_given(connection, day, spec, kinds)
    raise UserError(
        f"{repeated} advertiser(s) have more than one row of the same {spec.date}, for example {repeating} {number} of "
        f"{where}. If these are the same results twice, leave one out; if they are parts, sum them to one row per "
        "advertiser and date first."
    )


def by_period(table: Opened) -> tuple[pd.DataFrame | None, str]:
    """Totals by advertiser and period, and what a period is; None where there is no date, or one day only."""
    date = table.spec.date
    if date is None or table.first == table.last:
        return None, "period"
    is_number = is_whole(table.kinds[date])
    weekly = not is_number and table.last - table.first + 1 > LONGEST_BY_DAY
    parameters = {"first": table.first, "length": DAYS_OF_WEEK if weekly else 1}
    periods = table.connection.sql(table.from_rows(read_sql("abtest/ab_period")), params=parameters).df()
    return periods, "week" if weekly else "period" if is_number else "day"
