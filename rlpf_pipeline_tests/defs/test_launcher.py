"""The launcher: a job's output appears whole or not at all, its reason reaches us, and nothing outlives us."""

import time
from pathlib import Path

import joblib
import pytest
from accelerate.commands.config.config_args import load_config_from_file

from rlpf_pipeline.artifacts import Recipe, read_manifest
from rlpf_pipeline.defs.launcher import accelerate_config, is_for_gpus, launch, threads_of_a_process
from rlpf_pipeline.errors import JobFailed, UserError
from rlpf_pipeline.package import PACKAGE
from rlpf_pipeline.profiles import load_settings
from rlpf_pipeline.training.run_config import CRASH, MISTAKE, RunConfig

FAKE_JOB = "rlpf_pipeline_tests.defs.fake_job"
REPOSITORY = str(Path(__file__).parents[2])


def run_config(tmp_path: Path, end: str) -> Path:
    config = RunConfig(
        settings=load_settings("tiny", home=tmp_path),
        recipe=Recipe(stage="fake"),
        inputs={},
        output=tmp_path / "model",
        options={"end": end},
    )
    path = tmp_path / "run.json"
    path.write_text(config.model_dump_json())
    return path


@pytest.mark.parametrize("accelerate", ["cpu", "gpu"])
def test_a_job_that_ends_well_leaves_its_manifest(
    accelerate: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLPF_ACCELERATE", accelerate)
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    launch(FAKE_JOB, run_config(tmp_path, "well"), {"PYTHONPATH": REPOSITORY})
    manifest = read_manifest(tmp_path / "model")
    assert manifest is not None
    assert manifest.metrics == {"accuracy": 0.75, "expects_gpu": accelerate == "gpu", "expects_ranks": "1"}
    assert (tmp_path / "model" / "weights.txt").read_text() == "whole"


def test_a_terminal_without_our_characters_ends_no_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    launch(FAKE_JOB, run_config(tmp_path, "well"), {"PYTHONPATH": REPOSITORY})
    assert "it begins" in capfd.readouterr().out


def test_a_failed_job_says_why(tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match="the loss is not finite"):
        launch(FAKE_JOB, run_config(tmp_path, "fails"), {"PYTHONPATH": REPOSITORY})


def test_what_the_user_can_mend_is_told_as_that(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^No ad has two texts\.$"):
        launch(FAKE_JOB, run_config(tmp_path, "is mistaken"), {"PYTHONPATH": REPOSITORY})


def test_a_job_that_ends_well_is_not_told_what_another_with_its_run_json_was_refused_for(tmp_path: Path) -> None:
    launch(FAKE_JOB, run_config(tmp_path, "well, beside another that is refused"), {"PYTHONPATH": REPOSITORY})
    assert (tmp_path / MISTAKE.format(rank=0)).is_file()
    assert (tmp_path / "model" / "weights.txt").read_text() == "whole"


def test_a_killed_job_leaves_nothing_under_its_final_name(tmp_path: Path) -> None:
    for file in (CRASH, MISTAKE):
        (tmp_path / file.format(rank=0)).write_text("Of a run before.")
    with pytest.raises(JobFailed, match="was killed by SIGKILL, perhaps for lack of memory"):
        launch(FAKE_JOB, run_config(tmp_path, "killed"), {"PYTHONPATH": REPOSITORY})
    assert not (tmp_path / "model").exists()
    assert (tmp_path / ".model.building" / "weights.txt").read_text() == "half"


def test_a_launcher_that_is_killed_takes_its_job_along(tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match="was killed by SIGKILL, perhaps for lack of memory"):
        launch(FAKE_JOB, run_config(tmp_path, "launcher killed"), {"PYTHONPATH": REPOSITORY})
    assert not processes_naming(tmp_path)


def test_of_several_ranks_the_first_one_s_end_is_told_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RLPF_ACCELERATE", str(two_ranks(tmp_path, "MULTI_GPU")))
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    with pytest.raises(JobFailed, match="was killed by SIGKILL, perhaps for lack of memory"):
        launch(FAKE_JOB, run_config(tmp_path, "second rank killed"), {"PYTHONPATH": REPOSITORY})
    assert "Traceback" not in capfd.readouterr().err
    assert not processes_naming(tmp_path)


def test_a_job_hears_how_many_ranks_it_was_to_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLPF_ACCELERATE", str(two_ranks(tmp_path, "MULTI_CPU")))
    launch(FAKE_JOB, run_config(tmp_path, "well"), {"PYTHONPATH": REPOSITORY})
    manifest = read_manifest(tmp_path / "model")
    assert manifest is not None
    assert manifest.metrics["expects_ranks"] == "2"


def two_ranks(folder: Path, distributed_type: str) -> Path:
    config = folder / "two.yaml"
    lines = [
        "compute_environment: LOCAL_MACHINE",
        f"distributed_type: {distributed_type}",
        "num_machines: 1",
        "num_processes: 2",
        "machine_rank: 0",
        "main_process_port: 0",
        "mixed_precision: 'no'",
        f"use_cpu: {str(distributed_type == 'MULTI_CPU').lower()}",
    ]
    config.write_text("\n".join(lines))
    return config


def processes_naming(folder: Path) -> list[Path]:
    """Command lines of processes that the folder stands in and that live on: one that was killed may take a moment."""
    for _ in range(100):
        living = [file for file in Path("/proc").glob("[0-9]*/cmdline") if str(folder).encode() in content_of(file)]
        if not living:
            break
        time.sleep(0.1)
    return living


def content_of(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:  # it has ended meanwhile
        return b""


def test_a_missing_accelerate_config_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLPF_ACCELERATE", "/nowhere/gpu.yaml")
    with pytest.raises(UserError, match=r"/nowhere/gpu\.yaml"):
        accelerate_config()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"- a",
        b"{",
        b"num_processes: 0",
        b"num_processes: two",
        b'num_processes: "2"',
        b"num_processes: 2\nnum_processes: 1",
        b"\xff",
    ],
)
def test_a_file_that_is_no_accelerate_configuration_is_named(
    content: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "ours.yaml").write_bytes(content)
    monkeypatch.setenv("RLPF_ACCELERATE", str(tmp_path / "ours.yaml"))
    with pytest.raises(UserError, match=r"ours\.yaml, which is no accelerate configuration"):
        accelerate_config()


@pytest.mark.parametrize(
    ("content", "said"),
    [("num_processes: 1", "distributed_type"), ('distributed_type: "NO"\nuse_cpu: true\nprocesses: 1', "processes")],
)
def test_a_configuration_that_accelerate_refuses_is_told_in_its_words(
    content: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "ours.yaml").write_text(content)
    monkeypatch.setenv("RLPF_ACCELERATE", str(tmp_path / "ours.yaml"))
    with pytest.raises(UserError, match=rf"ours\.yaml \(RLPF_ACCELERATE\): .*{said}"):
        launch(FAKE_JOB, run_config(tmp_path, "succeeds"), {"PYTHONPATH": REPOSITORY})


def test_a_configuration_for_several_machines_is_to_be_filled_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RLPF_ACCELERATE", "fsdp-2x8")
    with pytest.raises(UserError, match="copy it to each"):
        accelerate_config()
    shipped = PACKAGE / "training" / "accelerate" / "fsdp-2x8.yaml"
    (tmp_path / "ours.yaml").write_text(shipped.read_text().replace("process_ip: ADDRESS", "process_ip: 10.0.0.1"))
    monkeypatch.setenv("RLPF_ACCELERATE", str(tmp_path / "ours.yaml"))
    monkeypatch.setattr(joblib, "cpu_count", lambda: 16)
    config = load_config_from_file(str(accelerate_config()))
    assert (config.num_processes, config.num_machines, config.main_process_ip) == (16, 2, "10.0.0.1")
    assert threads_of_a_process(accelerate_config()) == 2


@pytest.mark.parametrize(
    ("name", "processes", "threads"), [("cpu", 1, 16), ("gpu", 1, 16), ("gpus-8", 8, 2), ("fsdp-8", 8, 2)]
)
def test_shipped_configurations_are_named_and_accelerate_reads_them(
    name: str, processes: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLPF_ACCELERATE", name)
    monkeypatch.setattr(joblib, "cpu_count", lambda: 16)
    config = load_config_from_file(str(accelerate_config()))
    assert (config.num_processes, config.num_machines, config.mixed_precision) == (processes, 1, "no")
    assert config.use_cpu is (name == "cpu")
    for overruled in ("", "true"):
        monkeypatch.setenv("ACCELERATE_USE_CPU", overruled)
        assert is_for_gpus(accelerate_config()) is (name != "cpu" and not overruled)
    assert threads_of_a_process(accelerate_config()) == threads
