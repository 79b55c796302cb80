"""A reward model on the tiny base, and ads that it can learn."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from rlpf_pipeline.models.reward_model import RewardModel, new_reward_model
from rlpf_pipeline.settings import LoraSettings, RewardSettings
from rlpf_pipeline_tests.conftest import TINY
from rlpf_pipeline_tests.training.reward_ads import make_ads

SETTINGS = RewardSettings(
    heads=2, epochs=3, tokens_per_batch=400, checkpoint_every=1, learning_rate=5e-3, lora=LoraSettings(top_layers=2)
)
TRAIN, VALIDATION = make_ads(40, seed=1), make_ads(15, seed=2)


def make_model(cache: Path, settings: RewardSettings) -> RewardModel:
    torch.manual_seed(0)
    return new_reward_model(TINY, settings, settings.lora, "reward_model", cache)


def saved_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a reward model's folder."""
    return {name: own for file in folder.rglob("*.safetensors") for name, own in load_file(file).items()}
