"""What `ingest` needs to know of a format: the columns a file must have, and the SELECT that gives them meaning."""

from __future__ import annotations

from typing import NamedTuple


class SourceFormat(NamedTuple):
    """`staging` names the SELECT in `sql/` from `source_rows` (raw_row: the row as JSON) to the raw table's columns."""

    name: str
    required_columns: tuple[str, ...]
    staging: str
