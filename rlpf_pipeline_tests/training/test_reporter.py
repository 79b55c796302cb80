"""What a training job says of how far it is."""

from __future__ import annotations

import pytest

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
