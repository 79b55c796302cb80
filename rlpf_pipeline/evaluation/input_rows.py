"""Any CSV, TSV, JSON Lines or Parquet file as the DuckDB table `input`, its columns and rows as they stand.

Columns of a CSV file stay text (an id 007 is no 7), strings of JSON Lines stay strings, Parquet keeps its types. Unlike
`sources/files.py`, whose readers judge each row, a file with one row that cannot be read is refused.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from glob import escape
from itertools import chain
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
from duckdb.sqltypes import VARCHAR, DuckDBPyType

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.sources.files import DELIMITERS, JSON_LINES, file_kind, first_records, require_no_row
from rlpf_pipeline.sources.json_lines import READ_JSON_LINES, TEXT_TYPES, refuse_keys_alike, refuse_no_objects
from rlpf_pipeline.sources.refused import MAX_ROW_BYTES
from rlpf_pipeline.warehouse import reason_of

CSV = """
FROM read_csv(
    $path, columns = $columns, delim = $delimiter, quote = '"', escape = '"', header = true, auto_detect = false,
    nullstr = '', null_padding = false, strict_mode = true, max_line_size = $max_row_bytes,
    hive_partitioning = false
)
"""
JSON_OF_TYPES = """
FROM read_json(
    $path, format = 'newline_delimited', columns = $columns, maximum_object_size = $max_row_bytes,
    hive_partitioning = false
)
"""
READ_AS_TEXT = ("date", "time", "timestamp", "timestamp with time zone", "uuid")
"""Types that DuckDB sees in strings of JSON: they are kept as the strings they are."""


def load_rows(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Create the table `input`; its rowid counts the rows from 0 in their order.

    Raises UserError where the file is missing, of another kind, empty, or cannot be read to its end.
    """
    kind = file_kind(path)
    source = {"path": escape(str(path))}  # DuckDB takes every path for a pattern
    try:
        if kind in DELIMITERS:
            delimiter, names = header(path, DELIMITERS[kind])
            options = source | {"delimiter": delimiter, "max_row_bytes": MAX_ROW_BYTES}
            connection.execute(f"CREATE TABLE input AS {CSV}", options | {"columns": dict.fromkeys(names, "VARCHAR")})
        elif kind in JSON_LINES:
            refuse_keys_alike(connection, path)
            options = source | {"max_row_bytes": MAX_ROW_BYTES}
            seen = connection.sql(f"FROM {READ_JSON_LINES}", params=options)
            refuse_no_objects(connection, path, seen.columns)
            columns = {name: str(with_strings(own)) for name, own in zip(seen.columns, seen.types, strict=True)}
            connection.execute(f"CREATE TABLE input AS {JSON_OF_TYPES}", options | {"columns": columns})
        elif kind == ".parquet":
            connection.execute("CREATE TABLE input AS FROM read_parquet($path, hive_partitioning = false)", source)
            refuse_names_changed(connection, path)
        else:
            raise UserError(f"{path}: a JSON document cannot be read row by row. Write it as JSON Lines (.jsonl).")
    except (duckdb.Error, OSError, EOFError, csv.Error) as error:
        raise UserError(
            f"{path} cannot be read: {reason_of(error)} Check that the file is complete, in UTF-8, that its ending "
            "says what it is, and that a CSV field which holds a delimiter is quoted."
        ) from error
    if connection.execute("SELECT 1 FROM input LIMIT 1").fetchone() is None:
        if kind in DELIMITERS:
            require_no_row(path, delimiter, 1)
        raise UserError(f"{path} holds no row below its header.")


def with_strings(kind: DuckDBPyType) -> DuckDBPyType:
    """A type that DuckDB sees in JSON, with text for what it takes a string for, however deep."""
    if kind.id in READ_AS_TEXT:
        return VARCHAR
    if kind.id not in ("struct", "list", "map"):
        return kind
    parts = {str(name): with_strings(own) for name, own in kind.children if isinstance(own, DuckDBPyType)}
    if kind.id == "struct":
        return duckdb.struct_type(parts)
    return duckdb.list_type(parts["child"]) if kind.id == "list" else duckdb.map_type(parts["key"], parts["value"])


def refuse_names_changed(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Raises UserError where DuckDB has renamed columns of a Parquet file, as it must if their names are no names."""
    kept = [str(name) for name, *_ in connection.execute("DESCRIBE input").fetchall()]
    changed = [name for name, own in zip(pq.read_schema(path).names, kept, strict=True) if name != own]
    if changed:
        named = ", ".join(f"'{name}'" for name in changed)
        raise UserError(
            f"{path} has the column(s) {named}, named like another but for upper and lower case, or not at all. Rename "
            "them: every column needs a name of its own."
        )


def require_columns(
    connection: duckdb.DuckDBPyConnection, source: Path, texts: Sequence[str], others: Sequence[str] = ()
) -> list[str]:
    """All columns of `input`. Raises UserError where one of these is missing, or one of `texts` holds no text."""
    types = {str(name): str(kind) for name, kind, *_ in connection.execute("DESCRIBE input").fetchall()}
    for name in (*texts, *others):
        if name not in types:
            raise UserError(f"{source} has no column '{name}'. It has: {', '.join(types)}.")
    for name in texts:
        if types[name] not in TEXT_TYPES:
            raise UserError(f"Column '{name}' of {source} holds {types[name]}, not text.")
    return list(types)


def header(path: Path, delimiters: tuple[str, ...]) -> tuple[str, list[str]]:
    """What stands between the column names of the first record, and these: the first delimiter that there is, or the
    usual one. Left to guess, DuckDB would skip lines until all rows look alike."""
    headers = ((delimiter, (first_records(path, delimiter, 1) or [[]])[0]) for delimiter in delimiters)
    usual = next(headers)
    delimiter, names = next((own for own in chain([usual], headers) if len(own[1]) > 1), usual)
    unusable = sorted({name for name in names if not name.strip() or names.count(name) > 1})
    if unusable or not names:
        named = ", ".join(f"'{name}'" for name in unusable) or "nothing"
        raise UserError(f"{path}: the header names {named}; every column needs a name of its own.")
    return delimiter, names
