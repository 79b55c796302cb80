"""Heads solved on the base's own states, against another optimiser and against training from zero."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import optimize

from rlpf_pipeline.models.frozen_layers import StateFile
from rlpf_pipeline.training.reporter import Reporter
from rlpf_pipeline.training.reward_trainer import RewardTrainer, once, part_loss, train_reward_model
from rlpf_pipeline.training.solved_heads import deviations, mean_loss, minimised, solved_heads
from rlpf_pipeline_tests.training.reward_ads import make_ads
from rlpf_pipeline_tests.training.test_reward_trainer import SETTINGS, TRAIN, VALIDATION, make_model

SOLVED = SETTINGS.model_copy(update={"solve_heads": True})


@pytest.fixture
def trainer(cache: Path, tmp_path: Path) -> Iterator[RewardTrainer]:
    with StateFile(tmp_path / "states", 10**8) as states:
        yield RewardTrainer(make_model(cache, SOLVED), TRAIN, SOLVED, 7, states, VALIDATION)


def test_the_minimum_is_that_of_another_optimiser(trainer: RewardTrainer) -> None:
    pooled = [own._replace(part=once(own.part)) for own in trainer.pooled("train", trainer.train)]
    states = np.concatenate([own.states.double().numpy() for own in pooled])
    first = np.cumsum([0, *(len(own.states) for own in pooled)])[:-1]
    left, right = (
        np.concatenate([getattr(own.part, side).numpy() + start for own, start in zip(pooled, first, strict=True)])
        for side in ("left", "right")
    )
    p, weight = (
        np.concatenate([getattr(own.part, name).double().numpy() for own in pooled]) for name in ("p", "weight")
    )
    difference = (states[left] - states[right]) / states.std(axis=0)

    def penalised(head: np.ndarray) -> float:
        odds = difference @ head
        loss = p * np.logaddexp(0, -odds) + (1 - p) * np.logaddexp(0, odds)
        return float((weight * loss).sum() / weight.sum() + 0.3 / 2 * head @ head)

    expected = optimize.minimize(penalised, np.zeros(states.shape[1]), options={"gtol": 1e-7})
    deviation = deviations(pooled, states.shape[1], lambda tensor: tensor)
    scaled = [own._replace(states=own.states / deviation) for own in pooled]

    def loss_of(own: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return mean_loss(own, scaled, lambda scores, part: part_loss(scores, part, SOLVED), lambda tensor: tensor)

    found = minimised(torch.zeros(1, states.shape[1], dtype=torch.float64), 0.3, loss_of)[0].numpy()
    np.testing.assert_allclose(found, expected.x, atol=1e-3 * np.abs(expected.x).max())
    assert penalised(found) <= expected.fun + 1e-7


def test_each_head_is_solved_on_its_own_sample_and_epoch_0_is_judged(trainer: RewardTrainer) -> None:
    trainer.solve_heads()
    one, other = trainer.model.head.weight.detach()
    assert (one - other).abs().max() > 1e-3
    assert (trainer.best_epoch, trainer.step) == (0, 0)
    assert trainer.best_loss == pytest.approx(trainer.judge(trainer.validation)[0])
    assert trainer.best_loss < math.log(2) - 0.02


def test_a_state_that_does_not_vary_gets_no_weight(trainer: RewardTrainer) -> None:
    pooled = trainer.pooled("train", trainer.train)
    for own in pooled:
        own.states[:, 3] = 5.0
    zero = torch.zeros_like(trainer.model.head.weight)
    weight = solved_heads(pooled, [], zero, lambda scores, part: part_loss(scores, part, SOLVED), lambda tensor: tensor)
    assert (weight[:, 3] == 0).all()
    assert weight.abs().max() > 0


def test_epochs_that_are_no_better_leave_the_solved_heads(cache: Path, tmp_path: Path) -> None:
    wild = SOLVED.model_copy(update={"learning_rate": 0.5, "head_learning_rate": 5.0, "epochs": 1})
    model = make_model(cache, wild)
    with StateFile(tmp_path / "states", 10**8) as states:
        figures = train_reward_model(model, TRAIN, wild, 7, Reporter("test"), states, VALIDATION)
    assert figures["epochs"] == 0
    assert figures["validation_loss"] < math.log(2)


def test_more_ads_than_the_start_takes_are_left_to_the_epochs(
    trainer: RewardTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlpf_pipeline.training.reward_trainer.MOST_TEXTS", 30)
    few = trainer.pooled("train", trainer.train)
    assert 30 <= sum(len(own.states) for own in few) < sum(len(ad.texts) for ad in make_ads(40, seed=1))
