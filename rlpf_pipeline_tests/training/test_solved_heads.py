"""Heads solved on the base's own states, against another optimiser and against training from zero."""

import math
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import optimize

from rlpf_pipeline.market.history import simulate_history
from rlpf_pipeline.models.frozen_layers import StateFile
from rlpf_pipeline.profiles import MIDDLE_OF_SMOLLM2
from rlpf_pipeline.settings import LoraSettings, MarketSettings
from rlpf_pipeline.training.reporter import Reporter
from rlpf_pipeline.training.reward_trainer import RewardTrainer, train_reward_model
from rlpf_pipeline.training.snapshot import Ad
from rlpf_pipeline.training.solved_heads import WITHOUT_VALIDATION, Pooled, prior_draws, solved_heads
from rlpf_pipeline_tests.conftest import needs_minilm
from rlpf_pipeline_tests.training.reward_ads import make_ad, make_ads
from rlpf_pipeline_tests.training.tiny_reward import SETTINGS, TRAIN, VALIDATION, make_model

SOLVED = SETTINGS.model_copy(update={"solve_heads": True})


def market_ads() -> list[Ad]:
    """The simulated market's ads; of two texts the one with the higher CTR is better with probability .9."""
    history = simulate_history(MarketSettings(advertisers=240)).to_pandas()
    ads = []
    for ad_id, rows in history.groupby("ad_id"):
        ctr = (rows["clicks"] / rows["impressions"]).to_numpy()
        p = [0.5 + 0.4 * float(np.sign(left - right)) for left, right in combinations(ctr, 2)]
        ads.append(make_ad(str(ad_id), tuple(rows["text"]), p))
    return ads


@pytest.fixture
def trainer(cache: Path, tmp_path: Path) -> Iterator[RewardTrainer]:
    with StateFile(tmp_path / "states", 10**8) as states:
        yield RewardTrainer(make_model(cache, SOLVED), TRAIN, SOLVED, 7, states, VALIDATION)


