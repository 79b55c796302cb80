"""Killed, resumed or on two ranks, the reward model ends the same."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rlpf_pipeline.models.frozen_layers import StateFile
from rlpf_pipeline.models.reward_folders import save_reward_model
from rlpf_pipeline.training.checkpoints import Checkpoints
from rlpf_pipeline.training.reporter import Reporter
from rlpf_pipeline.training.reward_trainer import RewardTrainer, train_reward_model
from rlpf_pipeline_tests.training.tiny_reward import SETTINGS, TRAIN, VALIDATION, make_model, saved_tensors


@pytest.mark.parametrize("changes", [{}, {"solve_heads": True}, {"lora": None}], ids=["lora", "solved heads", "full"])
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(
    cache: Path, tmp_path: Path, changes: dict[str, object], deterministic: None
) -> None:
    settings = SETTINGS.model_copy(update=changes)

    def finish(name: str, stop_at: int | None) -> dict[str, torch.Tensor]:
        checkpoints = Checkpoints(tmp_path / f".{name}.checkpoint", "recipe")

        class Hears(Reporter):
            def phase(self, done: int = 0) -> None:
                super().phase(done)
                phases.append(done)

            def progress(self, done: int, total: int, *rest: object, **figures: object) -> None:
                steps.append(done)

        class Dies(Reporter):
            def progress(self, done: int, total: int, *rest: object, **figures: object) -> None:
                if done == stop_at:
                    raise KeyboardInterrupt

        for reporter in (Dies("test"), Hears("test")) if stop_at else (Hears("test"),):
            model = make_model(cache, settings)
            with StateFile(tmp_path / "states", 10**8) as states:
                try:
                    train_reward_model(model, TRAIN, settings, 7, reporter, states, VALIDATION, checkpoints)
                except KeyboardInterrupt:
                    continue
        save_reward_model(model, tmp_path / name)
        return saved_tensors(tmp_path / name)

    phases: list[int] = []
    steps: list[int] = []
    whole = finish("whole", None)
    for stop_at in (2, steps[-1]):
        resumed = finish(f"killed at {stop_at}", stop_at)
        assert phases[-1] == stop_at - 1, "what was done before counts neither in the rate nor in the time left"
        assert whole.keys() == resumed.keys()
        assert all(torch.equal(whole[name], resumed[name]) for name in whole), f"killed at step {stop_at}"


def test_a_checkpoint_of_other_settings_is_not_taken_up(tmp_path: Path, cache: Path, states: StateFile) -> None:
    trainer = RewardTrainer(make_model(cache, SETTINGS), TRAIN, SETTINGS, 7, states)
    trainer.train_step()
    Checkpoints(tmp_path / "c", "these").save(trainer.checkpoint())
    assert Checkpoints(tmp_path / "c", "others").load() is None
    assert Checkpoints(tmp_path / "c", "these").load().state["step"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("start", ["zero", "solved"])
def test_two_ranks_give_what_one_gives(cache: Path, tmp_path: Path, start: str) -> None:
    found = []
    for ranks in (1, 2):
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(ranks), "--standalone"]
        script = ["-m", "rlpf_pipeline_tests.training.rank_job", str(cache), str(tmp_path / str(ranks)), start]
        environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
        subprocess.run([*command, *script], check=True, env=environment)
        found.append(saved_tensors(tmp_path / str(ranks)))
    one, two = found
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=0, atol=1e-5, msg=name)
    assert one["weight"].abs().max() > 1e-3
    trained = any(tensor.any() for name, tensor in one.items() if "lora_B" in name)
    assert trained or start == "solved"
