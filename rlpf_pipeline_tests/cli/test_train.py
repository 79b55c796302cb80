"""Jobs from the command line."""

import json
import shutil
from pathlib import Path

import pytest

from rlpf_pipeline.artifacts import Recipe, publish
from rlpf_pipeline.defs import launcher
from rlpf_pipeline.defs.stages import STAGES, folder_of
from rlpf_pipeline.profiles import load_settings
from rlpf_pipeline.settings import Settings
from rlpf_pipeline.training.run_config import RunConfig
from rlpf_pipeline_tests.cli.entry_point import rlpf


@pytest.mark.parametrize("content", [b"{}", b"", b"\xff\xfe{"])
def test_train_with_a_broken_run_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    (tmp_path / "run.json").write_bytes(content)
    assert rlpf(monkeypatch, "train", "reward", "--config", str(tmp_path / "run.json")) == 2
    assert "run.json" in capsys.readouterr().err


def test_train_by_another_algorithm_starts_a_run_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    monkeypatch.setattr(launcher, "launch", lambda module, config, environment: started.append((module, config)))
    asked = run_of("adllama", tmp_path)
    path = tmp_path / "run.json"
    path.write_text(asked.model_dump_json())
    for algorithm in ("rloo", "ppo"):
        assert rlpf(monkeypatch, "train", "policy", "--config", str(path), "--algorithm", algorithm) == 0
    own = tmp_path / "adllama-rloo" / "run.json"
    assert started == [("rlpf_pipeline.training.jobs.policy", config) for config in (own, path)]
    assert RunConfig.read(own) == asked.by("rloo")
    assert RunConfig.read(path) == asked


@pytest.mark.parametrize("stage", ["policy_evaluation", "reward_model", "fake"])
def test_train_refuses_the_run_of_another_stage(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its output would lie under the name of what the stage makes."""
    monkeypatch.setattr(launcher, "launch", lambda *_: pytest.fail("a job was started"))
    config = RunConfig(
        settings=load_settings("tiny", (), tmp_path), recipe=Recipe(stage=stage), inputs={}, output=tmp_path / "m"
    )
    (tmp_path / "run.json").write_text(config.model_dump_json())
    assert rlpf(monkeypatch, "train", "policy", "--config", str(tmp_path / "run.json")) == 2
    assert f"is of {stage}, which `rlpf train policy` does not make" in capsys.readouterr().err


def test_train_takes_an_algorithm_for_the_policy_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("train", "reward", "--config", str(tmp_path / "run.json"), "--algorithm")
    assert rlpf(monkeypatch, *command, "rloo") == 2
    assert "not for reward" in capsys.readouterr().err
    assert rlpf(monkeypatch, *command, "sarsa") == 2
    assert "best-of-n" in capsys.readouterr().err


def test_the_run_of_a_copied_home_does_not_write_into_the_former_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[Path] = []
    monkeypatch.setattr(launcher, "launch", lambda module, config, environment: started.append(config))
    settings = load_settings("tiny", (), tmp_path / "first")
    folder_of("curated_examples", settings).mkdir(parents=True)
    run = write_run_config("imitation_v1", settings, monkeypatch)
    shutil.copytree(settings.home, tmp_path / "second" / "tiny")
    copy = tmp_path / "second" / "tiny" / "runs" / "imitation_v1" / "run.json"
    assert rlpf(monkeypatch, "train", "imitation", "--config", str(copy)) == 2
    message = capsys.readouterr().err
    assert f"Write {tmp_path / 'second' / 'tiny'} for {settings.home} in it" in message
    copy.write_text(copy.read_text().replace(str(settings.home), str(tmp_path / "second" / "tiny")))
    for config in (run, copy):
        assert rlpf(monkeypatch, "train", "imitation", "--config", str(config)) == 0
    assert started == [run, copy]


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        ({"options": {}}, "imitation_v1 is made with {'version': 'v1'}"),
        ({"options": {"version": "v2"}}, "imitation_v1 is made with {'version': 'v1'}"),
        ({"inputs": {}}, "names no folder as its input curated_examples"),
        ({"inputs": {"curated_examples": "gone"}}, "names no folder as its input curated_examples"),
        ({"output": "notes"}, "holds what no job wrote"),
        ({"output": "snapshot"}, "holds preference_snapshot"),
    ],
)
def test_train_refuses_what_would_pass_for_another_model_or_take_the_place_of_other_files(
    edit: dict[str, object],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launcher, "launch", lambda *_: pytest.fail("a job was started"))
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "own.txt").write_text("mine")
    with publish(tmp_path / "snapshot", Recipe(stage="preference_snapshot")):
        pass
    written = run_of("imitation_v1", tmp_path).model_dump(mode="json") | edit
    (tmp_path / "run.json").write_text(json.dumps(written))
    assert rlpf(monkeypatch, "train", "imitation", "--config", str(tmp_path / "run.json")) == 2
    assert says in capsys.readouterr().err


def test_train_replaces_a_model_of_its_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Path] = []
    monkeypatch.setattr(launcher, "launch", lambda module, config, environment: started.append(config))
    config = run_of("imitation_v1", tmp_path)
    (tmp_path / "run.json").write_text(config.model_dump_json())
    with publish(config.output, config.recipe):
        pass
    assert rlpf(monkeypatch, "train", "imitation", "--config", str(tmp_path / "run.json")) == 0
    assert started == [tmp_path / "run.json"]


def run_of(stage: str, home: Path) -> RunConfig:
    """A run of the stage, whose inputs are there."""
    inputs = {name: home / name for name in STAGES[stage].inputs}
    for folder in inputs.values():
        folder.mkdir(exist_ok=True)
    return RunConfig(
        settings=load_settings("tiny", (), home),
        recipe=Recipe(stage=stage),
        inputs=inputs,
        output=home / "m",
        options=dict(STAGES[stage].options),
    )


def write_run_config(name: str, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The launcher's, without the stages before."""
    monkeypatch.setattr(launcher, "recipe_of", lambda name, settings: Recipe(stage=name))
    return launcher.write_run_config(name, settings)
