"""JSON Lines read as a table of columns, for those who ask for a few of them (`files` keeps a row as it stands)."""

from __future__ import annotations

from collections.abc import Iterable
from glob import escape
from pathlib import Path
from textwrap import shorten

import duckdb

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.sources.refused import MAX_ROW_BYTES

READ_JSON_LINES = """read_json(
    $path, format = 'newline_delimited', sample_size = -1, map_inference_threshold = -1, field_appearance_threshold = 0,
    maximum_object_size = $max_row_bytes, hive_partitioning = false
)"""
"""A column a key, however many or rare, of the type that all rows have."""
FIND_KEYS_ALIKE = """
SELECT string_agg(key, ' and ' ORDER BY key) AS alike
FROM (
    SELECT DISTINCT unnest(json_keys(json)) AS key
    FROM read_json_objects($path, format = 'newline_delimited', maximum_object_size = $max_row_bytes)
)
GROUP BY translate(key, 'ABCDEFGHIJKLMNOPQRSTUVWXYZ', 'abcdefghijklmnopqrstuvwxyz')
HAVING count(*) > 1
ORDER BY alike
"""
FIND_NO_OBJECT = """
SELECT row, json::VARCHAR
FROM (
    SELECT row_number() OVER () AS row, json
    FROM read_json_objects($path, format = 'newline_delimited', maximum_object_size = $max_row_bytes)
)
WHERE json_type(json) IS DISTINCT FROM 'OBJECT' OR len(json_keys(json)) = 0
ORDER BY row
LIMIT 1
"""
TEXT_TYPES = ("VARCHAR", '"NULL"')
"""Types of a column of texts; the latter, where no row has one."""


def refuse_keys_alike(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Raises UserError where keys of JSON Lines differ in case alone: as columns DuckDB would empty all but one."""
    options = {"path": escape(str(path)), "max_row_bytes": MAX_ROW_BYTES}
    alike = [str(keys) for (keys,) in connection.execute(FIND_KEYS_ALIKE, options).fetchall()]
    if alike:
        raise UserError(
            f"{path} has keys that differ only in upper and lower case: {'; '.join(alike)}. Rename all but one of them."
        )


def refuse_no_objects(connection: duckdb.DuckDBPyConnection, path: Path, columns: Iterable[str]) -> None:
    """Raises UserError where rows of JSON Lines are no objects, or none has a key: `json` then is all that DuckDB finds
    of columns."""
    if list(columns) != ["json"]:
        return
    options = {"path": escape(str(path)), "max_row_bytes": MAX_ROW_BYTES}
    found = connection.execute(FIND_NO_OBJECT, options).fetchall()
    for row, json in found:
        raise UserError(
            f"{path}: row {row:,} is {shorten(json or 'null', 40)}. Each row of JSON Lines is an object with a key a "
            'column, such as {"text": "Fresh bread"}.'
        )
