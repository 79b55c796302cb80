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


def run_on(ranks: int, job: str, cache: Path, output: Path) -> dict[str, torch.Tensor]:
    """What `job` leaves in `output`, on one rank or, by the configuration of eight GPUs, on several."""
    load_causal_lm(TINY, cache)
    config = SHIPPED / ("cpu.yaml" if ranks == 1 else "gpus-8.yaml")
    accelerate = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    script = ["-m", f"rlpf_pipeline_tests.training.{job}", str(cache), str(output)]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    command = [*accelerate, "--num_processes", str(ranks), *script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return load_file(output)


def test_two_ranks_of_ppo_give_what_one_gives(cache: Path, tmp_path: Path) -> None:
    one, two = (run_on(ranks, "ppo_rank_job", cache, tmp_path / f"{ranks}.safetensors") for ranks in (1, 2))
    torch.testing.assert_close(two, one, rtol=0, atol=1e-5)
    assert min(own.abs().max() for own in one.values()) > 1e-3
    told = [json.loads((tmp_path / f"{ranks}.json").read_text()) for ranks in (1, 2)]
    assert [own["ranks"] for own in told] == [1, 2]
    for first, second in zip(numbers(told[0]["figures"]), numbers(told[1]["figures"]), strict=True):
        assert math.isclose(first, second, rel_tol=1e-3, abs_tol=1e-5)


def numbers(value: object) -> list[float]:
    """All numbers in nested lists and dictionaries, in their order."""
    if isinstance(value, dict):
        return numbers(list(value.values()))
    return [number for own in value for number in numbers(own)] if isinstance(value, list) else [float(value)]  # type: ignore[arg-type]


def test_two_ranks_of_imitation_give_what_one_gives(cache: Path, tmp_path: Path) -> None:
    one, two = (run_on(ranks, "imitation_rank_job", cache, tmp_path / f"{ranks}.safetensors") for ranks in (1, 2))
    torch.testing.assert_close(two, one, rtol=0, atol=1e-5)
    assert max(weights.abs().max() for name, weights in one.items() if "lora_B" in name) > 1e-3
