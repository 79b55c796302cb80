"""Our PPO on the case of `bench_ppo.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.ppo_case import Case, Clock, Timed
from rlpf_pipeline.models.adapters import ModelCard, attach_lora
from rlpf_pipeline.models.base import load_causal_lm, load_tokenizer, load_trunk
from rlpf_pipeline.models.reward_model import RewardModel
from rlpf_pipeline.training.job import accelerator, be_deterministic
from rlpf_pipeline.training.ppo_trainer import PPOTrainer
from rlpf_pipeline.training.reporter import Reporter


class Taste:
    """Stands in for a reward model: an original scores 0, a suggestion what `taste` says of it."""

    def __init__(self, taste: Callable[[str], float]) -> None:
        self.taste = taste

    def score(self, ads: Sequence[tuple[str | None, Sequence[str]]]) -> list[np.ndarray]:
        return [np.array([[0.0], *([self.taste(text)] for text in texts[1:])], np.float32) for _, texts in ads]


def time_ours(case: Case, cache: Path) -> Timed:
    """As jobs run: deterministic."""
    be_deterministic()
    trainer, clock = make_trainer(case, cache, random_scorer(case, cache)), Clock()
    clock.watch(trainer.sampler, "sample", "decode", lambda drawn: count_tokens(clock, drawn))
    clock.watch(trainer.reward_model, "score", "reward")
    clock.watch(trainer.learner, "estimate", "estimate", lambda parts: count_places(clock, parts))
    clock.watch(trainer.learner, "update", "update")
    reporter = Reporter("benchmark")
    for _ in range(case.steps):
        clock.begin_step()
        trainer.collect()
        trainer.learn(trainer.rollout, reporter)
    return clock.timed(case.texts)


def count_tokens(clock: Clock, drawn: list[list[list[int]]]) -> None:
    clock.tokens += sum(len(ids) for own in drawn for ids in own)


def count_places(clock: Clock, parts: list) -> None:
    clock.places += sum(part.packed.input_ids.numel() for part in parts)


def curve_of_ours(case: Case, cache: Path, taste: Callable[[str], float]) -> list[tuple[float, float]]:
    """KL (nats per text) and reward of each step's samples."""
    trainer = make_trainer(case, cache, Taste(taste))
    trainer.train(Reporter("benchmark"))
    return [(row["kl"], row["reward"]) for row in trainer.history]


def make_trainer(case: Case, cache: Path, reward_model: RewardModel | Taste) -> PPOTrainer:
    torch.manual_seed(case.seed)
    tokenizer = load_tokenizer(case.base, cache)
    prompts = case.make_prompts(tokenizer)
    policy = attach_lora(load_causal_lm(case.base, cache).to(accelerator().device), case.lora)
    return PPOTrainer(policy, tokenizer, reward_model, prompts, case.policy_settings(prompts), case.seed)


def random_scorer(case: Case, cache: Path) -> RewardModel:
    """A reward model on the base with a random head, its adapter merged as in the pipeline."""
    card = ModelCard(kind="reward", base=case.base, adapters=[])
    model = RewardModel(load_trunk(case.base, cache), load_tokenizer(case.base, cache), card)
    torch.manual_seed(case.seed)
    nn.init.normal_(model.head.weight)
    return model.to(accelerator().device)
