"""A user's table in DuckDB, as the relation `source`: from CSV, Parquet, a DuckDB file, or memory.

Next in the flow: panel.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import Any

import duckdb

from rlpf_pipeline.abtest.spec import ExperimentSpec
from rlpf_pipeline.errors import UserError
from rlpf_pipeline.warehouse import ending_of, files_of, literal, quoted, read_sql, reason_of

DATABASES = (".duckdb", ".db")
NOT_READ = (".json", ".jsonl", ".ndjson", ".xls", ".xlsx")
DAY_OR_MONTH_FIRST = re.compile(r"\s*\d\d?[/-]\d\d?[/-]\d\d")
UNREADABLE = (duckdb.ConversionException, duckdb.InvalidInputException, duckdb.IOException)
"""What DuckDB raises where rows turn out to be broken."""


def open_source(
    connection: duckdb.DuckDBPyConnection, source: Any, spec: ExperimentSpec, query: str | None
) -> list[tuple[str, str]]:
    """Make the relation `source`; returns its columns' names and types."""
    try:
        if isinstance(source, (str, Path)):
            open_file(connection, Path(source), spec, query)
        elif hasattr(source, "columns"):
            connection.register("source", source)
        else:
            raise UserError(f"Expected a pandas.DataFrame, a pyarrow.Table or a path, got {type(source).__name__}.")
        return [(str(name), str(kind)) for name, kind, *_ in connection.execute("DESCRIBE source").fetchall()]
    except (duckdb.Error, UnicodeDecodeError) as error:
        raise UserError(f"The table cannot be read: {reason_of(error)}") from error


def open_file(connection: duckdb.DuckDBPyConnection, path: Path, spec: ExperimentSpec, query: str | None) -> None:
    if not path.is_file() and not ("*" in path.name and any(path.parent.glob(path.name))):
        raise UserError(f"No such file: {path}.")
    if path.suffix in DATABASES:
        if not query:
            raise UserError(f"{path} is a DuckDB file: say which table or SELECT to analyse (--query).")
        connection.execute(f"ATTACH {literal(str(path))} AS warehouse (READ_ONLY)")
        connection.execute("USE warehouse")
        create_from_database(connection, query.strip())
        return
    if query:
        raise UserError("--query is for DuckDB files; CSV and Parquet files hold one table.")
    if ending_of(path) in NOT_READ:
        raise UserError(f"{path} is no table that is read here: write it as CSV or Parquet, or into DuckDB.")
    pattern = literal(escape(str(path)) if path.is_file() else files_of(path))
    # Folders called `arm=treatment` are no columns: what stands in the files is analysed. A column is of the type that
    # holds the values of all files, and not of the first one's, to which DuckDB would round those of the others.
    options = "hive_partitioning = false, union_by_name = true"
    if path.suffix == ".parquet":
        connection.execute(f"CREATE TEMP VIEW source AS FROM read_parquet({pattern}, {options})")
    else:
        open_csv(connection, pattern, options, spec)


def open_csv(connection: duckdb.DuckDBPyConnection, pattern: str, options: str, spec: ExperimentSpec) -> None:
    """As a table: text is parsed for every query anew, and looked through for its types before."""
    file = f"{pattern}, {options}, comment = ''"  # or a row whose name begins with # may be taken for one
    words = [spec.source_of(name) for name in ("advertiser_id", "arm")]
    columns = [name for name, *_ in connection.execute(f"DESCRIBE FROM read_csv({file})").fetchall()]
    if len(columns) == 1:
        name_the_ragged_row(connection, pattern, columns[0])
    types = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in words if name in columns)
    sample = f"sample_size = 100_000{f', types = {{{types}}}' if types else ''}"
    connection.execute(f"CREATE TEMP TABLE source AS FROM read_csv({file}, {sample})")
    if words[0] in columns:
        join_names_of_floats(connection, quoted(words[0]))
    if spec.date is not None and spec.date in columns:
        require_plain_days(connection, f"read_csv({file}, all_varchar = true, filename = 'rlpf_file')", spec.date)


def join_names_of_floats(connection: duckdb.DuckDBPyConnection, name: str) -> None:
    """Call an advertiser 120 whom one file calls so and another 120.0, as pandas writes where a column lacks some: as
    ingest does (plain_id), which leaves names of so many digits that they may be rounded."""
    (both,) = connection.execute(
        f"SELECT bool_or(ends_with({name}, '.0')) AND NOT bool_and(ends_with({name}, '.0')) FROM source"  # noqa: S608
    ).fetchall()[0]
    if both:
        connection.execute(read_sql("macros"))
        connection.execute(f"UPDATE source SET {name} = plain_id({name}) WHERE ends_with(trim({name}), '.0')")  # noqa: S608


def name_the_ragged_row(connection: duckdb.DuckDBPyConnection, pattern: str, header: str) -> None:
    """Let DuckDB say which row has a field too many or too few: looking for a dialect, it takes such a file for one
    column of lines."""
    for mark in filter(header.__contains__, ",;\t|"):
        columns = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in header.split(mark))
        dialect = f"auto_detect = false, header = true, delim = {literal(mark)}, quote = '\"', escape = '\"'"
        connection.execute(f"SELECT count(COLUMNS(*)) FROM read_csv({pattern}, {dialect}, columns = {{{columns}}})")  # noqa: S608


def require_plain_days(connection: duckdb.DuckDBPyConnection, rows: str, date: str) -> None:
    """Raise UserError where days of a CSV file may be its months too, as those of 02/01/2024: DuckDB guesses then."""
    days = f"SELECT rlpf_file, {quoted(date)} AS day FROM {rows} WHERE {quoted(date)} IS NOT NULL"  # noqa: S608
    first = connection.execute(f"{days} LIMIT 1").fetchall()
    if not any(DAY_OR_MONTH_FIRST.match(day) for _, day in first):
        return
    parts = "TRY_CAST(regexp_extract_all(day, '[0-9]+')[:2] AS INTEGER[])"
    for file, day in connection.execute(
        f"""SELECT rlpf_file, min(day) FROM ({days}) GROUP BY rlpf_file
        HAVING max(list_max({parts})) <= 12 ORDER BY rlpf_file LIMIT 1"""  # noqa: S608
    ).fetchall():
        raise UserError(f"{file}: the days of {date} may be its months, such as {day}. Write them like 2024-05-31.")


def create_from_database(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    """query: a SELECT, or a table's or view's name, also a schema's (`ads.results`)."""
    if len(query.split()) > 1:
        select, is_stored = query, False
    else:
        name = f"warehouse.{query if '.' in query else quoted(query)}"  # also one called `source`
        select, is_stored = f"FROM {name}", connection.table(name).type == "TABLE_RELATION"
    # Of what is computed a table: a sample or a LIMIT may be other rows when it is asked again.
    connection.execute(f"CREATE TEMP {'VIEW' if is_stored else 'TABLE'} source AS {select}")


@contextmanager
def readable_to_its_end() -> Iterator[None]:
    """Raise UserError where rows far down a file turn out to be broken."""
    try:
        yield
    except duckdb.Error as error:
        # Of a damaged Parquet file some errors are of no kind at all.
        if type(error) is not duckdb.Error and not isinstance(error, UNREADABLE):
            raise
        raise UserError(f"The table cannot be read to its end: {reason_of(error)}") from error
