"""Runs the tiny PPO to its end through any number of deaths, for the test that compares what comes out.

    python -m rlpf_pipeline_tests.training.ppo_kill_job CACHE FOLDER "" PHASE:POINT,PHASE:POINT …

One run a list of deaths, in a folder by its number; the empty list's is undisturbed. Every attempt is a process of its
own (forked, so that imports are paid once) that sends itself SIGKILL at the given point of a phase: the POINTth token
drawn (rollout), forward or optimiser step (update), or file operation while a checkpoint is written (saving; between
the two halves of its tensor file too). The last attempt lives. Prints a JSON line an attempt: its run, whether it died,
and how far the checkpoint then is.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from rlpf_pipeline.training import checkpoints, rollout
from rlpf_pipeline.training.checkpoints import Checkpoints
from rlpf_pipeline.training.job import be_deterministic
from rlpf_pipeline.training.master_weights import MasterWeights
from rlpf_pipeline.training.ppo_update import PPOUpdate
from rlpf_pipeline.training.reporter import Reporter
from rlpf_pipeline.training.static_decoding import StaticDecoder
from rlpf_pipeline_tests.training.tiny_ppo import likes_letter, tiny_trainer

SETTINGS: dict[str, object] = {
    "steps": 4,
    "epochs": 2,
    "minibatches": 2,
    "prompts_per_step": 3,
    "samples_per_prompt": 4,
    "judge_every": 2,
    "patience": 9,
    "kl_target": 0.05,
    "normalize_rewards": True,
    "critic": "reward-model",
    "critic_states": "own",
    "beginning_tokens": 2,
    "learning_rate": 5e-3,
    "temperature": 0.15,
}


class Death:
    """Counts the points of one phase and dies at one of them."""

    def __init__(self, phase: str, point: int) -> None:
        self.phase, self.left, self.saving = phase, point, False

    def reached(self, phase: str) -> None:
        if phase == self.phase:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def before(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*values: Any, **named: Any) -> Any:
            self.reached(phase)
            return function(*values, **named)

        return wrapped

    def install(self) -> None:
        """Put the points into the process."""
        rollout.draw = self.before("rollout", rollout.draw)
        StaticDecoder.advance = self.before("rollout", StaticDecoder.advance)  # type: ignore[method-assign]
        PPOUpdate.loss = self.before("update", PPOUpdate.loss)  # type: ignore[method-assign]
        MasterWeights.step = self.before("update", MasterWeights.step)  # type: ignore[method-assign]
        save, write = Checkpoints.save, save_file

        def torn(tensors: dict[str, torch.Tensor], path: Path) -> None:
            write(tensors, path)
            whole = path.read_bytes()
            path.write_bytes(whole[: len(whole) // 2])
            self.reached("saving")
            path.write_bytes(whole)

        def observed(own: Checkpoints, checkpoint: checkpoints.Checkpoint) -> None:
            self.saving = True
            save(own, checkpoint)
            self.saving = False

        checkpoints.save_file = torn  # type: ignore[assignment]
        Checkpoints.save = observed  # type: ignore[method-assign]
        files = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree")
        sys.addaudithook(lambda event, _: self.reached("saving") if self.saving and event in files else None)


def attempt(cache: Path, folder: Path, death: Death | None) -> None:
    torch.set_num_threads(1)
    be_deterministic()
    if death:
        death.install()
    trainer = tiny_trainer(cache, judge=likes_letter("a"), **SETTINGS)
    trainer.train(Reporter("test"), Checkpoints(folder / "checkpoint", "recipe"))
    learner = trainer.learner
    save_file(learner.masters.state(), folder / "weights.safetensors")
    (folder / "figures.json").write_text(json.dumps([trainer.history, trainer.curve, trainer.kl_coefficient]))


def run(cache: Path, folder: Path, points: list[str]) -> None:
    folder.mkdir(parents=True)
    for point in (*points, None):
        death = Death(point.split(":")[0], int(point.split(":")[1])) if point else None
        child = os.fork()
        if child == 0:
            attempt(cache, folder, death)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        found = Checkpoints(folder / "checkpoint", "recipe").load()
        reached = place(found.state) if found else 0.0
        print(json.dumps({"run": folder.name, "point": point, "code": code, "reached": reached}), flush=True)


def place(state: dict[str, Any]) -> float:
    """How far a checkpoint is: half a step for a rollout that waits for its update, a quarter for a judgement."""
    judged = bool(state["curve"]) and state["curve"][-1]["step"] == state["step"]
    return state["step"] + 0.5 * (state["rollout"] is not None) + 0.25 * judged


if __name__ == "__main__":
    for number, deaths in enumerate(sys.argv[3:]):
        run(Path(sys.argv[1]), Path(sys.argv[2]) / str(number), [point for point in deaths.split(",") if point])
