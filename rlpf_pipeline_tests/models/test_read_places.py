"""What the top layer leaves out is never seen: the same scores and gradients, by fewer products."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rlpf_pipeline.models.adapters import layers_of, trained_parameters
from rlpf_pipeline.models.packing import SHAPE_STEP
from rlpf_pipeline.models.read_places import places_read, skip_unread
from rlpf_pipeline.models.reward_model import RewardModel, new_reward_model
from rlpf_pipeline.settings import LoraSettings, RewardSettings
from rlpf_pipeline_tests.conftest import TINY
from rlpf_pipeline_tests.models.test_packing import GROUPS


def model_of(cache: Path, **settings: object) -> RewardModel:
    torch.manual_seed(0)
    model = new_reward_model(TINY, RewardSettings.model_validate(settings), LoraSettings(), "reward_model", cache)
    for parameter in trained_parameters(model):
        torch.nn.init.normal_(parameter, std=0.3)
    return model.double()


def rows_of_the_top_mlp(model: RewardModel) -> list[int]:
    seen: list[int] = []
    projection = layers_of(model.trunk)[-1].mlp.down_proj
    projection.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[:-1].numel()))
    return seen


@pytest.mark.usefixtures("double_norm")
def test_scores_and_gradients_are_those_of_all_states(cache: Path) -> None:
    model = model_of(cache)
    skip_unread(model.trunk)  # a second time changes nothing
    packed, seen = model.pack(GROUPS), rows_of_the_top_mlp(model)
    found = []
    for batch in (packed, packed._replace(read=None)):
        model.zero_grad()
        scores = model(batch)
        (scores * torch.arange(1.0, 6.0)[:, None]).sum().backward()
        found.append([scores.detach(), *(parameter.grad for parameter in trained_parameters(model))])
    assert seen == [SHAPE_STEP, packed.input_ids.numel()]
    for fewer, every in zip(*found, strict=True):
        torch.testing.assert_close(fewer, every, rtol=0, atol=1e-10)


def test_a_mean_over_tokens_reads_all_of_them(cache: Path) -> None:
    assert model_of(cache, pooling="mean").pack(GROUPS).read is None


def test_other_places_fill_up_the_shape_each_once() -> None:
    read = places_read(torch.tensor([1, 0]), torch.tensor([2, 3]), (2, 5), count=4)
    assert len(read.places) == 4
    assert {3, 7} < set(read.places.tolist()) <= set(range(10))
    everywhere = torch.arange(3)
    assert places_read(torch.zeros(3, dtype=torch.int64), everywhere, (1, 3), count=8).places.tolist() == [0, 1, 2]
