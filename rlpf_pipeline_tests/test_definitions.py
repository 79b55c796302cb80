"""The definitions as the data team sees them, and what loading them costs."""

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlpf_pipeline.artifacts import Manifest, Recipe
from rlpf_pipeline.definitions import defs
from rlpf_pipeline.defs import steps
from rlpf_pipeline.defs.checks import raw_multitext_ads__rows_conserved, table_checks
from rlpf_pipeline.defs.resources import PipelineSettings
from rlpf_pipeline.defs.stages import STAGES
from rlpf_pipeline.digests import file_digest
from rlpf_pipeline.errors import UserError
from rlpf_pipeline.profiles import load_settings
from rlpf_pipeline.settings import MarketSettings

EXPECTED = """
data team:data raw_multitext_ads
data team:data variant_performance raw_multitext_ads
data team:data preference_pairs variant_performance
data team:data preference_snapshot preference_pairs
imitation team:ml curated_examples preference_snapshot
imitation team:ml imitation_v1 curated_examples
imitation team:ml imitation_v2 curated_examples
reward team:ml reward_model preference_snapshot
reward team:ml evaluation_reward_model preference_snapshot
reward team:ml pointwise_reward_model preference_snapshot
policy team:ml adllama evaluation_reward_model imitation_v2 preference_snapshot reward_model
evaluation team:ml imitation_evaluation curated_examples imitation_v1 imitation_v2
evaluation team:ml reward_model_evaluation evaluation_reward_model pointwise_reward_model preference_snapshot reward_model
evaluation team:ml policy_evaluation adllama evaluation_reward_model imitation_v2 preference_snapshot reward_model
experiment team:analytics ab_experiment policy_evaluation
experiment team:analytics ab_report ab_experiment
"""  # noqa: E501

specs = {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}


def test_assets_have_their_groups_owners_and_inputs() -> None:
    seen = {
        (spec.group_name, *spec.owners, name, *sorted(dep.asset_key.to_user_string() for dep in spec.deps))
        for name, spec in specs.items()
    }
    assert seen == {tuple(line.split()) for line in EXPECTED.strip().splitlines()}


@pytest.mark.parametrize("name", STAGES)
def test_asset_agrees_with_the_table_of_stages(name: str) -> None:
    spec, stage = specs[name], STAGES[name]
    assert spec.group_name == stage.group
    assert {dep.asset_key.to_user_string() for dep in spec.deps} == set(stage.inputs)


@pytest.mark.parametrize("name", STAGES)
def test_asset_says_what_it_is(name: str) -> None:
    spec = specs[name]
    assert spec.description
    assert spec.kinds
    assert spec.code_version


def test_tables_show_their_columns() -> None:
    schema = specs["preference_pairs"].metadata["dagster/column_schema"]
    assert isinstance(schema, dg.TableSchema)
    assert "p_left_better" in [column.name for column in schema.columns]


def test_no_step_waits_for_a_place_in_a_pool_which_a_killed_run_would_hold_for_ever() -> None:
    nodes = defs.resolve_job_def("rlpf_pipeline").nodes
    assert not any(node.definition.pools for node in nodes)


def test_a_run_of_the_ui_takes_a_step_at_a_time() -> None:
    executor = defs.resolve_job_def("rlpf_pipeline").executor_def
    assert executor.apply_config_mapping({"config": {}}).value["config"]["max_concurrent"] == 1


@pytest.mark.parametrize(("read", "passes"), [(3, True), (4, False)])
def test_rows_lost_in_ingest_fail_a_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: int, passes: bool
) -> None:
    monkeypatch.setenv("RLPF_HOME", str(tmp_path))
    folder = tmp_path / "tiny" / "raw"
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"text": ["a", "b"]}), folder / "multitext_ads.parquet")
    pq.write_table(pa.table({"reason": ["no text"]}), folder / "rejects.parquet")
    files = {"rejects.parquet": file_digest(folder / "rejects.parquet")}
    manifest = Manifest(recipe=Recipe(stage="raw_multitext_ads"), files=files, metrics={"read": read})
    (folder / "manifest.json").write_text(manifest.model_dump_json())
    result = raw_multitext_ads__rows_conserved(PipelineSettings(profile="tiny"))
    assert result.passed is passes
    (folder / "rejects.parquet").unlink()
    with pytest.raises(UserError, match=r"rejects\.parquet is missing"):
        raw_multitext_ads__rows_conserved(PipelineSettings(profile="tiny"))


