"""Records that DuckDB's parser refuses: why, and what stands in the file. They alone pass through Python.

`reject_errors` has a row per fault, with the line that DuckDB takes it for. Where a quote is out of place that is the
record before, or a piece of the fault's own, and invalid bytes take their neighbours with them. So a record's text is
read from the file again; the faults say only where.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from io import BufferedReader
from itertools import islice
from pathlib import Path

import duckdb
import pyarrow as pa

MAX_ROW_BYTES = 16 * 2**20
SKIPPED_AT_ONCE = 2**20
ROWS_AT_ONCE = 10_000
LINE_BREAK = re.compile(rb"[\r\n]")
TO_CLOSING_QUOTE = re.compile(rb'"(?:[^"]++|"")*+')

EMPTY_REJECT_ERRORS = """
CREATE TEMP TABLE IF NOT EXISTS reject_errors (
    line UBIGINT, line_byte_position UBIGINT, byte_position UBIGINT, column_idx UBIGINT, csv_line VARCHAR,
    error_type VARCHAR, error_message VARCHAR
)
"""

# `line` counts records from 1, the header included, a quoted line break excluded; positions count bytes from 1. A fault
# is at its field, except that fields are missing at the end of a record. A line that ends before its fault is the
# record before. first_byte (or a line break there) and the end of last_byte's line bound the record, counted from 0.
# Of a line longer than 10,000 bytes only these are told; open_quote is where a quote opens that is not closed in one.
FIND_REFUSED = """
CREATE TEMP TABLE refused_spans AS
SELECT
    line,
    min(CASE WHEN fault > line_end AND NOT cut THEN line_end ELSE line_byte_position END)::BIGINT - 1 AS first_byte,
    max(greatest(line_end, byte_position))::BIGINT - 1 AS last_byte,
    max(byte_position) FILTER (cut AND error_type::VARCHAR = 'UNQUOTED VALUE')::BIGINT - 1 AS open_quote,
    CASE min({'column': column_idx, 'type': error_type::VARCHAR}).type  -- the first column's; of several, by name
        WHEN 'INVALID ENCODING' THEN 'not valid UTF-8'
        WHEN 'TOO MANY COLUMNS' THEN 'malformed row: more fields than the header'
        WHEN 'MISSING COLUMNS' THEN 'malformed row: fewer fields than the header'
        WHEN 'UNQUOTED VALUE' THEN 'malformed row: a quote is not closed or not doubled'
        ELSE 'malformed row: ' || min(error_message)
    END AS problem
FROM (
    SELECT
        *,
        line_byte_position + strlen(csv_line) AS line_end,
        strlen(csv_line) > 9996 AS cut,  -- in front of a character of up to four bytes
        CASE WHEN error_type::VARCHAR = 'MISSING COLUMNS' THEN line_byte_position ELSE byte_position END AS fault
    FROM reject_errors
)
GROUP BY line
"""

CREATE_REFUSED = "CREATE TEMP TABLE refused (line BIGINT, raw_row VARCHAR, problem VARCHAR)"

# A quote that is not closed takes the lines after it along, up to the next one: without a word of it they are missed.
ADD_REFUSED = """
INSERT INTO refused
SELECT
    line,
    raw_row,
    problem || CASE WHEN line_breaks = 0 THEN ''
        ELSE format('; lines {} to {} of the file: if these are several rows, mend the quotes and ingest again',
            first_line, first_line + line_breaks) END
FROM (SELECT *, length(raw_row) - length(replace(raw_row, chr(10), '')) AS line_breaks FROM texts)
INNER JOIN refused_spans USING (line)
"""


def collect_refused(connection: duckdb.DuckDBPyConnection, path: Path) -> int:
    """Make the table `refused` (line, raw_row, problem) of the last scan, which read `path`; returns its rows."""
    for statement in (EMPTY_REJECT_ERRORS, FIND_REFUSED, CREATE_REFUSED):
        connection.execute(statement)
    spans = connection.execute(
        "SELECT first_byte, last_byte, open_quote, line FROM refused_spans ORDER BY first_byte, last_byte"
    ).fetchall()
    texts = texts_at(path, ((first, last, quote) for first, last, quote, _ in spans))
    for at in range(0, len(spans), ROWS_AT_ONCE):
        lines = [line for *_, line in spans[at : at + ROWS_AT_ONCE]]
        first_lines, raw_rows = zip(*islice(texts, len(lines)), strict=True)
        connection.register("texts", pa.table({"line": lines, "first_line": first_lines, "raw_row": raw_rows}))
        connection.execute(ADD_REFUSED)
        connection.unregister("texts")
    connection.execute("DROP TABLE refused_spans")
    return len(spans)


def stream_of(path: Path) -> pa.NativeFile:
    """The file's bytes, decompressed as its ending says, in capitals too."""
    return pa.input_stream(str(path), compression={".gz": "gzip", ".zst": "zstd"}.get(path.suffix.lower()))


def texts_at(path: Path, spans: Iterable[tuple[int, int, int | None]]) -> Iterator[tuple[int, str]]:
    """Number of the line (from 1) where each span begins, and what stands from its first byte to the end of the last
    one's line, or of the line where a quote that is open closes; spans come in order and may share a line."""
    with BufferedReader(stream_of(path)) as file:
        start, line, read = 0, 1, b""
        for first, last, open_quote in spans:
            position = start + len(read)
            line += read[: first - start].count(b"\n")
            while position < first:
                skipped = file.read(min(first - position, SKIPPED_AT_ONCE))
                position += len(skipped)
                line += skipped.count(b"\n")
            start, read = first, read[first - start :]
            if position <= last:
                read += file.read(last - position) + file.readline(MAX_ROW_BYTES)
            if open_quote is not None:
                read += file.read(MAX_ROW_BYTES)
                closing = TO_CLOSING_QUOTE.match(read, open_quote - first)
                last = max(last, first + closing.end()) if closing else last
            rest_of_line, *_ = LINE_BREAK.split(read[last - first :], maxsplit=1)
            yield line, (read[: last - first] + rest_of_line).strip(b"\r\n").decode(errors="replace")
