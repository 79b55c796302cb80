"""Reading a user's file into `source_rows` as it stands: a row is JSON text, or a problem where it cannot be parsed.

Parsing is DuckDB's; no row passes through Python. What a row means is decided later, in `sql/staging/`.
"""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import duckdb

from rlpf_pipeline.errors import UserError

DELIMITERS = {".csv": ",", ".tsv": "\t"}
JSON_LINES = (".jsonl", ".ndjson")
MAX_ROW_BYTES = 16 * 2**20

CREATE_SOURCE_ROWS = """
CREATE TABLE source_rows (
    file_index BIGINT, source_file VARCHAR, position BIGINT, row_number BIGINT, raw_row VARCHAR, problem VARCHAR
)
"""

# One row of `reject_errors` per fault; `line` counts records from 1, the header included, a quoted line break excluded.
# A refused record is missing from the scan, so a good row's position is its rank plus the refused records before it.
# `line` counts blank lines, the scan does not: in a file with both, positions still order the rows, but are no numbers.
ADD_SCANNED_ROWS = """
INSERT INTO source_rows
WITH refused AS (
    SELECT
        line - $header_rows AS position,
        trim(min(csv_line), E'\\r\\n') AS raw_row,
        CASE arg_min(error_type::VARCHAR, column_idx)
            WHEN 'INVALID ENCODING' THEN 'not valid UTF-8'
            WHEN 'TOO MANY COLUMNS' THEN 'malformed row: more fields than the header'
            WHEN 'MISSING COLUMNS' THEN 'malformed row: fewer fields than the header'
            WHEN 'UNQUOTED VALUE' THEN 'malformed row: a quote is not closed or not doubled'
            ELSE 'malformed row: ' || min(error_message)
        END AS problem
    FROM reject_errors
    GROUP BY line
),
good AS (SELECT row_number() OVER () AS rank, raw_row FROM scanned),
gaps AS (
    SELECT position - refused AS good_before, refused
    FROM (SELECT position, row_number() OVER (ORDER BY position) AS refused FROM refused)
),
refused_before AS (SELECT good_before, max(refused) AS refused FROM gaps GROUP BY good_before),
placed AS (
    SELECT good.rank + coalesce(refused_before.refused, 0) AS position, good.raw_row, NULL AS problem
    FROM good ASOF LEFT JOIN refused_before ON good.rank > refused_before.good_before
    UNION ALL
    SELECT position, raw_row, problem FROM refused
)
SELECT $file_index, $source_file, position, CASE WHEN $numbered THEN position END, raw_row, problem FROM placed
"""

SCAN_DELIMITED = """
CREATE TEMP TABLE scanned AS
SELECT to_json(row)::VARCHAR AS raw_row
FROM read_csv(
    $path, columns = $columns, delim = $delimiter, quote = '"', escape = '"', header = true, auto_detect = false,
    nullstr = '', null_padding = false, strict_mode = true, store_rejects = true, max_line_size = $max_row_bytes
) AS row
"""

# The unit separator is no legal character of a JSON line, so the line stays one field.
SCAN_LINES = """
CREATE TEMP TABLE scanned AS
SELECT line AS raw_row
FROM read_csv(
    $path, columns = {'line': 'VARCHAR'}, delim = chr(31), quote = '', escape = '', header = false, auto_detect = false,
    strict_mode = true, store_rejects = true, max_line_size = $max_row_bytes
)
"""

DROP_BLANK_LINES = """
DELETE FROM source_rows
WHERE file_index = $file_index AND problem IS NULL AND trim(coalesce(raw_row, ''), E' \\t\\r') = ''
"""

FLAG_INVALID_JSON = """
UPDATE source_rows SET problem = 'not a JSON object'
WHERE
    file_index = $file_index
    AND problem IS NULL
    AND CASE WHEN json_valid(raw_row) THEN json_type(raw_row) <> 'OBJECT' ELSE true END
"""

SCAN_PARQUET = "CREATE TEMP TABLE scanned AS SELECT to_json(row)::VARCHAR AS raw_row FROM read_parquet($path) AS row"


FIND_BLANK_LINE = """
SELECT 1
FROM read_csv(
    $path, columns = {'line': 'VARCHAR'}, delim = chr(31), quote = '', escape = '', header = false, auto_detect = false,
    ignore_errors = true
)
WHERE coalesce(trim(line), '') = ''
LIMIT 1
"""

EMPTY_REJECT_ERRORS = """
CREATE TEMP TABLE IF NOT EXISTS reject_errors (
    line UBIGINT, column_idx UBIGINT, csv_line VARCHAR, error_type VARCHAR, error_message VARCHAR
)
"""


