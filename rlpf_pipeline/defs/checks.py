"""The rules in `sql/checks/` as asset checks. All block: training on rows that break one would be wrong."""

from collections.abc import Iterator, Sequence

import dagster as dg

from rlpf_pipeline.defs.metadata import SQL
from rlpf_pipeline.defs.resources import PipelineSettings

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
        dg.AssetCheckSpec(name, asset=asset, blocking=True, description=header(path.read_text()))
        for name, path in names.items()
    ]

    @dg.multi_asset_check(name=f"check_{asset}", specs=specs, can_subset=True, pool="duckdb")
    def run_checks(context: dg.AssetCheckExecutionContext, pipeline: PipelineSettings) -> Iterator[dg.AssetCheckResult]:
        from rlpf_pipeline.warehouse import Warehouse

        selected = sorted(key.name for key in context.selected_asset_check_keys)
        with Warehouse(pipeline.load().warehouse) as warehouse:
            for name in selected:
                result = warehouse.check(name)
                yield dg.AssetCheckResult(
                    check_name=name,
                    asset_key=asset,
                    passed=result.failing == 0,
                    metadata={"offending_rows": result.failing, "sample": dg.MetadataValue.text(str(result.sample))},
                )

    return run_checks


def header(sql: str) -> str:
    """The comment on top of a check, which says what offends."""
    lines = [line.removeprefix("--").strip() for line in sql.splitlines() if line.startswith("--")]
    return " ".join(lines)


def all_checks() -> Sequence[dg.AssetChecksDefinition]:
    return [table_checks(asset) for asset in dict.fromkeys(ASSET_OF_TABLE.values())]
