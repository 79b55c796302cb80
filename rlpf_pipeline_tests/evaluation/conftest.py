"""Fixtures shared by the tests of evaluation."""

from pathlib import Path

import pytest
import torch

from rlpf_pipeline.models.reward_model import RewardModel, new_reward_model
from rlpf_pipeline.settings import LoraSettings, RewardSettings
from rlpf_pipeline_tests.conftest import TINY


@pytest.fixture(scope="module")
def trained(cache: Path) -> RewardModel:
    """A tiny reward model whose adapter and heads are random."""
    model = new_reward_model(TINY, RewardSettings(), LoraSettings(), "reward_model", cache)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model
