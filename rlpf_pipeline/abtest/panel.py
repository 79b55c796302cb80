"""An experiment's table, from a file, DuckDB or memory, to one row per advertiser: DuckDB judges and sums its rows.

Next in the flow: design.py. Every mistake in a user's table is found here, before any fit. Summing the days of an
advertiser first is exact: the fit and its sandwich by advertiser are those of the panel with clustered errors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pandas as pd

from rlpf_pipeline.abtest.frames import ARMS
from rlpf_pipeline.abtest.spec import OUTCOMES, REQUIRED, Covariate, ExperimentSpec
from rlpf_pipeline.errors import UserError
from rlpf_pipeline.warehouse import read_sql

MEMORY_LIMIT = "2GB"
DAYS_OF_WEEK = 7
LONGEST_BY_DAY = 21
"""Experiments of more days are shown by week."""
NUMBER_FORMS = ("rate", "count", "number")
FLOATS = ("DOUBLE", "FLOAT")
WHOLE = ("impressions", "clicks", "ads", "variations")


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
    above impressions, an advertiser in two arms or without a date twice, an arm that is unknown or empty.
    """
    spec = spec or ExperimentSpec()
    with duckdb.connect(config={"memory_limit": MEMORY_LIMIT, "preserve_insertion_order": False}) as connection:
        columns = open_source(connection, source, spec, query)
        covariates, outcomes, segments = spec.present([name for name, _ in columns])
        try:
            view_rows(connection, dict(columns), spec, covariates, outcomes)
            advertisers = connection.sql(read_sql("marts/ab_advertiser")).df()
            require_sound_rows(advertisers)
            require_assignment(advertisers, dated=spec.date is not None)
            periods, name = by_period(connection, dict(columns), spec)
        except (duckdb.ConversionException, duckdb.InvalidInputException, duckdb.IOException) as error:
            raise UserError(f"The table cannot be read to its end: {str(error).splitlines()[0]}") from error
    rows = int(advertisers["row_count"].sum())
    absent = [outcome for outcome in OUTCOMES if outcome not in outcomes]
    advertisers = advertisers.drop(columns=["problem", "problems", "crossed", "row_count", "first_day", *absent])
    return Experiment(advertisers, covariates, outcomes, segments, periods, name, rows, spec.treatment_share)


def open_source(
    connection: duckdb.DuckDBPyConnection, source: Any, spec: ExperimentSpec, query: str | None
) -> list[tuple[str, str]]:
    """Make the view `source`; returns its columns' names and types."""
    try:
        if isinstance(source, (str, Path)):
            open_file(connection, Path(source), spec, query)
        elif isinstance(source, pd.DataFrame) or hasattr(source, "to_pandas"):
            connection.register("source", source)
        else:
            raise UserError(f"Expected a pandas.DataFrame, a pyarrow.Table or a path, got {type(source).__name__}.")
        return [(str(name), str(kind)) for name, kind, *_ in connection.execute("DESCRIBE source").fetchall()]
    except (duckdb.Error, UnicodeDecodeError) as error:
        raise UserError(f"The table cannot be read: {str(error).splitlines()[0]}") from error


def open_file(connection: duckdb.DuckDBPyConnection, path: Path, spec: ExperimentSpec, query: str | None) -> None:
    if not path.is_file() and not ("*" in path.name and any(path.parent.glob(path.name))):
        raise UserError(f"No such file: {path}.")
    if path.suffix in (".duckdb", ".db"):
        if not query:
            raise UserError(f"{path} is a DuckDB file: say which table or SELECT to analyse (--query).")
        connection.execute(f"ATTACH {literal(str(path))} AS warehouse (READ_ONLY)")
        connection.execute("USE warehouse")
        select = query if " " in query.strip() else f"FROM {quoted(query.strip())}"
        connection.execute(f"CREATE TEMP VIEW source AS {select}")
        return
    if query:
        raise UserError("--query is for DuckDB files; CSV and Parquet files hold one table.")
    if path.suffix == ".parquet":
        connection.read_parquet(str(path)).create_view("source")
        return
    text = {spec.source_of("advertiser_id"): "VARCHAR", spec.source_of("arm"): "VARCHAR"}
    columns = connection.read_csv(str(path), sample_size=100_000).columns
    kinds = {name: kind for name, kind in text.items() if name in columns}
    connection.read_csv(str(path), sample_size=100_000, dtype=kinds or None).create_view("source")


