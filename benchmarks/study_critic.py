"""What a critic is worth: how well the policy gradient of one rollout points where that of many does.

    python -m benchmarks.study_critic --home .rlpf/demo --rollouts 24

Needs a finished `rlpf run`. Imitation v2 writes `rollouts` rollouts of PPO's size, each for other prompts. With and
without the critic that starts from beginnings (`critic = "reward-model"`, learned from the rollouts before), for every
lambda, a rollout's gradient is compared, by its cosine, with the sum of the other rollouts' gradients at lambda = 1
without a critic, which on average is the gradient of the expected reward. Where cosines are small, the square of their
ratio is that of the samples a critic saves. Differences and their standard errors are over rollouts but the first.
Gradients are those of the LoRA weights of the top `LAYERS` layers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from benchmarks.running import as_command
from rlpf_pipeline.models.adapters import attach_lora
from rlpf_pipeline.training.jobs.policy import read_task
from rlpf_pipeline.training.losses import generalized_advantages, masked_mean, shaped_rewards, whiten
from rlpf_pipeline.training.ppo_trainer import PPOTrainer
from rlpf_pipeline.training.ppo_update import Part
from rlpf_pipeline.training.rewards import weighted
from rlpf_pipeline.training.run_config import RunConfig
from rlpf_pipeline.whole_files import write_atomically

LAYERS = 3
LAMBDAS = (1.0, 0.95, 0.8)
PLAIN = (False, 1.0)


class Case(NamedTuple):
    """A rollout: its packed texts with what is foretold before each token (`part.prior`), and what each text earned
    less the others of its prompt."""

    part: Part
    outcome: Tensor


def main(
    home: Annotated[Path, typer.Option(exists=True, help="The profile's folder of a finished run.")] = Path(
        ".rlpf/demo"
    ),
    rollouts: Annotated[int, typer.Option(min=2, help="As many more, as sharper the table.")] = 24,
    output: Annotated[Path | None, typer.Option(help="JSON file of the results.")] = None,
) -> None:
    """Measure and print a table. Example: python -m benchmarks.study_critic --home .rlpf/demo"""
    trainer = make_trainer(home.resolve())
    found: dict[tuple[bool, float], list[Tensor]] = {}
    for case in track(cases(trainer, rollouts), total=rollouts, description="rollouts"):
        for key, gradient in gradients(trainer, case):
            found.setdefault(key, []).append(gradient)
    plain = torch.stack(found[PLAIN])
    aligned = {
        key: np.array([cosine(own, plain.sum(0) - plain[i]) for i, own in enumerate(of_critic)])
        for key, of_critic in found.items()
    }
    results = [
        {"critic": critic, "lambda": lam, "cosine": float(own.mean()), **compared(own, aligned[False, lam])}
        for (critic, lam), own in aligned.items()
    ]
    Console().print(table_of(results))
    if output:
        write_atomically(output, json.dumps(results, indent=2) + "\n")


def make_trainer(home: Path) -> PPOTrainer:
    """PPO at its start, on the run's own models and prompts, with few layers to compute gradients of."""
    config = RunConfig.read(home / "runs/adllama/run.json")
    lora = config.settings.policy.lora.model_copy(update={"top_layers": LAYERS})
    settings = config.settings.policy.model_copy(
        update={"critic": "reward-model", "minibatches": 1, "tokens_per_forward": 10**6, "lora": lora}
    )
    config = config.model_copy(update={"settings": config.settings.model_copy(update={"policy": settings})})
    task = read_task(config)
    torch.manual_seed(config.settings.seed)
    return task.ppo(attach_lora(task.reference, lora))


def cases(trainer: PPOTrainer, rollouts: int) -> Iterator[Case]:
    for trainer.step in range(rollouts + 1):
        trainer.collect()
        rollout = trainer.rollout
        rewards = sum(weighted(trainer.terms, trainer.rolled_out(rollout)).values())
        outcome, known = trainer.beside_others(rollout, rewards)
        prior = torch.from_numpy(trainer.prior(rollout, known))
        if trainer.step > 0:
            (part,) = trainer.learner.estimate(trainer.groups(rollout), outcome, 0.0, prior)
            yield Case(part, outcome.flatten().to(part.mask))
        trainer.trust = trainer.trust.including(known, outcome.numpy())


def gradients(trainer: PPOTrainer, case: Case) -> Iterator[tuple[tuple[bool, float], Tensor]]:
    """The policy's gradient, (weights,), with and without the critic and by lambda."""
    actor, mask = trainer.learner.actor, case.part.mask
    told = case.part.told or actor(case.part.packed, case.part.below)
    rewards = shaped_rewards(case.outcome, torch.zeros_like(mask), mask, 0.0)
    for critic in (False, True):
        for lam in LAMBDAS:
            advantages, _ = generalized_advantages(rewards, critic * case.part.prior, mask, 1.0, lam)
            gained = masked_mean(told.log_probs * whiten(advantages, mask), mask)
            own = torch.autograd.grad(gained, actor.adapter, retain_graph=True)
            yield (critic, lam), torch.cat([gradient.flatten() for gradient in own]).float()


def cosine(one: Tensor, other: Tensor) -> float:
    return torch.nn.functional.cosine_similarity(one, other, dim=0).item()


def compared(own: np.ndarray, without: np.ndarray) -> dict[str, float]:
    """Beside no critic at the same lambda, on the same rollouts."""
    gained = own - without
    return {"gain": float(gained.mean()), "gain_standard_error": float(gained.std(ddof=1) / len(gained) ** 0.5)}


def table_of(results: list[dict[str, float]]) -> Table:
    table = Table(
        "critic", "lambda", "cosine", "gain by the critic (s.e.)", title="One rollout's gradient beside many's"
    )
    for row in results:
        gain = f"{row['gain']:+.4f} ({row['gain_standard_error']:.4f})" if row["critic"] else ""
        table.add_row("reward-model" if row["critic"] else "none", f"{row['lambda']:.2f}", f"{row['cosine']:.4f}", gain)
    return table


if __name__ == "__main__":
    as_command(main)
