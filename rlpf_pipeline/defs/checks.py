"""The rules in `sql/checks/` and the count of ingested rows, as asset checks.

All block: training on rows that break one would be wrong.
"""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

import dagster as dg

from rlpf_pipeline.artifacts import explained
from rlpf_pipeline.defs.building import alone, alone_with_warehouse
from rlpf_pipeline.defs.resources import PipelineSettings
from rlpf_pipeline.defs.stages import folder_of, manifest_of, require_made_from_what_is_there
from rlpf_pipeline.package import SQL

if TYPE_CHECKING:
    from rlpf_pipeline.warehouse import CheckResult

ASSET_OF_TABLE = {
    "raw_multitext_ads": "variant_performance",
    "splits": "variant_performance",
    "variants": "variant_performance",
    "pairs": "preference_pairs",
}
"""The asset that a table's checks belong to: the one whose materialisation puts the table into the warehouse."""


def table_checks(asset: str) -> dg.AssetChecksDefinition:
    """One step that opens the warehouse once and runs all checks of the asset's tables."""
    names = {
        path.stem: path
        for path in sorted((SQL / "checks").glob("*.sql"))
        if ASSET_OF_TABLE[path.stem.split("__")[0]] == asset
    }
    specs = [
        dg.AssetCheckSpec(name, asset=asset, blocking=True, description=header(path.read_text(encoding="utf-8")))
        for name, path in names.items()
    ]

    @dg.multi_asset_check(name=f"check_{asset}", specs=specs, can_subset=True)
    def run_checks(context: dg.AssetCheckExecutionContext, pipeline: PipelineSettings) -> Iterator[dg.AssetCheckResult]:
        from rlpf_pipeline.warehouse import Warehouse

        settings = pipeline.load()
        selected = sorted(key.name for key in context.selected_asset_check_keys)
        raw = folder_of("raw_multitext_ads", settings)  # a view shows it: no ingest may replace it meanwhile
        with alone(raw) if asset == "variant_performance" else nullcontext(), alone_with_warehouse(settings) as path:
            require_made_from_what_is_there(asset, settings)
            with explained(settings.home, (raw,)), Warehouse(path) as warehouse:
                for name in selected:
                    yield result_of(warehouse.check(name), name, asset)

    return run_checks


def result_of(check: "CheckResult", name: str, asset: str) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=name,
        asset_key=asset,
        passed=check.failing == 0,
        metadata={"offending_rows": check.failing, "sample": dg.MetadataValue.text(str(check.sample))},
    )


@dg.asset_check(asset="raw_multitext_ads", blocking=True)
def raw_multitext_ads__rows_conserved(pipeline: PipelineSettings) -> dg.AssetCheckResult:
    """Every row read from the files is in multitext_ads.parquet or in rejects.parquet, once."""
    import pyarrow.parquet as pq

    from rlpf_pipeline.sources.ingest import ACCEPTED_FILE, REJECTS_FILE

    settings = pipeline.load()
    with alone(folder_of("raw_multitext_ads", settings)) as folder, explained(settings.home, (folder,)):
        read = manifest_of("raw_multitext_ads", settings).metrics["read"]
        accepted, rejected = (pq.read_metadata(folder / file).num_rows for file in (ACCEPTED_FILE, REJECTS_FILE))
    return dg.AssetCheckResult(
        passed=read == accepted + rejected, metadata={"read": read, "accepted": accepted, "rejected": rejected}
    )


def header(sql: str) -> str:
    """The comment on top of a check, which says what offends."""
    lines = [line.removeprefix("--").strip() for line in sql.splitlines() if line.startswith("--")]
    return " ".join(lines)


def all_checks() -> Sequence[dg.AssetChecksDefinition]:
    of_tables = [table_checks(asset) for asset in dict.fromkeys(ASSET_OF_TABLE.values())]
    return [raw_multitext_ads__rows_conserved, *of_tables]
