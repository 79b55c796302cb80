"""Best-of-n: nothing is trained; of every n texts that imitation v2 writes, the one with the highest reward is kept.

The comparator that costs only at writing time (Stiennon et al. 2020). Its model folder holds imitation v2's adapters,
the reward model that chooses (`reward_model/`), and n as `best_of` in model.json; `rlpf generate` and the policy
evaluation draw n texts for each one they keep.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from rlpf_pipeline.artifacts import read_manifest
from rlpf_pipeline.models.adapters import ModelCard, save_card
from rlpf_pipeline.models.reward_folders import load_reward_model
from rlpf_pipeline.models.reward_model import RewardModel
from rlpf_pipeline.settings import PolicySettings
from rlpf_pipeline.training.prompts import Prompt
from rlpf_pipeline.training.rewards import Responses, reward_terms, scored, weighted
from rlpf_pipeline.training.usual import as_measured

REWARD_MODEL = "reward_model"


class BestOf(NamedTuple):
    """Chooses one of every `n` texts, by the reward of the settings: the reward model's gain less penalties."""

    n: int
    reward_model: RewardModel
    tokenizer: PreTrainedTokenizerBase
    settings: PolicySettings

    @property
    def kl(self) -> float:
        """KL to the policy that is drawn from, at most: log n - (n - 1)/n nats per text (Beirami et al. 2024)."""
        return math.log(self.n) - (self.n - 1) / self.n

    def pick(self, prompts: Sequence[Prompt], drawn: Responses) -> list[list[list[int]]]:
        """Token ids [prompt][sample] of the best of each `n` texts in a row; of equal ones the first."""
        samples = scored(self.reward_model, self.tokenizer, prompts, drawn)
        rewards = sum(weighted(reward_terms(self.settings), samples).values())
        best = rewards.reshape(-1, self.n).argmax(1)
        flat = [ids for own in drawn for ids in own]
        kept = iter([flat[start * self.n + place] for start, place in enumerate(best)])
        return [[next(kept) for _ in range(len(own) // self.n)] for own in drawn]


def save_best_of(folder: Path, imitation: Path, reward_model: Path, n: int, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write the model folder from the folders of the imitation model and the reward model."""
    shutil.copytree(imitation / "adapters", folder / "adapters")
    shutil.copytree(reward_model, folder / REWARD_MODEL)
    save_card(folder, ModelCard.read(imitation).model_copy(update={"best_of": n}), tokenizer)


def load_best_of(
    folder: Path, tokenizer: PreTrainedTokenizerBase, settings: PolicySettings, cache: Path, device: torch.device
) -> BestOf | None:
    """How the policy of a model folder chooses among its texts; None where it keeps what it draws."""
    n, manifest = ModelCard.read(folder).best_of, read_manifest(folder)
    if n is None:
        return None
    if manifest is not None:
        settings = as_measured(settings, manifest.metrics)
    return BestOf(n, load_reward_model(folder / REWARD_MODEL, cache).to(device), tokenizer, settings)
