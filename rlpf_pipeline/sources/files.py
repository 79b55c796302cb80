"""Reading a user's file into `source_rows` as it stands: a row is JSON text, or a problem where it cannot be parsed.

Parsing is DuckDB's; no row that it can parse passes through Python. What a row means is decided later,
in `sql/staging/`.
"""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from glob import escape, glob, has_magic
from io import TextIOWrapper
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import duckdb

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.sources.refused import MAX_ROW_BYTES, collect_refused, stream_of
from rlpf_pipeline.warehouse import ending_of, quoted, reason_of

DELIMITERS = {".csv": (",", ";", "\t"), ".tsv": ("\t",)}
"""What may stand between the fields, the usual first; spreadsheets of many countries write semicolons."""
JSON_LINES = (".jsonl", ".ndjson")
JSON_DOCUMENT = ".json"
MAX_DOCUMENT_BYTES = 2**28
TITLE_LINES = 5
"""Exports may say what they are above the header; it is looked for behind at most so many lines."""

CREATE_SOURCE_ROWS = """
CREATE TABLE source_rows (
    file_index BIGINT, source_file VARCHAR, position BIGINT, row_number BIGINT, raw_row VARCHAR, problem VARCHAR
)
"""

# A refused record is missing from the scan, so a good row's position is its rank plus the refused records before it.
# `line` counts blank lines, the scan does not: in a file with both, positions still order the rows, but are no numbers.
ADD_SCANNED_ROWS = """
INSERT INTO source_rows
WITH bad AS (SELECT line - $header_rows AS position, raw_row, problem FROM refused),
good AS (SELECT row_number() OVER () AS rank, raw_row FROM scanned),
gaps AS (
    SELECT position - refused AS good_before, refused
    FROM (SELECT position, row_number() OVER (ORDER BY position) AS refused FROM bad)
),
refused_before AS (SELECT good_before, max(refused) AS refused FROM gaps GROUP BY good_before),
placed AS (
    SELECT good.rank + coalesce(refused_before.refused, 0) AS position, good.raw_row, NULL AS problem
    FROM good ASOF LEFT JOIN refused_before ON good.rank > refused_before.good_before
    UNION ALL
    FROM bad
)
SELECT $file_index, $source_file, position, CASE WHEN $numbered THEN position END, raw_row, problem FROM placed
"""

# Of a file none of whose records can be refused.
ADD_ALL_ROWS = """
INSERT INTO source_rows
SELECT $file_index, $source_file, row_number() OVER () AS position, position AS row_number, raw_row, NULL AS problem
FROM scanned
"""

SCAN_DELIMITED = """
CREATE TEMP TABLE scanned AS
SELECT to_json({row})::VARCHAR AS raw_row
FROM read_csv(
    $path, columns = $columns, delim = $delimiter, quote = '"', escape = '"', header = true, skip = $skip,
    auto_detect = false, nullstr = '', null_padding = false, strict_mode = true, store_rejects = true,
    max_line_size = $max_row_bytes, hive_partitioning = false
) AS {row}
"""

# The unit separator is no legal character of a JSON line, so the line stays one field.
SCAN_LINES = """
CREATE TEMP TABLE scanned AS
SELECT line AS raw_row
FROM read_csv(
    $path, columns = {'line': 'VARCHAR'}, delim = chr(31), quote = '', escape = '', header = false, auto_detect = false,
    strict_mode = true, store_rejects = true, max_line_size = $max_row_bytes, hive_partitioning = false
)
"""

DROP_BLANK_LINES = """
DELETE FROM source_rows
WHERE file_index = $file_index AND problem IS NULL AND trim(coalesce(raw_row, ''), E' \\t\\r') = ''
"""

FLAG_INVALID_JSON = """
UPDATE source_rows SET problem = if(json_valid(raw_row), 'not a JSON object', 'not valid JSON')
WHERE
    file_index = $file_index
    AND problem IS NULL
    AND CASE WHEN json_valid(raw_row) THEN json_type(raw_row) <> 'OBJECT' ELSE true END
"""

