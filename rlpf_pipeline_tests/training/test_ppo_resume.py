"""PPO killed with SIGKILL at random points goes on and ends with the same bytes."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rlpf_pipeline.models.base import load_causal_lm
from rlpf_pipeline_tests.conftest import TINY

# Points of each phase in a run of four steps: 7 rollouts of up to 6 tokens, 32 forwards and optimiser steps, and 11
# checkpoints of at least 9 file operations each. A run that was resumed has fewer left, and may outlive its point.
POINTS = {"rollout": 24, "update": 16, "saving": 60}


def killed_runs(cache: Path, folder: Path, deaths: list[list[str]]) -> list[dict[str, object]]:
    """Run undisturbed, then once for each list of deaths; compare what comes out; returns the killed runs' attempts."""
    load_causal_lm(TINY, cache)
    script = [sys.executable, "-m", "rlpf_pipeline_tests.training.ppo_kill_job", str(cache), str(folder)]
    done = subprocess.run(
        [*script, "", *(",".join(own) for own in deaths)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    attempts = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert {attempt["code"] for attempt in attempts} <= {0, -signal.SIGKILL}, done.stderr[-3000:]
    for number, own in enumerate(deaths, start=1):
        reached = [attempt["reached"] for attempt in attempts if attempt["run"] == str(number)]
        assert reached == sorted(reached), f"a checkpoint was lost: {attempts}"
        for name in ("weights.safetensors", "figures.json"):
            assert (folder / str(number) / name).read_bytes() == (folder / "0" / name).read_bytes(), f"{name}: {own}"
    return attempts[1:]


def test_a_run_killed_in_each_phase_ends_with_the_same_bytes(cache: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng()
    deaths = [f"{phase}:{rng.integers(1, last // 2)}" for phase, last in POINTS.items()]
    attempts = killed_runs(cache, tmp_path, [deaths])
    assert [attempt["code"] for attempt in attempts] == [-signal.SIGKILL] * 3 + [0], attempts


@pytest.mark.slow
def test_twenty_random_kills_end_with_the_same_bytes(cache: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng()
    deaths = [
        [f"{phase}:{rng.integers(1, POINTS[phase] + 1)}" for phase in rng.permutation(list(POINTS))] for _ in range(12)
    ]
    attempts = killed_runs(cache, tmp_path, deaths)
    assert sum(attempt["code"] != 0 for attempt in attempts) >= 20, attempts
