"""What every job does around its work."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from rlpf_pipeline.artifacts import Metrics, Recipe, publish, read_manifest
from rlpf_pipeline.digests import file_digest, model_digest
from rlpf_pipeline.errors import UserError
from rlpf_pipeline.profiles import load_settings
from rlpf_pipeline.settings import BaseModelSettings
from rlpf_pipeline.training import job
from rlpf_pipeline.training.job import Work, leave, only_writer, run_job
from rlpf_pipeline.training.reporter import Reporter
from rlpf_pipeline.training.run_config import EXPECTS_GPU, EXPECTS_RANKS, RunConfig


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunConfig]:
    """A job's command line names it."""
    settings = load_settings("tiny", home=tmp_path)
    config = RunConfig(settings=settings, recipe=Recipe(stage="fake"), inputs={}, output=tmp_path / "model")
    (tmp_path / "run.json").write_text(config.model_dump_json())
    monkeypatch.setattr(sys, "argv", ["job", "--config", str(tmp_path / "run.json")])
    yield config
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever device the tests run on."""
    monkeypatch.setattr(job, "accelerator", lambda: SimpleNamespace(device=torch.device("cpu"), num_processes=1))


def write_weights(config: RunConfig, folder: Path, reporter: Reporter) -> Metrics:
    (folder / "weights.txt").write_text(str(float(torch.rand(1))))
    return {"deterministic": torch.are_deterministic_algorithms_enabled(), "loss": 0.5}


def test_the_work_is_published_with_its_figures_by_the_settings_seed(config: RunConfig) -> None:
    run_job(write_weights)
    manifest = read_manifest(config.output)
    assert manifest is not None
    assert manifest.metrics == {"deterministic": True, "loss": 0.5}
    torch.manual_seed(config.settings.seed)
    assert (config.output / "weights.txt").read_text() == str(float(torch.rand(1)))


def test_the_manifest_says_what_was_read_where_that_is_no_longer_what_run_json_was_written_for(
    config: RunConfig, tmp_path: Path
) -> None:
    """By it the pipeline tells whether the output is the one that it would make."""
    snapshot = tmp_path / "snapshot"
    settings = {"seed": config.settings.seed, "reward": config.settings.reward.model_dump(mode="json")}
    with publish(snapshot, Recipe(stage="preference_snapshot", inputs={"pairs": "first"})):
        pass
    inputs = {"preference_snapshot": read_manifest(snapshot).digest, "base": "of the weights"}
    written = config.model_copy(
        update={
            "recipe": Recipe(stage="fake", settings=settings, inputs=inputs),
            "inputs": {"preference_snapshot": snapshot},
        }
    )
    (tmp_path / "run.json").write_text(written.model_dump_json())
    run_job(write_weights)
    assert read_manifest(config.output).recipe == written.recipe

    with publish(snapshot, Recipe(stage="preference_snapshot", inputs={"pairs": "second"})):
        pass
    edited = written.settings.model_copy(update={"reward": written.settings.reward.model_copy(update={"epochs": 7})})
    (tmp_path / "run.json").write_text(written.model_copy(update={"settings": edited}).model_dump_json())
    run_job(write_weights)
    assert read_manifest(config.output).recipe == Recipe(
        stage="fake",
        settings=settings | {"reward": settings["reward"] | {"epochs": 7}},
        inputs=inputs | {"preference_snapshot": read_manifest(snapshot).digest},
    )


def test_the_manifest_names_the_base_that_was_read(config: RunConfig, tmp_path: Path) -> None:
    base = tmp_path / "ours"
    base.mkdir()
    (base / "config.json").write_text("{}")
    settings = config.settings.model_copy(update={"base": BaseModelSettings(name=str(base))})
    recipe = Recipe(stage="fake", settings={"base": {}}, inputs={"base": "of the former weights"})
    edited = config.model_copy(update={"settings": settings, "recipe": recipe})
    assert edited.as_it_stands().recipe.inputs == {"base": model_digest(str(base))}


def test_the_manifest_names_the_examples_that_were_read(config: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("original,rewrite\n")
    teacher = config.settings.teacher.model_copy(update={"examples_file": tmp_path / "own.csv"})
    settings = config.settings.model_copy(update={"teacher": teacher})
    edited = config.model_copy(update={"settings": settings, "recipe": Recipe(stage="curated_examples")})
    assert edited.as_it_stands().recipe.inputs == {"examples_file": file_digest(tmp_path / "own.csv")}


def test_of_two_jobs_with_one_output_the_second_is_refused(config: RunConfig, tmp_path: Path) -> None:
    with only_writer(config.output), pytest.raises(SystemExit) as end:
        run_job(write_weights)
    assert end.value.code == 2
    assert (tmp_path / "mistake-rank0.txt").read_text().startswith("Another job is writing")
    run_job(write_weights)
    assert (config.output / "weights.txt").is_file()


@pytest.mark.parametrize(
    ("error", "code", "file", "says"),
    [
        (UserError("no ad has two texts"), 2, "mistake-rank0.txt", "no ad has two texts"),
        (ZeroDivisionError("x"), 1, "error-rank0.txt", "Traceback"),
    ],
)
def test_a_failure_leaves_its_reason_and_nothing_else(
    config: RunConfig, tmp_path: Path, error: Exception, code: int, file: str, says: str
) -> None:
    def fail(*_: object) -> Metrics:
        raise error

    with pytest.raises(SystemExit) as end:
        run_job(fail)
    assert end.value.code == code
    assert (tmp_path / file).read_text().startswith(says)
    assert not config.output.exists()


def test_an_interruption_leaves_no_traceback(
    config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> Metrics:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as end:
        run_job(interrupted)
    assert end.value.code == 130
    assert "Traceback" not in capsys.readouterr().err
    assert not [*tmp_path.glob("*-rank0.txt")]


def test_a_reason_that_cannot_be_left_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mistake-rank0.txt").mkdir()
    leave(tmp_path / "mistake-rank0.txt", "The disk is full.")
    assert capsys.readouterr().err == "The disk is full.\n"


def cannot_read(*_: object) -> Metrics:
    raise OSError("no magic bytes")


@pytest.mark.parametrize(("file", "work"), [("pairs.parquet", write_weights), ("notes.json", cannot_read)])
def test_a_table_that_is_not_what_was_written_is_not_learned_from_and_another_file_explains_a_failure(
    config: RunConfig, tmp_path: Path, file: str, work: Work
) -> None:
    with publish(tmp_path / "snapshot", Recipe(stage="preference_snapshot")) as (building, _):
        (building / file).write_bytes(b"PAR1 rows PAR1")
    given = config.model_copy(update={"inputs": {"preference_snapshot": tmp_path / "snapshot"}})
    (tmp_path / "run.json").write_text(given.model_dump_json())
    (tmp_path / "snapshot" / file).write_bytes(b"PAR1 other rows PAR1")
    with pytest.raises(SystemExit, match="2"):
        run_job(work)
    assert f"{file} is not what was written" in (tmp_path / "mistake-rank0.txt").read_text()
    assert not config.output.exists()


def test_a_run_json_that_does_not_fit_is_told_like_any_mistake(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(SystemExit, match="2"):
        run_job(write_weights)
    assert "is no run configuration: settings: Field required" in (tmp_path / "mistake-rank0.txt").read_text()


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        (EXPECTS_GPU, "1", "asks for a GPU, and PyTorch sees none"),
        (EXPECTS_RANKS, "2", "asks for 2 processes, and accelerate started 1"),
    ],
)
def test_what_is_asked_for_and_missing_is_an_error(
    config: RunConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    on_cpu: None,
    variable: str,
    value: str,
    said: str,
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit, match="2"):
        run_job(write_weights)
    assert said in (tmp_path / "mistake-rank0.txt").read_text()
    assert not config.output.exists()


@pytest.mark.parametrize("has_gpu", [True, False])
def test_a_gpu_that_is_not_used_is_told(
    has_gpu: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], on_cpu: None
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    run_job(write_weights)
    assert ("a GPU is here and not used; RLPF_ACCELERATE=gpu uses it" in capsys.readouterr().out) == has_gpu
