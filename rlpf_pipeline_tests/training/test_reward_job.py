"""The job of the reward model with several adapters, on the tiny base."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rlpf_pipeline.artifacts import Recipe, publish
from rlpf_pipeline.models.reward_folders import load_reward_model
from rlpf_pipeline.settings import LoraSettings, RewardSettings, Settings
from rlpf_pipeline.training.jobs import reward
from rlpf_pipeline.training.reporter import Reporter
from rlpf_pipeline.training.run_config import RunConfig
from rlpf_pipeline_tests.conftest import TINY
from rlpf_pipeline_tests.training.reward_ads import make_ads

TOP_LAYER = LoraSettings(top_layers=1)
SPLITS = {"train": make_ads(12, seed=1), "validation": make_ads(6, seed=2)}


@pytest.fixture(autouse=True)
def _ads(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("read_ads", "read_needed_ads"):
        monkeypatch.setattr(reward, name, lambda snapshot, split: SPLITS[split])


def config_of(home: Path, cache: Path, lora: LoraSettings | None = TOP_LAYER, **changes: object) -> RunConfig:
    settings = RewardSettings(heads=2, adapters=2, epochs=1, tokens_per_batch=100, lora=lora, **changes)
    return RunConfig(
        settings=Settings(profile="tiny", home=cache.parent, base=TINY, reward=settings),
        recipe=Recipe(stage="reward_model"),
        inputs={"preference_snapshot": home},
        output=home / "reward_model",
        options={"split": "train"},
    )


def run(config: RunConfig, reporter: Reporter) -> dict[str, object]:
    folder = config.output
    folder.mkdir(parents=True, exist_ok=True)
    return reward.work(config, folder, reporter)


def test_a_job_killed_in_its_second_adapter_keeps_the_first_and_ends_the_same(cache: Path, tmp_path: Path) -> None:
    class Dies(Reporter):
        told = 0

        def say(self, line: str) -> None:
            self.told += line == "adapter 2 of 2"

        def progress(self, *done: object, **figures: object) -> None:
            if self.told:
                raise KeyboardInterrupt

    whole, killed = config_of(tmp_path / "whole", cache), config_of(tmp_path / "killed", cache)
    metrics = run(whole, Reporter("test"))
    with pytest.raises(KeyboardInterrupt):
        run(killed, Dies("test"))
    first = tmp_path / "killed" / ".reward_model.member-1" / "head.safetensors"
    written = first.stat().st_mtime_ns
    assert run(killed, Reporter("test")) == metrics
    assert first.stat().st_mtime_ns == written
    for name in ("head.safetensors", "adapters/reward_model-1/adapter_model.safetensors"):
        one, other = load_file(whole.output / name), load_file(killed.output / name)
        assert all(np.array_equal(one[key].numpy(), other[key].numpy()) for key in one)


@pytest.mark.parametrize(("split", "refit"), [("train", True), ("evaluation", False)])
def test_the_evaluation_reward_model_does_not_learn_from_the_validation_ads(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: str, refit: bool
) -> None:
    """The reward model does, and the two must share no ad."""
    seen, train_reward_model = [], reward.train_reward_model

    def watched(*arguments: Any) -> dict[str, float]:
        seen.append(arguments[2].refit)
        return train_reward_model(*arguments)

    monkeypatch.setitem(SPLITS, "evaluation", make_ads(12, seed=3))
    monkeypatch.setattr(reward, "train_reward_model", watched)
    config = config_of(tmp_path, cache, solve_heads=True).model_copy(update={"options": {"split": split}})
    run(config, Reporter("test"))
    assert seen == [refit, refit]


def test_the_evaluation_reward_model_is_sure_of_other_texts(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where ads say nothing, a head is its draw of the prior: PPO's judge must not be of one mind with its reward."""
    monkeypatch.setitem(SPLITS, "evaluation", make_ads(12, seed=3))
    config = config_of(tmp_path, cache, solve_heads=True, average_adapters=True)
    own = []
    for split, stage in (("train", "reward_model"), ("evaluation", "evaluation_reward_model")):
        changes = {"options": {"split": split}, "recipe": Recipe(stage=stage), "output": tmp_path / stage}
        run(config.model_copy(update=changes), Reporter("test"))
        members = [
            load_file(tmp_path / f".{stage}.member-{number}" / "head.safetensors")["weight"] for number in (1, 2)
        ]
        own.append([(weight - weight.mean(0)).flatten() for weight in members])
    (one, other), (judge, _) = own
    for draws in (other, judge):
        assert abs(torch.cosine_similarity(one, draws, dim=0)) < 0.4


def test_adapters_differ_and_score_side_by_side_or_as_their_mean(cache: Path, tmp_path: Path) -> None:
    ads = [(ad.context, ad.texts) for ad in SPLITS["validation"]]
    config = config_of(tmp_path / "ensemble", cache)
    run(config, Reporter("test"))
    scores = np.concatenate(load_reward_model(config.output, cache).score(ads))
    assert scores.shape[1] == 4
    assert not np.allclose(scores[:, :2], scores[:, 2:], atol=1e-3)
    config = config_of(tmp_path / "mean", cache, average_adapters=True)
    run(config, Reporter("test"))
    assert np.concatenate(load_reward_model(config.output, cache).score(ads)).shape[1] == 2


def test_fully_tuned_members_become_their_mean_and_no_ensemble(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="average_adapters"):
        config_of(tmp_path, cache, lora=None)
    config = config_of(tmp_path / "mean", cache, lora=None, average_adapters=True)
    members = []

    def watched(member: Path, recipe: Recipe) -> AbstractContextManager[tuple[Path, dict[str, object]]]:
        members.append(member)
        return publish(member, recipe)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reward, "publish", watched)
        run(config, Reporter("test"))
    first, second = (dict(load_reward_model(member, cache).named_parameters()) for member in members)
    for name, weight in load_reward_model(config.output, cache).named_parameters():
        torch.testing.assert_close(weight, (first[name] + second[name]) / 2, rtol=1e-6, atol=1e-7)
    assert not torch.equal(first["head.weight"], second["head.weight"])