# A document is a row, a page of an API (rows under `data` or `results`, and no field of a row), or an array of either.
# It is parsed whole: DuckDB's reader of arrays takes one that was cut off between two elements for complete.
SCAN_DOCUMENT = """
CREATE TEMP TABLE scanned AS
SELECT unnest(
    CASE
        WHEN list_has_any(json_keys(part), $fields) THEN [part]
        WHEN json_type(part, '$.data') = 'ARRAY' THEN json_extract(part, '$.data[*]')
        WHEN json_type(part, '$.results') = 'ARRAY' THEN json_extract(part, '$.results[*]')
        ELSE [part]
    END
)::VARCHAR AS raw_row
FROM (
    SELECT unnest(CASE WHEN json_type(json) = 'ARRAY' THEN json_extract(json, '$[*]') ELSE [json] END) AS part
    FROM read_json_objects($path, format = 'unstructured', maximum_object_size = $max_bytes)
)
"""

SCAN_PARQUET = """
CREATE TEMP TABLE scanned AS
SELECT to_json({row})::VARCHAR AS raw_row
FROM (SELECT * {bytes_as_text} FROM read_parquet($path, hive_partitioning = false)) AS {row}
"""

FIND_BLANK_LINE = """
SELECT 1
FROM read_csv(
    $path, columns = {'line': 'VARCHAR'}, delim = chr(31), quote = '', escape = '', header = false, auto_detect = false,
    ignore_errors = true, hive_partitioning = false
)
WHERE coalesce(trim(line), '') = ''
LIMIT 1
"""


