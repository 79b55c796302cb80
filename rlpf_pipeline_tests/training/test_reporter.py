"""What a training job says of how far it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlpf_pipeline.defs.tracking import Tracking
from rlpf_pipeline.profiles import load_settings
from rlpf_pipeline.training import reporter
from rlpf_pipeline.training.reporter import Reporter


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.5, "3/12 · reward 0.25 · 6.0 steps/s · 0:01 left"), (150.0, "3/12 · reward 0.25 · 0.02 steps/s · 7:30 left")],
)
def test_a_slow_step_has_a_rate_too(
    seconds: float, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([100.0, 100.0 + seconds])
    monkeypatch.setattr(reporter.time, "monotonic", lambda: next(clock))
    with Reporter("adllama") as job:
        job.progress(3, 12, reward=0.25)
    assert capsys.readouterr().out == f"  adllama · steps {said}\n"


def test_before_anything_is_done_there_is_no_rate_and_no_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    Reporter("score").progress(0, 12, "distinct texts")
    assert capsys.readouterr().out == "  score · distinct texts 0/12\n"


def test_what_was_done_before_is_in_neither_the_rate_nor_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([100.0, 200.0, 230.0])
    monkeypatch.setattr(reporter.time, "monotonic", lambda: next(clock))
    with Reporter("adllama") as job:
        job.phase(30)
        job.progress(32, 36, rate=(3200, "samples"))  # two steps, 200 samples, in 30 seconds
    assert capsys.readouterr().out == "  adllama · steps 32/36 · 6.7 samples/s · 1:00 left\n"


def test_a_store_that_is_gone_does_not_end_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = load_settings("tiny", (), tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", settings.mlflow_uri)
    monkeypatch.setenv("MLFLOW_RUN_ID", Tracking(settings).start("reward_model", {}).run_id)
    with Reporter("reward_model") as job:
        job.metrics({"loss": 0.5})
        (tmp_path / "mlflow.db").unlink()
        for step in range(2):
            job.metrics({"loss": 0.25}, step)
    said = capsys.readouterr()
    assert said.out.count("MLflow takes no more figures") == 1
    assert "goes on without: attempt to write a readonly database\n" in said.out
    assert "Traceback" not in said.err