def test_checks_of_what_was_never_made_or_is_gone_say_so_and_leave_no_warehouse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLPF_HOME", str(tmp_path))
    made = [dg.asset(lambda: None, name="preference_pairs"), table_checks("preference_pairs")]
    with pytest.raises(UserError, match="Materialise it first"):
        dg.materialize(made, resources={"pipeline": PipelineSettings(profile="tiny")})
    assert not (tmp_path / "tiny" / "warehouse.duckdb").exists()
    (tmp_path / "tiny" / "warehouse" / "preference_pairs").mkdir(parents=True)
    manifest = tmp_path / "tiny" / "warehouse" / "preference_pairs" / "manifest.json"
    manifest.write_text(Manifest(recipe=Recipe(stage="preference_pairs")).model_dump_json())  # its warehouse is gone
    with pytest.raises(UserError, match="Materialise it first"):
        dg.materialize(made, resources={"pipeline": PipelineSettings(profile="tiny")})
    assert not (tmp_path / "tiny" / "warehouse.duckdb").exists()


def test_checks_of_rows_whose_file_is_gone_name_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLPF_HOME", str(tmp_path))
    settings = load_settings("tiny").model_copy(update={"market": MarketSettings(advertisers=9)})
    steps.raw_multitext_ads(settings)
    steps.variant_performance(settings)
    (tmp_path / "tiny" / "raw" / "multitext_ads.parquet").unlink()
    made = [dg.asset(lambda: None, name="variant_performance"), table_checks("variant_performance")]
    with pytest.raises(UserError, match=r"multitext_ads\.parquet is missing.*make it again"):
        dg.materialize(made, resources={"pipeline": PipelineSettings(profile="tiny")})


def test_checks_of_a_table_beside_which_other_rows_were_ingested_say_so_and_find_no_rows_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLPF_HOME", str(tmp_path))
    first, second = (
        load_settings("tiny").model_copy(update={"market": MarketSettings(advertisers=advertisers)})
        for advertisers in (9, 12)
    )
    steps.raw_multitext_ads(first)
    steps.variant_performance(first)
    steps.raw_multitext_ads(second)
    made = [dg.asset(lambda: None, name="variant_performance"), table_checks("variant_performance")]
    with pytest.raises(UserError, match="made from another raw_multitext_ads than is there now"):
        dg.materialize(made, resources={"pipeline": PipelineSettings(profile="tiny")})


def test_every_sql_check_is_a_blocking_asset_check() -> None:
    from rlpf_pipeline.warehouse import SQL

    graph = defs.resolve_asset_graph()
    checks = {key.name: graph.get_check_spec(key) for key in graph.asset_check_keys}
    in_sql = {path.stem for path in (SQL / "checks").glob("*.sql")}
    assert set(checks) == in_sql | {"raw_multitext_ads__rows_conserved"}
    assert all(spec.blocking and spec.description for spec in checks.values())


def test_the_schedule_waits_to_be_started() -> None:
    schedule = defs.resolve_schedule_def("weekly_retraining")
    assert schedule.default_status is dg.DefaultScheduleStatus.STOPPED
    assert schedule.job_name == "rlpf_pipeline"


def test_loading_the_definitions_imports_nothing_heavy() -> None:
    heavy = ("torch", "transformers", "trl", "mlflow", "duckdb", "pandas")
    code = f"import sys, rlpf_pipeline.definitions; print([m for m in {heavy} if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
