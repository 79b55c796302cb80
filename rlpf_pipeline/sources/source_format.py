"""What `ingest` needs to know of a format: the columns a file must have, and the SELECT that reads meaning into them."""

from __future__ import annotations

from typing import NamedTuple


class SourceFormat(NamedTuple):
    """`staging` names a SELECT in `sql/` from `source_rows` (raw_row: the row as JSON) to the columns of the raw table."""

    name: str
    required_columns: tuple[str, ...]
    staging: str
