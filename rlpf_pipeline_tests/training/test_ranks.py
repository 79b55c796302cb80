"""Two ranks on the CPU (gloo) end where one ends: the same texts, the same updates, the same decisions."""

import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rlpf_pipeline.models.base import load_causal_lm
from rlpf_pipeline.package import PACKAGE
from rlpf_pipeline_tests.conftest import TINY

pytestmark = pytest.mark.slow
SHIPPED = PACKAGE / "training" / "accelerate"


def run_on(config: str, ranks: int, job: str, cache: Path, output: Path, *settings: str) -> dict[str, torch.Tensor]:
    """What `job` leaves in `output`, on so many ranks by a shipped configuration."""
    load_causal_lm(TINY, cache)
    with start(config, [f"--num_processes={ranks}"], job, cache, output, *settings) as running:
        said = running.communicate()[1]
    assert running.returncode == 0, said[-3000:]
    return load_file(output)


def start(
    config: str, options: list[str], job: str, cache: Path, output: Path, *settings: str
) -> subprocess.Popen[str]:
    accelerate = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(SHIPPED / f"{config}.yaml")]
    script = ["-m", f"rlpf_pipeline_tests.training.{job}", str(cache), str(output), *settings]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*accelerate, *options, *script], env=environment, stderr=subprocess.PIPE, text=True)


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


def test_launchers_of_two_machines_give_what_one_gives(cache: Path, tmp_path: Path) -> None:
    """Both on this one, at its own address."""
    one = run_on("cpu", 1, "ppo_rank_job", cache, tmp_path / "1.safetensors")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["--num_processes=2", "--main_process_ip=127.0.0.1", f"--main_process_port={port}"]
    machines = [
        start("fsdp-2x8", [*options, f"--machine_rank={rank}"], "ppo_rank_job", cache, tmp_path / "2.safetensors")
        for rank in (0, 1)
    ]
    said = [machine.communicate(timeout=300)[1] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], said
    torch.testing.assert_close(load_file(tmp_path / "2.safetensors"), one, rtol=0, atol=1e-5)


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
