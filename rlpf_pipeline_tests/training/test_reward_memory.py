"""However the memory of the reward model's training is bounded, losses and gradients are the same."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from rlpf_pipeline.models import frozen_layers
from rlpf_pipeline.models.frozen_layers import StateFile
from rlpf_pipeline.models.packing import Packed, run_packed
from rlpf_pipeline.settings import LoraSettings
from rlpf_pipeline.training.reward_trainer import RewardTrainer
from rlpf_pipeline_tests.training.reward_ads import WORDS, make_ad
from rlpf_pipeline_tests.training.tiny_reward import SETTINGS, TRAIN, VALIDATION, make_model


def test_frozen_layers_run_once_and_change_neither_scores_nor_gradients(
    cache: Path, states: StateFile, double_norm: None
) -> None:
    gradients = []
    for trainer in (RewardTrainer(make_model(cache, SETTINGS).double(), TRAIN, SETTINGS, 7, states) for _ in range(2)):
        with torch.no_grad():
            trainer.model.head.weight.copy_(torch.arange(128).view(2, 64) / 64)
        part = trainer.train.part(0)
        if gradients:
            trainer.cut = None
        else:
            trainer.scores("train", 0, part)
            trainer.cut.lower.forward = None  # type: ignore[union-attr]
        scores = trainer.scores("train", 0, part)
        weights = [p for p in trainer.model.trunk.parameters() if p.requires_grad]
        total = (scores * torch.arange(len(scores), device=scores.device)[:, None]).sum()
        gradients.append([scores, *torch.autograd.grad(total, weights)])
    for kept, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(kept, plain, rtol=0, atol=1e-10)


def test_states_that_do_not_fit_are_computed_each_time_and_their_file_has_no_name_to_be_left_under(
    tmp_path: Path,
) -> None:
    calls = []

    def compute() -> torch.Tensor:
        calls.append(1)
        return torch.arange(4, dtype=torch.bfloat16).view(2, 2)

    with StateFile(tmp_path / "states", limit=8) as file:
        assert list(tmp_path.iterdir()) == []
        for name in ("a", "b", "a", "b"):
            assert torch.equal(file.get(name, compute, "cpu"), torch.arange(4, dtype=torch.bfloat16).view(2, 2))
    assert len(calls) == 3


@pytest.mark.parametrize("top_layers", [2, None])
def test_activations_computed_again_give_the_same_gradients(
    cache: Path, tmp_path: Path, top_layers: int | None
) -> None:
    gradients, kept = [], []
    for again in (False, True):
        lora = LoraSettings(top_layers=top_layers)
        settings = SETTINGS.model_copy(update={"gradient_checkpointing": again, "lora": lora})
        with StateFile(tmp_path / f"states-{again}", 10**8) as states:
            trainer = RewardTrainer(make_model(cache, settings), TRAIN, settings, 7, states)
            torch.nn.init.normal_(trainer.model.head.weight)
            trainer.masters.step = lambda *_: None  # type: ignore[method-assign]
            saved: list[int] = []
            with torch.autograd.graph.saved_tensors_hooks(lambda t, own=saved: own.append(t.numel()) or t, lambda t: t):
                trainer.train_step()
            gradients.append(trainer.masters.flat[0].grad)
            kept.append(sum(saved))
    assert gradients[0].abs().max() > 1e-4
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-6)
    assert kept[1] < kept[0] / 2


@pytest.mark.parametrize("length_decorrelation", [0.0, 2.0])
def test_parts_of_a_batch_sum_to_its_loss_and_gradient(
    cache: Path, tmp_path: Path, length_decorrelation: float
) -> None:
    found = []
    for tokens in (400, 60):
        settings = SETTINGS.model_copy(
            update={"tokens_per_forward": tokens, "length_decorrelation": length_decorrelation}
        )
        with StateFile(tmp_path / f"states-{tokens}", 10**8) as own:
            trainer = with_random_heads(RewardTrainer(make_model(cache, settings), TRAIN, settings, 7, own, VALIDATION))
            trainer.train_step()
            loss = torch.tensor(trainer.running["loss"] / trainer.running["mass"])
            judged = torch.tensor(trainer.judge(trainer.validation))
            trainer.solve_heads()
            found.append([trainer.masters.flat[1].grad, loss, judged, trainer.model.head.weight.detach()])
            assert (len(trainer.train.parts) > len(trainer.train.batches)) == (tokens == 60)
    for whole, cut in zip(*found, strict=True):
        torch.testing.assert_close(cut, whole, rtol=1e-4, atol=1e-5)


def test_an_ad_larger_than_what_is_encoded_at_once_is_learned_from_in_pieces(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = tuple(f"{first} {second} {third}" for first in WORDS[:4] for second in WORDS[:3] for third in WORDS[:3])
    p = [0.5 + 0.4 * float(np.sign(one.count("e") - two.count("e"))) for one, two in combinations(texts, 2)]
    ads = [make_ad("large", texts, p, "Bakery"), *TRAIN[:3]]
    encoded: list[int] = []

    def spy(trunk: torch.nn.Module, packed: Packed, **inputs: torch.Tensor) -> torch.Tensor:
        encoded.append(packed.used)
        return run_packed(trunk, packed, **inputs)

    monkeypatch.setattr(frozen_layers, "run_packed", spy)
    found = []
    for tokens in (10_000, 100):
        settings = SETTINGS.model_copy(update={"tokens_per_forward": tokens, "tokens_per_batch": 10_000})
        with StateFile(tmp_path / f"states-{tokens}", 10**8) as own:
            trainer = with_random_heads(RewardTrainer(make_model(cache, settings), ads, settings, 7, own, ads))
            trainer.train_step()
            gradients = [flat.grad for flat in trainer.masters.flat]
            judged = torch.tensor(trainer.judge(trainer.validation))
            trainer.solve_heads()
        found.append([*gradients, judged, trainer.model.head.weight.detach()])
        assert (max(encoded) <= 100) == (tokens == 100)
        encoded.clear()
    for whole, cut in zip(*found, strict=True):
        assert whole.abs().max() > 1e-3
        torch.testing.assert_close(cut, whole, rtol=1e-3, atol=1e-5)


def test_decorrelation_adds_the_batchs_squared_correlation_of_reward_and_length(cache: Path, states: StateFile) -> None:
    found = []
    for decorrelation in (0.0, 3.0):
        settings = SETTINGS.model_copy(update={"tokens_per_forward": 60, "length_decorrelation": decorrelation})
        trainer = with_random_heads(RewardTrainer(make_model(cache, settings), TRAIN, settings, 7, states))
        trainer.train_step()
        found.append((trainer.running["loss"] / trainer.running["mass"], trainer.masters.flat[1].grad))
    number = int(np.random.default_rng([7, 0]).permutation(trainer.steps_of_epoch)[0])
    reward, length, weight = [], [], []
    for part in map(trainer.train.part, trainer.train.batches[number]):
        scores, lengths = trainer.model(part.pieces[0]).mean(1), part.lengths
        reward.append(scores[part.left] - scores[part.right])
        length.append((lengths[part.left] - lengths[part.right]).float())
        weight.append(part.weight)
    x, y, w = (torch.cat(values) for values in (reward, length, weight))
    # each pair counts in both directions, so that the means are 0
    mirrored = np.stack([torch.cat([values, -values]).detach().cpu().numpy() for values in (x, y)])
    covariance = np.cov(mirrored, aweights=np.tile(w.cpu().numpy(), 2), ddof=0)
    squared = covariance[0, 1] ** 2 / (covariance[0, 0] * covariance[1, 1])
    assert found[1][0] - found[0][0] == pytest.approx(3 * squared, rel=1e-4)
    assert squared > 0.02
    again = 3 * (w * x * y).sum() ** 2 / ((w * x * x).sum() * (w * y * y).sum())
    (expected,) = torch.autograd.grad(again, trainer.model.head.weight)
    torch.testing.assert_close(found[1][1] - found[0][1], expected.flatten(), rtol=1e-3, atol=1e-6)


def with_random_heads(trainer: RewardTrainer) -> RewardTrainer:
    """Heads that score, whose gradient is collected but no step taken."""
    with torch.no_grad():
        weight = trainer.model.head.weight
        weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(3)))
    trainer.masters.step = lambda *_: None  # type: ignore[method-assign]
    return trainer
