"""A stage is built once, whole or not at all; what is no fault of its own is explained."""

import errno
import os
from pathlib import Path

import dagster as dg
import pytest

from rlpf_pipeline.artifacts import publish
from rlpf_pipeline.defs.building import build, build_table
from rlpf_pipeline.defs.resources import TrainingLauncher
from rlpf_pipeline.defs.stages import folder_of, manifest_of, recipe_of
from rlpf_pipeline.defs.steps import variant_performance
from rlpf_pipeline.errors import UserError
from rlpf_pipeline.settings import Settings


def test_a_stage_is_built_once(settings: Settings) -> None:
    def work(folder: Path) -> dict[str, int]:
        (folder / "a.txt").write_text("a")
        return {"rows": 1}

    def fails(folder: Path) -> dict[str, int]:
        raise AssertionError("built twice")

    first, second = build("raw_multitext_ads", settings, work), build("raw_multitext_ads", settings, fails)
    assert (first.reused, second.reused) == (False, True)
    assert second.manifest.metrics == {"rows": 1}


def test_what_a_killed_process_was_building_goes_also_where_nothing_is_built_anew(everything_built: Settings) -> None:
    """An ingest that was killed may have spilled more to the disk than the raw table has."""
    left = folder_of("raw_multitext_ads", everything_built).with_name(".raw.building")
    left.mkdir()
    (left / "spilled").write_text("rows")
    build("raw_multitext_ads", everything_built, lambda _: {"rows": 1})
    assert not left.exists()
    left.mkdir()
    everything_built.warehouse.touch()
    assert variant_performance(everything_built).reused
    assert not left.exists()


def test_what_a_killed_job_of_other_settings_was_building_goes_once_they_are_edited_back(
    everything_built: Settings,
) -> None:
    left = folder_of("adllama", everything_built).with_name(".adllama.building")
    left.mkdir(parents=True)
    assert TrainingLauncher().build(dg.build_asset_context(), everything_built, "adllama").reused
    assert not left.exists()


def test_what_a_killed_process_had_replaced_goes_where_its_successor_is_complete(everything_built: Settings) -> None:
    """A kill before the former content was removed left it for good: nothing is published there again."""
    former = folder_of("raw_multitext_ads", everything_built).with_name(".raw.former")
    former.mkdir()
    build("raw_multitext_ads", everything_built, lambda _: {"rows": 1})
    assert not former.exists()


def test_what_a_killed_process_had_replaced_stays_until_there_is_a_successor(settings: Settings) -> None:
    def work(folder: Path) -> dict[str, int]:
        (folder / "a.txt").write_text("a")
        return {"rows": 1}

    def fails(folder: Path) -> dict[str, int]:
        raise RuntimeError("half way")

    folder = build("raw_multitext_ads", settings, work).folder
    folder.rename(folder.with_name(".raw.former"))
    with pytest.raises(RuntimeError, match="half way"):
        build("raw_multitext_ads", settings, fails)
    assert manifest_of("raw_multitext_ads", settings).metrics == {"rows": 1}


def test_while_a_table_is_built_it_has_no_manifest_and_a_failure_brings_the_former_back(
    everything_built: Settings,
) -> None:
    everything_built.warehouse.touch()
    former = '{"recipe": {"stage": "of other settings"}}'
    manifest = folder_of("variant_performance", everything_built) / "manifest.json"
    manifest.write_text(former)

    def fails() -> dict[str, int]:
        with pytest.raises(UserError, match="no variant_performance"):
            manifest_of("variant_performance", everything_built)
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        build_table("variant_performance", everything_built, fails)
    assert manifest.read_text() == former
    assert not build_table("variant_performance", everything_built, dict).reused


@pytest.mark.parametrize("kind", [OSError, UserError])
def test_a_full_disk_is_explained_whoever_says_it(everything_built: Settings, kind: type[Exception]) -> None:
    """Reading a source says "cannot be read" of any error on its way, this one too."""

    def fail(building: Path) -> dict[str, int]:
        raise kind(f"ads.csv cannot be read: {os.strerror(errno.ENOSPC)}")

    with pytest.raises(UserError, match=r"disk of .* is full"):
        build("reward_model", everything_built.model_copy(update={"seed": 99}), fail)


def test_a_home_of_another_account_is_told_with_what_to_do_and_a_file_of_the_user_s_is_not(
    everything_built: Settings, tmp_path_factory: pytest.TempPathFactory
) -> None:
    settings, said = everything_built.model_copy(update={"seed": 99}), os.strerror(errno.EACCES)
    own = tmp_path_factory.mktemp("elsewhere") / "july.csv"

    def fail(place: Path) -> dict[str, int]:
        raise PermissionError(errno.EACCES, said, str(place))

    with pytest.raises(UserError, match=rf"may not use .*\.building\. Give it .* all of {settings.instance} "):
        build("reward_model", settings, fail)
    with pytest.raises(PermissionError, match=rf"{said}: '{own}'$"):
        build("reward_model", settings, lambda _: fail(own))


def test_a_failure_is_the_input_s_where_that_is_not_what_was_written(everything_built: Settings) -> None:
    """A library says what it could not read; only the manifest knows that the file was another one."""
    settings = everything_built
    snapshot = folder_of("preference_snapshot", settings)
    with publish(snapshot, recipe_of("preference_snapshot", settings)) as (building, _):
        (building / "pairs.parquet").write_bytes(b"PAR1 rows PAR1")

    def fail(building: Path) -> dict[str, int]:
        raise ValueError("no magic bytes")

    with pytest.raises(ValueError, match="no magic bytes"):
        build("reward_model", settings, fail)
    (snapshot / "pairs.parquet").write_bytes(b"PAR1 ro")
    with pytest.raises(UserError, match=r"pairs\.parquet is not what was written"):
        build("reward_model", settings, fail)
    (snapshot / "pairs.parquet").unlink()
    with pytest.raises(UserError, match=r"pairs\.parquet is missing"):
        build("reward_model", settings, fail)


def test_without_the_warehouse_file_every_table_is_built_again(everything_built: Settings) -> None:
    outcome = build_table("variant_performance", everything_built, lambda: {"variants": 3})
    assert not outcome.reused
    assert not folder_of("preference_pairs", everything_built).exists()
