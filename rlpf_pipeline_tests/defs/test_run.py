"""`rlpf run` in process: what it says, what it skips, and how it recovers from a run that was killed."""

import errno
import os
import signal
import sqlite3
import uuid
from pathlib import Path
from unittest.mock import Mock

import dagster as dg
import pytest
from dagster import DagsterInstance, DagsterRunStatus
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from sqlalchemy.exc import OperationalError

from rlpf_pipeline.defs import steps
from rlpf_pipeline.defs.assets.experiment import ab_experiment, ab_report
from rlpf_pipeline.defs.resources import PipelineSettings
from rlpf_pipeline.defs.run import STARTED_HERE, Narrator, forget_killed_runs, only_run, open_instance, run_everything
from rlpf_pipeline.errors import UserError
from rlpf_pipeline.profiles import load_settings
from rlpf_pipeline.settings import Settings

RUN_ID = str(uuid.UUID(int=1))


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in ("RLPF_PROFILE", "RLPF_DATA", "DAGSTER_HOME"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("RLPF_HOME", str(tmp_path))
    return load_settings("upworthy", (), tmp_path)


def test_without_planted_truth_the_experiment_and_its_report_are_skipped(settings: Settings) -> None:
    said: list[str] = []
    with DagsterInstance.ephemeral() as instance:
        instance.add_event_listener(RUN_ID, Narrator(said.append))
        job = dg.Definitions(
            assets=[ab_experiment, ab_report], resources={"pipeline": PipelineSettings(profile="upworthy")}
        ).resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(instance=instance, run_id=RUN_ID)
    assert result.success
    assert result.get_asset_materialization_events() == []
    assert said[0] == "(1/16) ab_experiment …"
    assert said[1].startswith("  skipped: The ads are real")
    assert said[2].startswith("ab_report skipped")


def test_a_users_mistake_in_a_step_comes_out_as_one(settings: Settings) -> None:
    said: list[str] = []
    with pytest.raises(UserError, match=r"^Profile 'upworthy' needs data"):
        run_everything(settings, said.append)
    assert said[0] == "(1/16) raw_multitext_ads …"


def test_ctrl_c_in_a_step_is_called_an_interruption(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(steps, "raw_multitext_ads", lambda _: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        run_everything(settings, said.append)
    assert [line for line in said if "fail" in line] == []
    assert said[-1].startswith("The run was interrupted in raw_multitext_ads. What is done is kept")


def test_ctrl_c_in_a_query_is_called_an_interruption(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def query_of_minutes(settings: Settings) -> None:
        raise RuntimeError("Query interrupted")  # what DuckDB raises where SIGINT reaches it in a query

    said: list[str] = []
    monkeypatch.setattr(steps, "raw_multitext_ads", query_of_minutes)
    with pytest.raises(KeyboardInterrupt):
        run_everything(settings, said.append)
    assert [line for line in said if "fail" in line] == []


def test_a_colon_in_a_path_is_part_of_it(settings: Settings, tmp_path: Path) -> None:
    files = (tmp_path / "a:b.csv", tmp_path / "c.csv")
    with pytest.raises(UserError, match=rf"^No such file: {files[0]}, {files[1]}\."):
        run_everything(settings.model_copy(update={"data": files}), lambda line: None)


def test_the_instance_takes_the_projects_settings(settings: Settings) -> None:
    with open_instance(settings) as instance:
        assert instance.run_monitoring_enabled
        assert not instance.telemetry_enabled


def test_dagsters_record_lies_in_a_home_of_an_odd_name(settings: Settings, tmp_path: Path) -> None:
    name = "[a-z]* #1 'é' \"$x&\""
    settings = settings.model_copy(update={"home": tmp_path / name / "upworthy"})
    with open_instance(settings):
        pass
    assert any((settings.instance / "dagster").rglob("runs.db"))
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_damaged_record_of_runs_is_told_with_what_to_do(settings: Settings) -> None:
    with open_instance(settings):
        pass
    for database in (settings.instance / "dagster").rglob("*.db"):
        database.write_bytes(b"x" * 5000)
    with pytest.raises(UserError, match=r"dagster cannot be used: .*move the folder away and run again"):
        run_everything(settings, lambda line: None)


def test_a_record_of_runs_on_a_disk_that_fills_up_is_no_damaged_one(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where SQLite cannot make its journal longer it says the same as of a broken disk."""
    error = OperationalError("INSERT", {}, sqlite3.OperationalError("disk I/O error"))
    with pytest.raises(UserError, match="cannot be used: disk I/O error"), open_instance(settings):
        raise error
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)), open_instance(settings):  # noqa: PT012
        monkeypatch.setattr("shutil.disk_usage", lambda _: Mock(free=0))
        raise error


def test_a_mistake_of_the_users_is_told_not_what_led_to_it(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(settings: Settings) -> None:
        raise UserError("The warehouse is damaged. Delete it.") from ValueError("bytes 17 to 20")

    said: list[str] = []
    monkeypatch.setattr(steps, "raw_multitext_ads", damaged)
    with pytest.raises(UserError, match="The warehouse is damaged"):
        run_everything(settings, said.append)
    assert any("The warehouse is damaged. Delete it." in line for line in said)
    assert not any("bytes 17" in line for line in said)


def test_a_killed_run_is_closed_and_none_by_which_the_ui_repeats_it(settings: Settings) -> None:
    """Dagster gives a re-execution the tags of the run it repeats."""
    job = dg.Definitions(
        assets=[ab_report], resources={"pipeline": PipelineSettings()}
    ).resolve_implicit_global_asset_job_def()
    of_the_ui = RemoteJobOrigin(
        RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("rlpf_pipeline"), "__repository__"), job.name
    )
    with open_instance(settings) as instance:
        runs = [
            instance.create_run_for_job(
                job, tags=STARTED_HERE, status=DagsterRunStatus.STARTED, remote_job_origin=origin
            )
            for origin in (None, of_the_ui)
        ]
        forget_killed_runs(instance)
        statuses = [instance.get_run_by_id(run.run_id).status for run in runs]
    assert statuses == [DagsterRunStatus.FAILURE, DagsterRunStatus.STARTED]


def test_two_runs_do_not_share_a_home(settings: Settings) -> None:
    with only_run(settings), pytest.raises(UserError, match="Another run"), only_run(settings):
        pass
