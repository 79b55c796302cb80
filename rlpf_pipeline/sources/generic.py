"""Generic multitext ads: CSV, TSV, JSON or Parquet whose columns are named like the raw table's, or by a column map.

Required: ad_id, text, impressions, clicks. Optional: variant_id, advertiser_id, context, period, source. Others are
ignored. What the columns mean is in `rlpf_pipeline.contracts.RAW_MULTITEXT_ADS`. A column map is a YAML file of lines
`field: column of the file`:

    text: headline
    impressions: shown
"""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import ValidationError

from rlpf_pipeline.contracts import RAW_MULTITEXT_ADS
from rlpf_pipeline.errors import UserError
from rlpf_pipeline.settings import IngestSettings, faults_of
from rlpf_pipeline.sources.files import Required
from rlpf_pipeline.sources.source_format import SourceFormat, one_of
from rlpf_pipeline.yaml_files import loaded

REQUIRED = ("ad_id", "text", "impressions", "clicks")


def required(settings: IngestSettings) -> tuple[Required, ...]:
    """The required fields and every mapped one, under the file's name for it (CSV headers are read in lower case)."""
    columns = {**{field: field for field in REQUIRED}, **settings.columns}
    return tuple(one_of(*dict.fromkeys((column, column.lower()))) for column in columns.values())


def parameters(settings: IngestSettings) -> dict[str, object]:
    columns = [settings.columns.get(field, field) for field in RAW_MULTITEXT_ADS.column_names]
    lower = [column.lower() for column in columns]
    return {"keys": [pointer(column) for column in (columns if columns == lower else columns + lower)]}


def pointer(key: str) -> str:
    """JSON pointer (RFC 6901) to `key`, which may itself look like a path, such as $spent or /day."""
    return "/" + key.replace("~", "~0").replace("/", "~1")


def read_column_map(path: Path) -> dict[str, str]:
    """The column map of a YAML file. Raises UserError where it is none, or names a field that does not exist."""
    try:
        columns = loaded(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"The column map {path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(columns, dict) or not all(isinstance(part, str) for pair in columns.items() for part in pair):
        raise UserError(f"The column map {path} must hold lines `field: column`, such as `text: headline`.")
    try:
        return IngestSettings(columns=columns).columns
    except ValidationError as error:
        raise UserError(f"The column map {path} cannot be used: {faults_of(error)}.") from error


GENERIC = SourceFormat("generic", "staging/stg_generic", required, parameters)
