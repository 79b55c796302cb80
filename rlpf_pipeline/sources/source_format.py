"""What `ingest` needs to know of a format: the columns a file must have, and the SELECT that gives them meaning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from rlpf_pipeline.settings import IngestSettings
from rlpf_pipeline.sources.files import Required


class SourceFormat(NamedTuple):
    """`staging` names the SELECT in `sql/` from `source_rows` (raw_row: the row as JSON) to the raw table's columns.

    required: columns that a file must have, given the settings. parameters: values of the SELECT's $names.
    """

    name: str
    staging: str
    required: Callable[[IngestSettings], tuple[Required, ...]]
    parameters: Callable[[IngestSettings], Mapping[str, object]] = lambda settings: {}


def one_of(*names: str) -> Required:
    return Required(names)
