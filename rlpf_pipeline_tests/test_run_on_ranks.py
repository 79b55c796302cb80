"""A whole run in profile tiny on two ranks that share PPO's base, on CPUs: every job ends and leaves its result."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from rlpf_pipeline.defs.stages import STAGES, manifest_of
from rlpf_pipeline.package import PACKAGE
from rlpf_pipeline.profiles import load_settings
from rlpf_pipeline_tests.test_end_to_end import RUN, environment


@pytest.mark.slow
def test_every_stage_completes_on_two_ranks(tmp_path: Path) -> None:
    shipped = yaml.safe_load((PACKAGE / "training" / "accelerate" / "fsdp-8.yaml").read_text())
    (tmp_path / "ranks.yaml").write_text(yaml.safe_dump(shipped | {"num_processes": 2}))
    # A mini-batch needs a prompt for each rank; of five, one rank has more than the other.
    (tmp_path / "settings.yaml").write_text("policy: {prompts_per_step: 5}")
    on_ranks = {
        "RLPF_ACCELERATE": str(tmp_path / "ranks.yaml"),
        "RLPF_SETTINGS": str(tmp_path / "settings.yaml"),
        "ACCELERATE_USE_CPU": "true",
    }
    done = subprocess.run(
        RUN, env=environment(tmp_path / "home") | on_ranks, capture_output=True, text=True, timeout=1200, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    settings = load_settings("tiny", (), tmp_path / "home")
    for name in STAGES:
        assert manifest_of(name, settings).recipe.stage == name