def view_rows(
    connection: duckdb.DuckDBPyConnection,
    kinds: dict[str, str],
    spec: ExperimentSpec,
    covariates: tuple[Covariate, ...],
    outcomes: tuple[str, ...],
) -> None:
    """Make the view `ab_rows`: typed, under our names, and with the `problem` of a row that cannot be right."""
    fields = {"advertiser_id": f"trim({quoted(spec.source_of('advertiser_id'))}::VARCHAR)", "arm": arm_of(spec)}
    fields |= {name: number(spec.source_of(name), kinds) for name in ("impressions", "clicks", *outcomes)}
    fields |= {name: "NULL::DOUBLE" for name in OUTCOMES if name not in outcomes}
    fields["day"] = day_of(spec.date, kinds)
    described = {covariate.name: value_of(covariate, spec, kinds) for covariate in covariates}
    tests = row_tests(spec, covariates, outcomes, fields | described, kinds)
    fields["problem"] = f"CASE {' '.join(f'WHEN {wrong} THEN {literal(problem)}' for wrong, problem in tests)} END"
    parts = {"first_day": fields["day"]} | described
    fields["description"] = "{" + ", ".join(f"{literal(name)}: {value}" for name, value in parts.items()) + "}"
    select = ", ".join(f"{expression} AS {name}" for name, expression in fields.items())
    connection.execute(f"CREATE TEMP VIEW ab_rows AS SELECT {select} FROM source")  # noqa: S608 (names are quoted)


def value_of(covariate: Covariate, spec: ExperimentSpec, kinds: dict[str, str]) -> str:
    column = spec.source_of(covariate.name)
    if covariate.form == "category":
        return f"nullif(trim({quoted(column)}::VARCHAR), '')"
    return flag(column, kinds) if covariate.form == "flag" else number(column, kinds)


def require_sound_rows(advertisers: pd.DataFrame) -> None:
    wrong = advertisers[advertisers["problem"].notna()]
    if wrong.empty:
        return
    counts = wrong.groupby("problem")["problems"].sum()
    problem = str(counts.idxmax())
    named = wrong.loc[wrong["problem"] == problem, "advertiser_id"].dropna()
    where = f"for example advertiser {named.iloc[0]}" if len(named) else "the advertiser's name is missing there"
    raise UserError(
        f"{counts[problem]} row(s): {problem}; {where}. Correct them at their source, the same way in both arms."
    )


def row_tests(
    spec: ExperimentSpec,
    covariates: tuple[Covariate, ...],
    outcomes: tuple[str, ...],
    fields: dict[str, str],
    kinds: dict[str, str],
) -> list[tuple[str, str]]:
    """What a row must not be, and how to say it; in the order in which problems are told."""

    def given(name: str) -> str:
        column = spec.source_of(name)
        blank = f" AND lower(trim({quoted(column)})) NOT IN ('', 'nan')" if kinds[column] == "VARCHAR" else ""
        return f"({quoted(column)} IS NOT NULL{blank})"

    required = (*REQUIRED, *outcomes)
    tests = [(f"NOT {given(name)}", f"missing value in {spec.source_of(name)}") for name in required]
    known = " and ".join((spec.arms.control, spec.arms.treatment))
    tests.append((f"{fields['arm']} IS NULL", f"{spec.source_of('arm')} is not one of {known}"))
    numbers = ["impressions", "clicks", *outcomes, *(c.name for c in covariates if c.form in NUMBER_FORMS)]
    for name in numbers:
        value, kind = fields[name], kinds[spec.source_of(name)]
        said = f"{spec.source_of(name)} is not a finite number"
        if not is_whole(kind):
            tests.append((f"isinf({value})", said))
            if name in required:
                tests.append((f"{quoted(spec.source_of(name))} IS NOT NULL AND {value} IS NULL", said))
            elif kind not in FLOATS:
                tests.append((f"{given(name)} AND {value} IS NULL", said))
    never_negative = ["impressions", "clicks", *outcomes, *(c.name for c in covariates if c.form in ("rate", "count"))]
    tests += [(f"{fields[name]} < 0", f"{spec.source_of(name)} is negative") for name in never_negative]
    whole = [n for n in WHOLE if n in ("impressions", "clicks", *outcomes) and not is_whole(kinds[spec.source_of(n)])]
    tests += [(f"{fields[n]} <> floor({fields[n]})", f"{spec.source_of(n)} counts whole things") for n in whole]
    more = f"{fields['clicks']} > {fields['impressions']}"
    tests.append((more, f"more {spec.source_of('clicks')} than {spec.source_of('impressions')}"))
    for name in (c.name for c in covariates if c.form == "flag" and kinds[spec.source_of(c.name)] != "BOOLEAN"):
        tests.append((f"{given(name)} AND {fields[name]} IS NULL", f"{spec.source_of(name)} is not true or false"))
    if spec.date is not None:
        tests.append((f"({fields['day']}) IS NULL", f"{spec.date} is not a date, nor a whole number"))
    return tests


