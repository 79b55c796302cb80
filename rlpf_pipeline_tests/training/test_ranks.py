"""Two ranks on the CPU (gloo) end where one ends: the same texts, the same updates, the same decisions."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rlpf_pipeline.artifacts import PACKAGE
from rlpf_pipeline.models.base import load_causal_lm
from rlpf_pipeline_tests.conftest import TINY

pytestmark = pytest.mark.slow
SHIPPED = PACKAGE / "training" / "accelerate"


def run_on(config: str, ranks: int, job: str, cache: Path, output: Path, *settings: str) -> dict[str, torch.Tensor]:
    """What `job` leaves in `output`, on so many ranks by a shipped configuration."""
    load_causal_lm(TINY, cache)
    accelerate = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(SHIPPED / f"{config}.yaml")]
    script = ["-m", f"rlpf_pipeline_tests.training.{job}", str(cache), str(output), *settings]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    command = [*accelerate, "--num_processes", str(ranks), *script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return load_file(output)


@pytest.mark.parametrize(
    ("config", "held", "settings"),
    [
        ("gpus-8", 1.0, ["critic_states=own"]),
        ("fsdp-8", 0.5, []),
        # One rank has two batches and the other one: it passes once more for it.
        ("fsdp-8", 0.5, ["prompts_per_step=3", "minibatches=1"]),
    ],
)
def test_two_ranks_of_ppo_give_what_one_gives(
    config: str, held: float, settings: list[str], cache: Path, tmp_path: Path
) -> None:
    one = run_on("cpu", 1, "ppo_rank_job", cache, tmp_path / "1.safetensors", *settings)
    two = run_on(config, 2, "ppo_rank_job", cache, tmp_path / "2.safetensors", *settings)
    torch.testing.assert_close(two, one, rtol=0, atol=1e-5)
    assert min(own.abs().max() for own in one.values()) > 1e-3
    told = [json.loads((tmp_path / f"{ranks}.json").read_text()) for ranks in (1, 2)]
    assert [(own["ranks"], own["held"]) for own in told] == [(1, 1.0), (2, held)]
    for first, second in zip(numbers(told[0]["figures"]), numbers(told[1]["figures"]), strict=True):
        assert math.isclose(first, second, rel_tol=1e-3, abs_tol=1e-5)


def numbers(value: object) -> list[float]:
    """All numbers in nested lists and dictionaries, in their order."""
    if isinstance(value, dict):
        return numbers(list(value.values()))
    return [number for own in value for number in numbers(own)] if isinstance(value, list) else [float(value)]  # type: ignore[arg-type]


def test_two_ranks_of_imitation_give_what_one_gives(cache: Path, tmp_path: Path) -> None:
    one = run_on("cpu", 1, "imitation_rank_job", cache, tmp_path / "1.safetensors")
    two = run_on("gpus-8", 2, "imitation_rank_job", cache, tmp_path / "2.safetensors")
    torch.testing.assert_close(two, one, rtol=0, atol=1e-5)
    assert max(weights.abs().max() for name, weights in one.items() if "lora_B" in name) > 1e-3