def read_file(connection: duckdb.DuckDBPyConnection, path: Path, file_index: int, required: tuple[str, ...]) -> None:
    """Append the rows of `path` (.csv .tsv .jsonl .ndjson, also .gz; .parquet) to `source_rows`.

    Raises UserError for a fault of the whole file: missing, a folder, empty, of an unknown kind, truncated, or without
    a required column.
    """
    kind = file_kind(path)
    try:
        if kind in DELIMITERS:
            header = delimited_header(path, DELIMITERS[kind])
            require_columns(path, header, required)
            options = {"columns": dict.fromkeys(header, "VARCHAR"), "delimiter": DELIMITERS[kind]}
            connection.execute(SCAN_DELIMITED, {"path": str(path), "max_row_bytes": MAX_ROW_BYTES, **options})
        elif kind in JSON_LINES:
            connection.execute(SCAN_LINES, {"path": str(path), "max_row_bytes": MAX_ROW_BYTES})
        else:
            described = connection.execute("DESCRIBE FROM read_parquet($path)", {"path": str(path)}).fetchall()
            require_columns(path, [str(name) for name, *_ in described], required)
            connection.execute(SCAN_PARQUET, {"path": str(path)})
    except (duckdb.Error, OSError, EOFError, csv.Error) as error:
        raise UserError(
            f"{path} cannot be read: {str(error).splitlines()[0]} Check that the file is complete, that its ending "
            "says what it is, and that all its lines end alike."
        ) from error
    append_scanned(connection, path, file_index, kind)
    if kind in JSON_LINES:
        connection.execute(DROP_BLANK_LINES, {"file_index": file_index})
        connection.execute(FLAG_INVALID_JSON, {"file_index": file_index})
        require_columns(path, json_keys(connection, file_index), required)


def append_scanned(connection: duckdb.DuckDBPyConnection, path: Path, file_index: int, kind: str) -> None:
    connection.execute(EMPTY_REJECT_ERRORS)
    delimited = kind in DELIMITERS
    refused = connection.execute("SELECT 1 FROM reject_errors LIMIT 1").fetchone() is not None
    blank = delimited and refused and connection.execute(FIND_BLANK_LINE, {"path": str(path)}).fetchone() is not None
    connection.execute(
        ADD_SCANNED_ROWS,
        {"file_index": file_index, "source_file": str(path), "header_rows": int(delimited), "numbered": not blank},
    )
    for table in ("scanned", "reject_errors", "reject_scans"):
        connection.execute(f"DROP TABLE IF EXISTS {table}")


def file_kind(path: Path) -> str:
    """Ending of the file's name without .gz; raises UserError where there is nothing to read."""
    if path.is_dir():
        raise UserError(f"{path} is a folder. Name the files in it, one by one or with a wildcard.")
    if not path.is_file():
        raise UserError(f"{path} does not exist. Check the path; it is looked up from {Path.cwd()}.")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty. Export it again with a header and at least one row.")
    name = path.name.lower()
    kind = Path(name.removesuffix(".gz")).suffix
    known = (*DELIMITERS, *JSON_LINES)
    if kind in known or (kind == ".parquet" and not name.endswith(".gz")):
        return kind
    raise UserError(
        f"{path}: '{path.suffix}' is no known ending. Known are {', '.join(known)}, each also .gz, and .parquet."
    )


def delimited_header(path: Path, delimiter: str) -> list[str]:
    """Column names of the first record; a nameless column (an exported index) gets one."""
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8-sig", errors="replace", newline="") as file:
        names = next(csv.reader(file, delimiter=delimiter), [])
    header = [name.strip().lower() or f"column_{position}" for position, name in enumerate(names, start=1)]
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise UserError(
            f"{path}: the header names {', '.join(twice)} more than once. Rename or remove the extra columns."
        )
    return header


def json_keys(connection: duckdb.DuckDBPyConnection, file_index: int) -> list[str]:
    keys = connection.execute(
        "SELECT DISTINCT unnest(json_keys(raw_row)) AS key FROM source_rows"
        " WHERE file_index = $file_index AND problem IS NULL ORDER BY key",
        {"file_index": file_index},
    )
    return [str(key) for (key,) in keys.fetchall()]


def require_columns(path: Path, found: list[str], required: tuple[str, ...]) -> None:
    missing = [name for name in required if name not in found]
    if missing:
        raise UserError(
            f"{path} lacks the column(s) {', '.join(missing)}. Found: {', '.join(found) or 'none'}. Rename the columns "
            "of the file, or choose the format it is in."
        )