def is_whole(kind: str) -> bool:
    return kind.endswith("INT") or kind.endswith("INTEGER")


def arm_of(spec: ExperimentSpec) -> str:
    given = f"trim({quoted(spec.source_of('arm'))}::VARCHAR)"
    cases = " ".join(
        f"WHEN {literal(name)} THEN {literal(arm)}"
        for arm, name in zip(ARMS, (spec.arms.control, spec.arms.treatment), strict=True)
    )
    return f"CASE {given} {cases} END"


def number(column: str, kinds: dict[str, str]) -> str:
    """A DOUBLE; null where it is missing, NaN or no number."""
    if is_whole(kinds[column]):
        return f"{quoted(column)}::DOUBLE"
    value = f"TRY_CAST({quoted(column)} AS DOUBLE)"
    return f"CASE WHEN NOT isnan({value}) THEN {value} END"


def flag(column: str, kinds: dict[str, str]) -> str:
    if kinds[column] == "BOOLEAN":
        return quoted(column)
    return (
        f"coalesce(TRY_CAST({quoted(column)} AS BOOLEAN), TRY_CAST(TRY_CAST({quoted(column)} AS INTEGER) AS BOOLEAN))"
    )


def day_of(date: str | None, kinds: dict[str, str]) -> str:
    """The day of a row as a whole number: days since 1970, or the number that the table gives."""
    if date is None:
        return "0::BIGINT"
    if is_whole(kinds[date]):
        return f"{quoted(date)}::BIGINT"
    return f"date_diff('day', DATE '1970-01-01', TRY_CAST({quoted(date)} AS DATE))::BIGINT"


def require_assignment(advertisers: pd.DataFrame, dated: bool) -> None:
    crossed = advertisers[advertisers["crossed"]]
    if len(crossed):
        raise UserError(
            f"{len(crossed)} advertiser(s) are in more than one arm, for example {crossed['advertiser_id'].iloc[0]}. "
            "The advertiser is the unit of randomisation: find out which arm each was assigned to, or leave them out "
            "of both."
        )
    twice = advertisers[advertisers["row_count"] > 1]
    if len(twice) and not dated:
        raise UserError(
            f"{len(twice)} advertiser(s) have more than one row, for example {twice['advertiser_id'].iloc[0]}. "
            "Name the column of the date in a spec (date: …), or sum to one row per advertiser."
        )
    found = set(advertisers["arm"])
    if found != set(ARMS):
        only = f"only {found.pop()}" if found else "no rows"
        raise UserError(f"The column arm must hold both control and treatment; it holds {only}.")


def by_period(
    connection: duckdb.DuckDBPyConnection, kinds: dict[str, str], spec: ExperimentSpec
) -> tuple[pd.DataFrame | None, str]:
    """Totals by advertiser and period, and what a period is; None where there is no date, or one day only."""
    if spec.date is None:
        return None, "period"
    first, last = connection.sql("SELECT min(day), max(day) FROM ab_rows").fetchall()[0]
    if first == last:
        return None, "period"
    is_number = is_whole(kinds[spec.date])
    weekly = not is_number and last - first + 1 > LONGEST_BY_DAY
    parameters = {"first": first, "length": DAYS_OF_WEEK if weekly else 1}
    periods = connection.sql(read_sql("marts/ab_period"), params=parameters).df()
    return periods, "week" if weekly else "period" if is_number else "day"


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
