"""What an asset shows in the UI: column schemas, SQL, the manifest's figures, plots, the way to MLflow."""

from __future__ import annotations

import base64
import math
from pathlib import Path
from typing import Any

import dagster as dg

from rlpf_pipeline.artifacts import Metric, explained
from rlpf_pipeline.contracts import Column, Table
from rlpf_pipeline.defs.building import Outcome
from rlpf_pipeline.defs.tracking import Tracking
from rlpf_pipeline.package import SQL
from rlpf_pipeline.settings import Settings

Metadata = dict[str, Any]
"""By name, in any of the kinds that Dagster shows."""
IMAGE_TYPES = {".svg": "svg+xml", ".png": "png"}
TABLE_FILES = {
    "raw_multitext_ads": "multitext_ads.parquet",
    "curated_examples": "examples.parquet",
    "imitation_evaluation": "rewrites.parquet",
    "reward_model_evaluation": "scores.parquet",
    "policy_evaluation": "suggestions.parquet",
    "ab_experiment": "advertisers.parquet",
}


def described(table: Table) -> Metadata:
    """Column schema of a contract, as definition metadata."""
    return {"dagster/column_schema": dg.TableSchema(columns=[described_column(column) for column in table.columns])}


def described_column(column: Column) -> dg.TableColumn:
    unit = f" ({column.unit})" if column.unit else ""
    return dg.TableColumn(
        column.name,
        column.type,
        description=column.description + unit,
        constraints=dg.TableColumnConstraints(nullable=column.nullable),
    )


def lineage(name: str) -> Metadata:
    """The SELECT that makes a table, as definition metadata."""
    return {"sql": dg.MetadataValue.md(f"```sql\n{(SQL / f'{name}.sql').read_text(encoding='utf-8')}\n```")}


def result_of(outcome: Outcome, settings: Settings) -> dg.MaterializeResult:
    """The asset's materialisation: its data version is the manifest's digest. Raises UserError where a file that it
    shows is not what was written."""
    metadata: Metadata = {
        "profile": settings.profile,
        "reused": outcome.reused,
        "path": dg.MetadataValue.path(str(outcome.folder)),
    }
    metadata |= {name: shown(value) for name, value in outcome.manifest.metrics.items()}
    with explained(settings.home, (outcome.folder,)):
        metadata |= row_count(outcome) | pages_and_plots(outcome.folder)
    if outcome.stage.job:
        metadata |= tracked(outcome, settings)
    metadata["versions"] = dg.MetadataValue.json(outcome.manifest.versions)
    return dg.MaterializeResult(metadata=metadata, data_version=dg.DataVersion(outcome.manifest.digest))


def shown(value: Metric) -> Any:
    """Non-finite numbers as text: the UI cannot read them."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return dg.MetadataValue.text(str(value))
    return value


def row_count(outcome: Outcome) -> Metadata:
    """Rows of the stage's own table, from the Parquet file where it has one, else from its manifest."""
    import pyarrow.parquet as pq

    file = TABLE_FILES.get(outcome.stage.name)
    if file is not None:
        return {"dagster/row_count": pq.read_metadata(outcome.folder / file).num_rows}
    counted = {"variant_performance": "variants", "preference_pairs": "pairs"}.get(outcome.stage.name)
    return {"dagster/row_count": outcome.manifest.metrics[counted]} if counted else {}


def pages_and_plots(folder: Path) -> Metadata:
    pages = {page.stem: with_pictures(page) for page in sorted(folder.glob("*.md"))}
    plots = {image.stem: f"![{image.stem}]({embedded(image)})" for image in images_in(folder)}
    return {name: dg.MetadataValue.md(text) for name, text in (pages | plots).items()}


def images_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.suffix in IMAGE_TYPES)


def with_pictures(page: Path) -> str:
    """The page's text; the pictures beside it, which the UI does not find, stand in it."""
    text = page.read_text(encoding="utf-8")
    for image in images_in(page.parent):
        text = text.replace(f"]({image.name})", f"]({embedded(image)})")
    return text


def embedded(image: Path) -> str:
    """As a URL."""
    data = base64.b64encode(image.read_bytes()).decode()
    return f"data:image/{IMAGE_TYPES[image.suffix]};base64,{data}"


def tracked(outcome: Outcome, settings: Settings) -> Metadata:
    tracking = Tracking(settings)
    run = tracking.last(outcome.stage.name)
    if run is None:
        return {}
    return {
        "mlflow_run_id": run.run_id,
        "mlflow_run": dg.MetadataValue.url(run.url),
        "mlflow_ui": f"`{tracking.ui_command}` serves the link",
    }