def matching(patterns: Iterable[str]) -> tuple[Path, ...]:
    """Files that paths or patterns (`exports/*.csv`, `**` for any folders) name, absolute, each pattern's in order.

    Raises UserError where a pattern names none, and for a folder's path.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        if Path(pattern).is_dir():
            raise UserError(
                f"{pattern} is a folder. Name the files in it, such as '{Path(escape(pattern)) / '*.csv'}'."
            )
        is_pattern = has_magic(pattern) and not Path(pattern).is_file()
        names = files_matching(pattern) if is_pattern else [pattern]
        if not names:
            as_names = pattern.replace("[", "[[]")
            hint = f" Where brackets are part of a name, write '{as_names}'." if files_matching(as_names) else ""
            raise UserError(f"No file matches '{pattern}'. Patterns are relative to {Path.cwd()}.{hint}")
        found |= dict.fromkeys(Path(name).resolve() for name in names)
    return tuple(found)


def files_matching(pattern: str) -> list[str]:
    return sorted(name for name in glob(pattern, recursive=True) if not Path(name).is_dir())  # noqa: PTH207 (may be absolute)


class Required(NamedTuple):
    """A column that a file must have, under one of `names`."""

    names: tuple[str, ...]

    def __str__(self) -> str:
        return " or ".join(self.names)


def read_file(
    connection: duckdb.DuckDBPyConnection, path: Path, file_index: int, required: tuple[Required, ...]
) -> None:
    """Append the rows of `path` to `source_rows`: .csv .tsv .jsonl .ndjson .json, each also .gz or .zst; .parquet.

    Raises UserError for a fault of the whole file: missing, a folder, empty, of an unknown kind, truncated, or without
    a required column.
    """
    kind = file_kind(path)
    title_lines = 0
    source = {"path": escape(str(path))}  # DuckDB takes every path for a pattern
    try:
        if kind in (*JSON_LINES, JSON_DOCUMENT):
            refuse_utf_16(path)
        if kind in DELIMITERS:
            title_lines, delimiter, header = delimited_header(path, DELIMITERS[kind], required)
            require_columns(path, header, required)
            options = {"columns": dict.fromkeys(header, "VARCHAR"), "delimiter": delimiter, "skip": title_lines}
            connection.execute(
                SCAN_DELIMITED.format(row=name_beside(header)), source | {"max_row_bytes": MAX_ROW_BYTES, **options}
            )
        elif kind in JSON_LINES:
            connection.execute(SCAN_LINES, source | {"max_row_bytes": MAX_ROW_BYTES})
        elif kind == JSON_DOCUMENT:
            fields = [name for column in required for name in column.names]
            connection.execute(SCAN_DOCUMENT, source | {"max_bytes": MAX_DOCUMENT_BYTES, "fields": fields})
        else:
            described = connection.execute("DESCRIBE FROM read_parquet($path, hive_partitioning = false)", source)
            kinds = {str(name): str(kind) for name, kind, *_ in described.fetchall()}
            require_columns(path, list(kinds), required)
            scan = SCAN_PARQUET.format(row=name_beside(kinds), bytes_as_text=bytes_as_text(kinds, required))
            connection.execute(scan, source)
    except (duckdb.Error, OSError, EOFError, csv.Error) as error:
        raise UserError(
            f"{path} cannot be read: {reason_of(error)} Check that the file is complete, that its ending "
            "says what it is, and that all its lines end alike."
        ) from error
    if kind in DELIMITERS or kind in JSON_LINES:
        append_scanned(connection, path, file_index, title_lines + 1 if kind in DELIMITERS else 0)
        if kind in DELIMITERS and not has_rows(connection, file_index):
            require_no_row(path, delimiter, title_lines + 1)
    else:
        connection.execute(ADD_ALL_ROWS, {"file_index": file_index, "source_file": str(path)})
        connection.execute("DROP TABLE scanned")
    if kind in JSON_LINES:
        connection.execute(DROP_BLANK_LINES, {"file_index": file_index})
    if kind in (*JSON_LINES, JSON_DOCUMENT):
        connection.execute(FLAG_INVALID_JSON, {"file_index": file_index})
        if keys := json_keys(connection, file_index):  # none in an API's last page, which may be empty
            require_columns(path, keys, required)


def name_beside(columns: Iterable[str]) -> str:
    """A name for a row of these columns: DuckDB would take one that a column has, in capitals too, for that column."""
    names, name = {column.lower() for column in columns}, "row"
    while name in names:
        name += "_"
    return name


def bytes_as_text(kinds: dict[str, str], required: tuple[Required, ...]) -> str:
    """What a SELECT replaces in a Parquet file's columns (of these types): texts that are held as bytes by the texts.

    Of what is not needed, such as images, some may be no text: it is kept as base64.
    """
    needed = {name for column in required for name in column.names}
    values = []
    for name in (name for name, kind in kinds.items() if kind == "BLOB"):
        text = f"decode({quoted(name)})"
        value = text if name in needed else f"coalesce(TRY({text}), base64({quoted(name)}))"
        values.append(f"{value} AS {quoted(name)}")
    return f"REPLACE ({', '.join(values)})" if values else ""


def append_scanned(connection: duckdb.DuckDBPyConnection, path: Path, file_index: int, header_rows: int) -> None:
    refused = collect_refused(connection, path)
    blank = header_rows > 0 and refused > 0 and has_blank_line(connection, path)
    connection.execute(
        ADD_SCANNED_ROWS,
        {"file_index": file_index, "source_file": str(path), "header_rows": header_rows, "numbered": not blank},
    )
    for table in ("scanned", "refused", "reject_errors", "reject_scans"):
        connection.execute(f"DROP TABLE IF EXISTS {table}")


def has_blank_line(connection: duckdb.DuckDBPyConnection, path: Path) -> bool:
    """Whether a line is blank, or may be: in some damaged files DuckDB cannot tell lines apart."""
    try:
        return connection.execute(FIND_BLANK_LINE, {"path": escape(str(path))}).fetchone() is not None
    except duckdb.InvalidInputException:
        return True


def file_kind(path: Path) -> str:
    """Ending of the file's name without .gz or .zst; raises UserError where there is nothing to read."""
    if path.is_dir():
        raise UserError(f"{path} is a folder. Name the files in it, one by one or with a wildcard.")
    if not path.is_file():
        raise UserError(f"{path} does not exist. Check the path; it is looked up from {Path.cwd()}.")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty. Export it again with a header and at least one row.")
    kind, known = ending_of(path), (*DELIMITERS, *JSON_LINES, JSON_DOCUMENT)
    if kind in known or kind == path.suffix.lower() == ".parquet":
        return kind
    raise UserError(
        f"{path}: '{path.suffix}' is no known ending. Known are {', '.join(known)}, also .gz or .zst, and .parquet."
    )


