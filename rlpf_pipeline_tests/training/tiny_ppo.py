"""A PPO run on the tiny model, with stand-ins for reward models: for tests, and for the script that is killed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from rlpf_pipeline.models.adapters import attach_lora
from rlpf_pipeline.models.base import load_causal_lm, load_tokenizer
from rlpf_pipeline.models.packing import Group
from rlpf_pipeline.settings import LoraSettings, PolicySettings
from rlpf_pipeline.training.job import accelerator
from rlpf_pipeline.training.ppo_trainer import Judges, PPOTrainer
from rlpf_pipeline.training.prompts import Prompt
from rlpf_pipeline.training.reporter import Reporter
from rlpf_pipeline.training.sharding import placed
from rlpf_pipeline_tests.conftest import TINY

QUIET = Reporter("test")
PROMPTS = [Prompt(f"ad{i}", None, "Bread.", [1, 30 + i, 31 + i], 4) for i in range(4)]
HELD_OUT = [Prompt(f"other{i}", None, "Bread.", [1, 40 + i, 31 + i], 4) for i in range(6)]
# The tiny model's hidden states are short, so its distribution is close to uniform whatever it learns; a low
# temperature lets it express a preference.
SHARP = {"temperature": 0.15, "learning_rate": 5e-3, "epochs": 4, "samples_per_prompt": 16}


class Likes:
    """Stands in for a reward model: a text's score is what `taste` says of it."""

    def __init__(self, taste: Callable[[str], float]) -> None:
        self.taste = taste

    def score(self, ads: Sequence[tuple[str | None, Sequence[str]]]) -> list[np.ndarray]:
        return [np.array([[self.taste(text)] for text in texts], np.float32) for _, texts in ads]


def likes_letter(letter: str) -> Likes:
    return Likes(lambda text: text.count(letter))


def tiny_trainer(
    cache: Path,
    reward: Likes | None = None,
    judge: Likes | None = None,
    prompts: Sequence[Prompt] = PROMPTS,
    lora: LoraSettings | None = None,
    **settings: object,
) -> PPOTrainer:
    torch.manual_seed(0)
    policy = placed(attach_lora(load_causal_lm(TINY, cache), lora or LoraSettings()), accelerator())
    defaults = {
        "prompts_per_step": 4,
        "samples_per_prompt": 8,
        "max_new_tokens": 6,
        "missing_eos_penalty": 0.0,
        "length": "none",
    }
    ppo = PolicySettings.model_validate(defaults | settings)
    judges = Judges(judge, HELD_OUT) if judge else None  # type: ignore[arg-type]
    return PPOTrainer(policy, load_tokenizer(TINY, cache), reward or likes_letter("e"), prompts, ppo, 1, judges)  # type: ignore[arg-type]


def step(ppo: PPOTrainer) -> dict[str, float]:
    """One PPO step: rollout and update."""
    ppo.collect()
    ppo.learn(ppo.rollout, QUIET)
    return ppo.history[-1]


def groups_of(ppo: PPOTrainer) -> list[Group]:
    """Of fresh samples."""
    ppo.collect()
    return ppo.groups(ppo.rollout)


def scores_of(ppo: PPOTrainer) -> torch.Tensor:
    return torch.tensor(ppo.rollout.gains)[..., 0]
