"""Members with random weights: what they score together, side by side and averaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from peft.tuners.lora import LoraLayer

from rlpf_pipeline.models.reward_ensemble import RewardEnsemble
from rlpf_pipeline.models.reward_folders import average_members, join_members, load_reward_model, save_reward_model
from rlpf_pipeline.models.reward_model import RewardModel, new_reward_model
from rlpf_pipeline.settings import LoraSettings, RewardSettings
from rlpf_pipeline_tests.conftest import TINY

ADS = [("bread", ["buy bread", "fresh bread here for you"]), (None, ["taste", "taste every day", "buy now"])]


def make_member(seed: int, folder: Path, cache: Path) -> RewardModel:
    torch.manual_seed(seed)
    settings = RewardSettings(heads=2, pooling="mean", lora=LoraSettings(rank=3, alpha=5, top_layers=1))
    model = new_reward_model(TINY, settings, settings.lora, "reward_model", cache)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.3)
        model.center.normal_()
    save_reward_model(model, folder)
    return model


@pytest.fixture(scope="module")
def folders(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    home = tmp_path_factory.mktemp("members")
    for seed in range(3):
        make_member(seed, home / str(seed), cache)
    return [home / str(seed) for seed in range(3)]


def test_members_side_by_side_score_as_each_alone(folders: list[Path], cache: Path, tmp_path: Path) -> None:
    join_members(folders, tmp_path / "joined")
    ensemble = load_reward_model(tmp_path / "joined", cache)
    assert isinstance(ensemble, RewardEnsemble)
    assert ensemble.cut is not None, "what the members share is encoded once"
    together = np.concatenate(ensemble.score(ADS))
    alone = np.concatenate([np.concatenate(load_reward_model(own, cache).score(ADS)) for own in folders], axis=1)
    assert together.shape == (5, 6)
    assert len(np.unique(together)) == 30
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5)


def test_the_mean_of_members_has_the_mean_of_their_weights(folders: list[Path], cache: Path, tmp_path: Path) -> None:
    average_members(folders, tmp_path / "mean")
    mean = load_reward_model(tmp_path / "mean", cache)
    members = [load_reward_model(own, cache) for own in folders]
    assert not isinstance(mean, RewardEnsemble)
    for name, weight in mean.state_dict().items():
        expected = torch.stack([member.state_dict()[name] for member in members]).mean(0)
        torch.testing.assert_close(weight, expected, rtol=0, atol=1e-6, msg=name)
    assert not any(isinstance(module, LoraLayer) for module in mean.modules())


def test_the_mean_of_one_member_is_that_member(folders: list[Path], tmp_path: Path) -> None:
    average_members(folders[:1], tmp_path / "mean")
    own = {path.relative_to(folders[0]): path for path in folders[0].rglob("*") if path.is_file()}
    assert {path.relative_to(tmp_path / "mean") for path in (tmp_path / "mean").rglob("*") if path.is_file()} == set(
        own
    )
    for name, path in own.items():
        if path.suffix == ".json":
            continue
        assert (tmp_path / "mean" / name).read_bytes() == path.read_bytes(), name