def delimited_header(
    path: Path, delimiters: tuple[str, ...], required: tuple[Required, ...]
) -> tuple[int, str, list[str]]:
    """Number of title lines above the header, what stands between its column names, and these.

    The header is the first record with all required columns, by one of the delimiters, or else the first record by the
    usual one. A nameless column (an exported index) gets a name.
    """
    headers = (
        (line, delimiter, [name.strip().lower() or f"column_{at}" for at, name in enumerate(record, 1)])
        for delimiter in delimiters
        for line, record in enumerate(first_records(path, delimiter, TITLE_LINES + 1) or [[]])
    )
    first = next(headers)
    fitting = (own for own in chain([first], headers) if not lacking(own[2], required))
    line, delimiter, header = next(fitting, first)
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise UserError(
            f"{path}: the header names {', '.join(twice)} more than once. Rename or remove the extra columns."
        )
    return line, delimiter, header


def first_records(path: Path, delimiter: str, most: int) -> list[list[str]]:
    """The fields of the file's first records, at `most` so many. Raises UserError where it is in UTF-16."""
    refuse_utf_16(path)
    return list(islice(records(path, delimiter), most))


def records(path: Path, delimiter: str) -> Iterator[list[str]]:
    csv.field_size_limit(MAX_ROW_BYTES)
    with TextIOWrapper(stream_of(path), encoding="utf-8-sig", errors="replace", newline="") as file:
        yield from csv.reader(file, delimiter=delimiter)


def has_rows(connection: duckdb.DuckDBPyConnection, file_index: int) -> bool:
    rows = connection.execute("FROM source_rows WHERE file_index = $file_index LIMIT 1", {"file_index": file_index})
    return rows.fetchone() is not None


def require_no_row(path: Path, delimiter: str, header_rows: int) -> None:
    """Raises UserError where there is a row below the header of a file in which DuckDB finds none: it takes all to end
    as the first line does."""
    try:
        found = any(any(map(str.strip, record)) for record in islice(records(path, delimiter), header_rows, None))
    except csv.Error:  # of a field that is too long, as a row is that has one
        found = True
    if found:
        raise UserError(
            f"{path}: the header, or a title line above it, ends otherwise than the rows (CR LF, LF or CR), so that no "
            "row can be told. A line break within a column's name does that: take it out, or save the file anew."
        )


def refuse_utf_16(path: Path) -> None:
    with stream_of(path) as stream:
        start = stream.read(len(codecs.BOM_UTF16))
    if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        raise UserError(f"{path} is encoded in UTF-16, not UTF-8. Save it as 'CSV UTF-8', or convert it by iconv.")


def json_keys(connection: duckdb.DuckDBPyConnection, file_index: int) -> list[str]:
    keys = connection.execute(
        "SELECT DISTINCT unnest(json_keys(raw_row)) AS key FROM source_rows"
        " WHERE file_index = $file_index AND problem IS NULL ORDER BY key",
        {"file_index": file_index},
    )
    return [str(key) for (key,) in keys.fetchall()]


def lacking(found: list[str], required: tuple[Required, ...]) -> list[Required]:
    return [column for column in required if not set(column.names) & set(found)]


def require_columns(path: Path, found: list[str], required: tuple[Required, ...]) -> None:
    missing = lacking(found, required)
    if missing:
        near = sorted({name for column in missing for name in get_close_matches(column.names[0], found, 1)})
        hint = f" Is it {' or '.join(near)}?" if near else ""
        raise UserError(
            f"{path} lacks the column(s) {', '.join(map(str, missing))}. Found: {', '.join(found) or 'none'}.{hint} "
            "Rename the columns of the file, or `rlpf ingest` it with the --format it is in; generic takes a column "
            "map (--columns)."
        )
