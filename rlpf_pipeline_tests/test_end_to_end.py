"""The whole pipeline in profile tiny: killed in the middle, run to its end, and run again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from rlpf_pipeline.contracts import ADS, EXPERIMENT_ADVERTISERS, PAIRS, RAW_MULTITEXT_ADS, REWARD_SCORES, VARIANTS
from rlpf_pipeline.defs.stages import STAGES, folder_of, manifest_of
from rlpf_pipeline.profiles import load_settings
from rlpf_pipeline.settings import Settings

RUN = [sys.executable, "-m", "rlpf_pipeline.cli", "run", "--profile", "tiny"]
TRAINED = [name for name, stage in STAGES.items() if stage.job]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rlpf")


@pytest.fixture(scope="module")
def settings(home: Path) -> Settings:
    return load_settings("tiny", (), home)


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "RLPF_HOME": str(home), "DAGSTER_HOME": ""}


@pytest.fixture(scope="module")
def killed(home: Path, settings: Settings) -> list[str]:
    """Kill the first run with SIGKILL while a model trains; returns the stages published by then."""
    process = subprocess.Popen(RUN, env=environment(home), stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    for line in process.stdout:
        if "curated_examples · " in line:
            os.killpg(process.pid, signal.SIGKILL)
            break
    process.wait()
    return [name for name in STAGES if (folder_of(name, settings) / "manifest.json").exists()]


@pytest.fixture(scope="module")
def first(home: Path, killed: list[str]) -> str:
    return finish(home)


def finish(home: Path) -> str:
    done = subprocess.run(RUN, env=environment(home), capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_a_killed_step_publishes_nothing(killed: list[str], settings: Settings) -> None:
    assert "preference_snapshot" in killed
    assert not {"curated_examples", "imitation_v1", "imitation_v2", "adllama"} & set(killed)


def test_the_next_run_completes_every_stage(first: str, settings: Settings) -> None:
    for name in STAGES:
        assert manifest_of(name, settings).recipe.stage == name
    assert "relative risk of CTR" in first
    assert (folder_of("ab_report", settings) / "report.html").is_file()
    assert list(settings.home.rglob("*.building")) == []


def test_what_was_complete_before_the_kill_is_kept(first: str) -> None:
    lines = first.splitlines()
    assert lines[lines.index("(1/16) raw_multitext_ads …") + 1].strip() == "unchanged"


def test_tables_have_the_columns_of_their_contracts(first: str, settings: Settings) -> None:
    files = {
        RAW_MULTITEXT_ADS: folder_of("raw_multitext_ads", settings) / "multitext_ads.parquet",
        ADS: folder_of("preference_snapshot", settings) / "ads.parquet",
        VARIANTS: folder_of("preference_snapshot", settings) / "variants.parquet",
        PAIRS: folder_of("preference_snapshot", settings) / "pairs.parquet",
        REWARD_SCORES: folder_of("reward_model_evaluation", settings) / "scores.parquet",
        EXPERIMENT_ADVERTISERS: folder_of("ab_experiment", settings) / "advertisers.parquet",
    }
    for table, path in files.items():
        assert tuple(pd.read_parquet(path).columns) == table.column_names


def test_every_model_has_a_finished_mlflow_run_that_leads_to_dagster(first: str, home: Path) -> None:
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    finished = client.search_runs([experiment.experiment_id], "attributes.status = 'FINISHED'")
    by_asset = {run.data.tags["dagster.asset_key"]: run for run in finished}
    assert set(TRAINED) <= set(by_asset)
    reward = by_asset["reward_model"]
    assert reward.data.tags["dagster.run_id"]
    assert reward.data.params["reward.learning_rate"]
    assert len(client.get_metric_history(reward.info.run_id, "loss")) > 1


def test_a_second_run_reuses_everything(first: str, home: Path) -> None:
    again = finish(home)
    assert again.count("  unchanged") == len(STAGES)
