import shutil
import sqlite3
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import MagicMock, Mock

import dagster as dg
import pytest
from mlflow import MlflowClient
from sqlalchemy import make_url

from rlpf_pipeline.artifacts import publish
from rlpf_pipeline.defs import resources
from rlpf_pipeline.defs.launcher import run_folder
from rlpf_pipeline.defs.resources import TrainingLauncher
from rlpf_pipeline.defs.stages import folder_of, recipe_of
from rlpf_pipeline.defs.tracking import TrackedRun, Tracking
from rlpf_pipeline.errors import JobFailed, UserError
from rlpf_pipeline.profiles import load_settings
from rlpf_pipeline.settings import Settings


def test_the_store_is_where_the_home_is_whatever_its_name(tmp_path: Path) -> None:
    settings = load_settings("tiny", (), tmp_path / "50%20off? yes")
    store = settings.instance / "mlflow.db"
    assert make_url(settings.mlflow_uri).database == str(store)
    settings.instance.mkdir()
    Tracking(settings).start("reward_model", {})
    assert store.is_file()


def test_a_store_that_was_removed_does_not_hide_the_jobs_error(tmp_path: Path) -> None:
    settings = load_settings("tiny", (), tmp_path)
    tracking = Tracking(settings)
    failed, gone = tracking.start("reward_model", {}), tracking.start("adllama", {})
    assert failed
    assert gone
    tracking.fail(failed)
    assert MlflowClient(tracking_uri=settings.mlflow_uri).get_run(failed.run_id).info.status == "FAILED"
    (settings.instance / "mlflow.db").unlink()
    tracking.fail(gone)


@pytest.mark.parametrize("next_profile", ["tiny", "demo"])
def test_the_runs_of_killed_jobs_are_marked_by_the_next_job_and_no_run_of_another_hand(
    tmp_path: Path, next_profile: str
) -> None:
    settings = load_settings("tiny", (), tmp_path)
    client = MlflowClient(tracking_uri=settings.mlflow_uri)
    own, killed, next_one = (
        Tracking(load_settings(profile, (), tmp_path)).start(name, tags)
        for profile, name, tags in (
            ("tiny", "a notebook's", {}),
            ("tiny", "adllama", {"dagster.asset_key": "adllama"}),
            (next_profile, "reward_model", {"dagster.asset_key": "reward_model"}),
        )
    )
    assert killed
    assert own
    assert next_one
    status = {run.run_id: client.get_run(run.run_id).info.status for run in (own, killed, next_one)}
    assert list(status.values()) == ["RUNNING", "KILLED", "RUNNING"]


def test_a_deleted_experiment_is_restored(tmp_path: Path) -> None:
    settings = load_settings("tiny", (), tmp_path)
    tracking, client = Tracking(settings), MlflowClient(tracking_uri=settings.mlflow_uri)
    before = tracking.start("reward_model", {})
    assert before
    client.delete_experiment(before.experiment_id)
    after = tracking.start("reward_model", {})
    assert after
    assert after.experiment_id == before.experiment_id
    assert client.get_experiment(after.experiment_id).lifecycle_stage == "active"


def test_a_store_that_takes_no_run_is_done_without_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = load_settings("tiny", (), tmp_path)
    store = settings.instance / "mlflow.db"
    store.write_bytes(b"no database" * 1000)
    assert Tracking(settings).start("reward_model", {}) is None
    said = capsys.readouterr().err
    assert f"MLflow's store {store} takes no run, so reward_model goes on without: file is not a database. " in said
    assert "move it away" in said


def test_a_model_leads_to_the_run_that_made_it_not_to_a_later_one_that_failed(
    everything_built: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, folder = everything_built, folder_of("reward_model", everything_built)
    context = Mock(run_id="a-run", asset_key=dg.AssetKey("reward_model"))
    monkeypatch.setattr(resources, "pipes_session", lambda context: nullcontext(Mock(get_bootstrap_env_vars=dict)))

    def trains(module: str, run_config: Path, environment: Mapping[str, str]) -> None:
        with publish(folder, recipe_of("reward_model", settings)):
            pass

    def fails(module: str, run_config: Path, environment: Mapping[str, str]) -> None:
        raise JobFailed("no memory was left")

    shutil.rmtree(folder)
    monkeypatch.setattr(resources, "launch", trains)
    TrainingLauncher().build(context, settings, "reward_model")
    made = Tracking(settings).last("reward_model")
    assert made
    monkeypatch.setattr(resources, "launch", fails)
    with pytest.raises(dg.Failure):
        TrainingLauncher().build(context, settings.model_copy(update={"seed": 1}), "reward_model")
    assert TrainingLauncher().build(context, settings, "reward_model").reused
    assert Tracking(settings).last("reward_model") == made
    with publish(folder, recipe_of("adllama", settings)):  # as by a job that was killed before its run was kept
        pass
    assert Tracking(settings).last("reward_model") is None


@pytest.mark.parametrize("content", [None, "", "{}", "\N{REPLACEMENT CHARACTER}"])
def test_a_link_to_a_run_that_is_gone_or_damaged_is_none(settings: Settings, content: str | None) -> None:
    path = run_folder("reward_model", settings) / "mlflow.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is not None:
        path.write_text(content, encoding="utf-8")
    assert Tracking(settings).last("reward_model") is None


def test_a_full_disk_is_told_in_words_where_the_store_is_the_first_to_meet_it(
    everything_built: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meets_it(*_: object) -> TrackedRun:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Tracking, "_made", meets_it)
    shutil.rmtree(folder_of("reward_model", everything_built))
    with pytest.raises(UserError, match="Free some space"):
        TrainingLauncher().build(MagicMock(), everything_built, "reward_model")