def test_both_minima_are_those_of_another_optimiser(trainer: RewardTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training ads alone, and with the validation ads; a prior for each state."""
    monkeypatch.setattr("rlpf_pipeline.training.solved_heads.PENALTIES", (0.3,))
    train, validation = (
        [own._replace(part=own.part.once()) for own in trainer.pooled(name, batches)]
        for name, batches in (("train", trainer.train), ("validation", trainer.validation))
    )
    device = train[0].states.device
    prior = torch.linspace(0.5, 1.5, train[0].states.shape[1], device=device)
    deviation = np.concatenate([own.states.double().cpu().numpy() for own in train]).std(axis=0) / prior.cpu().numpy()

    def loss_of(head: np.ndarray, pooled: list[Pooled]) -> float:
        loss = mass = 0.0
        for states, part, _, _ in pooled:
            scores = states.double().cpu().numpy() @ head
            odds = scores[part.left.cpu()] - scores[part.right.cpu()]
            p, weight = part.p.double().cpu().numpy(), part.weight.double().cpu().numpy()
            loss += weight @ (p * np.logaddexp(0, -odds) + (1 - p) * np.logaddexp(0, odds))
            mass += weight.sum()
        return float(loss / mass + 0.3 / 2 * np.square(head * deviation).sum())

    found = solved_heads(
        train, validation, prior_draws(1, len(prior), 0).to(device), prior, SOLVED, lambda own: own, True
    )
    for head, ads in ((found.judged, train), (found.refitted, [*train, *validation])):
        expected = optimize.minimize(loss_of, np.zeros(len(prior)), (ads,), options={"gtol": 1e-7})
        np.testing.assert_allclose(head[0].cpu().numpy(), expected.x, atol=1e-3 * np.abs(expected.x).max())
        assert loss_of(head[0].cpu().numpy(), ads) <= expected.fun + 1e-7


def test_each_head_is_solved_on_its_own_sample_and_epoch_0_is_judged(trainer: RewardTrainer) -> None:
    trainer.solve_heads()
    one, other = trainer.model.head.weight.detach()
    assert (one - other).abs().max() > 1e-3
    assert (trainer.best_epoch, trainer.step) == (0, 0)
    assert trainer.best_loss == pytest.approx(trainer.judge(trainer.validation)[0])
    assert trainer.best_loss < math.log(2) - 0.02


def test_heads_are_found_where_length_is_decorrelated(cache: Path, tmp_path: Path) -> None:
    """The squared correlation jumps at heads of zero; beyond them heads know more than zeros, whose loss is log 2."""
    settings = SOLVED.model_copy(update={"length_decorrelation": 0.5})
    with StateFile(tmp_path / "states", 10**8) as states:
        trainer = RewardTrainer(make_model(cache, settings), TRAIN, settings, 7, states, VALIDATION)
        trainer.solve_heads()
    assert trainer.best_loss < math.log(2)
    assert trainer.best_accuracy > 0.6


def test_a_state_that_does_not_vary_gets_no_weight(trainer: RewardTrainer) -> None:
    pooled = trainer.pooled("train", trainer.train)
    for own in pooled:
        own.states[:, 3] = 5.0
    draws = prior_draws(*trainer.model.head.weight.shape, 0).to(pooled[0].states.device)
    weight = solved_heads(pooled, [], draws, torch.ones_like(draws[0]), SOLVED, lambda own: own, False).judged
    assert (weight[:, 3] == 0).all()
    assert weight.abs().max() > 0


def test_draws_of_the_prior_have_mean_0_and_variance_1() -> None:
    draws = prior_draws(5, 20_000, 1)
    assert draws.mean(0).abs().max() < 1e-12
    assert draws.var(0).mean() * 4 / 5 == pytest.approx(1, abs=0.02)
    assert not prior_draws(1, 9, 1).any()


def test_heads_keep_their_draws_where_the_ads_say_nothing(trainer: RewardTrainer) -> None:
    """Two states that are always equal: nothing is known of their difference, and all of it is the prior's."""
    pooled = trainer.pooled("train", trainer.train)
    for own in pooled:
        own.states[:, 1] = own.states[:, 0]
    draws = prior_draws(2, pooled[0].states.shape[1], 3).to(pooled[0].states.device)
    weight = solved_heads(pooled, [], draws, torch.ones_like(draws[0]), SOLVED, lambda own: own, False).judged
    deviation = torch.cat([own.states[:, 0] for own in pooled]).double().std(correction=0)
    contrasts = sum(len(ad.texts) - 1 for ad in TRAIN)
    expected = (draws[:, 0] - draws[:, 1]) / math.sqrt(WITHOUT_VALIDATION * contrasts)
    torch.testing.assert_close((weight[:, 0] - weight[:, 1]) * deviation, expected, rtol=1e-3, atol=1e-4)


def test_the_mean_over_heads_is_a_single_heads_solution(cache: Path, tmp_path: Path) -> None:
    solved = []
    for heads in (1, 16):
        settings = SOLVED.model_copy(update={"heads": heads})
        with StateFile(tmp_path / str(heads), 10**8) as states:
            trainer = RewardTrainer(make_model(cache, settings), TRAIN, settings, 7, states)
            trainer.solve_heads()
        solved.append(trainer.model.head.weight.detach())
    one, many = solved
    assert (many.mean(0) - one[0]).norm() < 0.1 * (many - many.mean(0)).norm(dim=1).mean()


@needs_minilm
def test_the_spread_is_larger_on_texts_far_from_the_training_data(cache: Path, tmp_path: Path) -> None:
    """Learned from ads of the simulated market: its other ads, these with their words shuffled, and no ads at all."""
    settings = MIDDLE_OF_SMOLLM2.model_copy(update={"layers": None, "lora": LoraSettings(top_layers=1), "heads": 128})
    market = market_ads()
    model = make_model(cache, settings)
    with StateFile(tmp_path / "states", 10**8) as states:
        trainer = RewardTrainer(model, market[:-200], settings, 7, states)
        trainer.solve_heads()
    texts = [text for ad in market[-200:] for text in ad.texts]
    rng = np.random.default_rng(1)
    shuffled = [" ".join(rng.permutation(text.split())) for text in texts]
    nonsense = [
        "asdf 1234 %%%% $$$$",
        "SELECT ad FROM ads WHERE clicks > 10;",
        "the the the the the",
        "lorem ipsum dolor",
    ]
    spread, of_shuffled, of_nonsense = (
        model.score([(None, own)])[0].std(axis=1) for own in (texts, shuffled, nonsense)
    )
    difference = of_shuffled - spread
    assert difference.mean() > 3 * difference.std() / math.sqrt(len(texts))
    assert of_nonsense.min() > spread.mean()


@pytest.mark.parametrize("refit", [True, False])
def test_solved_heads_that_no_epoch_betters_learn_from_the_validation_ads(trainer: RewardTrainer, refit: bool) -> None:
    trainer.settings = SOLVED.model_copy(update={"refit": refit})
    trainer.solve_heads()
    judged = trainer.model.head.weight.detach().clone()
    trainer.take_best()
    kept = trainer.model.head.weight.detach()
    assert torch.equal(kept, judged) is not refit
    seen, _ = trainer.judge(trainer.validation)
    assert (seen < trainer.best_loss - 1e-4) if refit else (seen == pytest.approx(trainer.best_loss))


@pytest.mark.parametrize(("gain", "epoch"), [(0.0005, 0), (0.0015, 1)])
def test_an_epoch_replaces_refitted_heads_where_it_is_better_by_more_than_the_refit_brings(
    trainer: RewardTrainer, monkeypatch: pytest.MonkeyPatch, gain: float, epoch: int
) -> None:
    trainer.solve_heads()
    refitted = trainer.best[1].clone()
    monkeypatch.setattr(trainer, "judge", lambda _, loss=trainer.best_loss - gain: (loss, 0.7))
    trainer.step = trainer.steps_of_epoch
    trainer.end_epoch()
    assert trainer.best_epoch == epoch
    assert torch.equal(trainer.best[1], trainer.masters.flat[1] if epoch else refitted)


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
