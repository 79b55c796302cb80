import math
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.models import frozen_layers
from rlpf_pipeline.models.frozen_layers import StateFile
from rlpf_pipeline.models.packing import Packed, run_packed
from rlpf_pipeline.models.reward_folders import save_reward_model
from rlpf_pipeline.models.reward_model import RewardModel, new_reward_model
from rlpf_pipeline.settings import BaseModelSettings, LoraSettings, RewardSettings
from rlpf_pipeline.training.checkpoints import Checkpoints
from rlpf_pipeline.training.reporter import Reporter
from rlpf_pipeline.training.reward_trainer import RewardTrainer, ordered, train_reward_model
from rlpf_pipeline.training.snapshot import Ad
from rlpf_pipeline_tests.conftest import TINY
from rlpf_pipeline_tests.training.reward_ads import WORDS, make_ad, make_ads

SETTINGS = RewardSettings(
    heads=2, epochs=3, tokens_per_batch=400, checkpoint_every=1, learning_rate=5e-3, lora=LoraSettings(top_layers=2)
)
TRAIN, VALIDATION = make_ads(40, seed=1), make_ads(15, seed=2)


@pytest.fixture
def states(tmp_path: Path) -> Iterator[StateFile]:
    with StateFile(tmp_path / "states", 10**8) as file:
        yield file


def make_model(cache: Path, settings: RewardSettings, base: BaseModelSettings = TINY) -> RewardModel:
    torch.manual_seed(0)
    return new_reward_model(base, settings, settings.lora, "reward_model", cache)


def train(model: RewardModel, settings: RewardSettings, states: StateFile, **options: object) -> dict[str, float]:
    return train_reward_model(model, TRAIN, settings, 7, Reporter("test"), states, **options)  # type: ignore[arg-type]


def test_it_learns_what_the_labels_say(cache: Path, states: StateFile) -> None:
    settings = SETTINGS.model_copy(update={"epochs": 8, "patience": 8, "head_learning_rate": 5e-2})
    figures = train(make_model(cache, settings), settings, states, validation=VALIDATION)
    assert figures["validation_accuracy"] > 0.75
    assert figures["validation_loss"] < math.log(2)
    assert figures["padding_share"] <= 0.15  # batches of 400 tokens, rounded up to 50


def test_a_tie_counts_as_a_half(cache: Path, states: StateFile) -> None:
    ads = [make_ad("a", ("one", "two", "three"), [0.9, 0.2, 0.5])]
    trainer = RewardTrainer(make_model(cache, SETTINGS), ads, SETTINGS, 7, states, VALIDATION)
    assert trainer.judge(trainer.validation)[1] == 0.5  # heads of zero, to which all texts are alike
    part = trainer.train.part(0)
    # pairs in order: (0,1) (0,2) (1,2); right, wrong, even label; then two of the scores are equal
    assert ordered(torch.tensor([3.0, 2.0, 1.0]), part) == 1.5
    assert ordered(torch.tensor([2.0, 2.0, 1.0]), part) == 1.0


@pytest.mark.slow
def test_compiled_layers_learn_what_plain_ones_learn(cache: Path, states: StateFile) -> None:
    plain, compiled = (SETTINGS.model_copy(update={"compile": chosen, "epochs": 1}) for chosen in (False, True))
    figures = [train(make_model(cache, own), own, states) for own in (plain, compiled)]
    assert figures[1] == pytest.approx(figures[0], abs=1e-5)


def test_full_fine_tuning_moves_every_weight(cache: Path, states: StateFile) -> None:
    settings = SETTINGS.model_copy(update={"epochs": 8, "patience": 8, "lora": None, "learning_rate": 1e-3})
    model, untrained = make_model(cache, settings), make_model(cache, settings)
    figures = train(model, settings, states, validation=VALIDATION)
    assert figures["validation_accuracy"] > 0.75
    assert figures["validation_loss"] < math.log(2)
    assert states.bytes == 0, "no layer is frozen"
    unmoved = [
        name
        for (name, weight), before in zip(model.trunk.named_parameters(), untrained.trunk.parameters(), strict=True)
        if torch.equal(weight.cpu(), before.cpu())
    ]
    assert unmoved == []


def test_scores_of_the_training_texts_have_mean_0(cache: Path, states: StateFile) -> None:
    model = make_model(cache, SETTINGS)
    train(model, SETTINGS, states)
    scores = np.concatenate(model.score([(ad.context, ad.texts) for ad in TRAIN]))
    assert scores.std(axis=0).min() > 0.01
    np.testing.assert_allclose(scores.mean(axis=0), 0, atol=1e-5)


def test_a_model_that_learned_nothing_is_refused(cache: Path, states: StateFile) -> None:
    """Heads that start at zero and never move."""
    settings = SETTINGS.model_copy(update={"head_learning_rate": 0.0, "epochs": 1})
    with pytest.raises(UserError, match="gives every text the same score"):
        train(make_model(cache, settings), settings, states)


@pytest.mark.parametrize(("limit", "share"), [(3, 0.5), (48, 0.0)])
def test_the_share_of_texts_that_are_cut_is_told(
    cache: Path, states: StateFile, capsys: pytest.CaptureFixture[str], limit: int, share: float
) -> None:
    settings = SETTINGS.model_copy(update={"max_text_tokens": limit})
    model = make_model(cache, settings)
    texts = ("e", "eee", "o o o o o o", "a e i o u e i o u")
    assert [len(model.tokenizer(text)["input_ids"]) > 3 for text in texts] == [False, False, True, True]
    ads = [make_ad("a", texts, [0.6] * 6), make_ad("b", texts[:2], [0.6])]
    figures = train_reward_model(model, ads, settings, 7, Reporter("test"), states)
    assert figures["cut_share"] == share
    line = "50% of the texts are cut at 3 tokens"
    assert (line in capsys.readouterr().out) == (share > 0)


def test_a_pointwise_model_orders_texts_by_their_ctr(cache: Path, states: StateFile) -> None:
    """Log CTRs grow with the letters e. The labels of the pairs, which say the opposite, are not looked at."""
    settings = SETTINGS.model_copy(update={"objective": "pointwise", "epochs": 8, "head_learning_rate": 5e-2})

    def rated(ads: list[Ad]) -> list[Ad]:
        return [
            ad._replace(
                impressions=(10_000,) * len(ad.texts),
                clicks=tuple(round(100 * 1.5 ** text.count("e")) for text in ad.texts),
                p_left_better=1 - ad.p_left_better,
            )
            for ad in ads
        ]

    model = make_model(cache, settings)
    train_reward_model(model, rated(TRAIN), settings, 7, Reporter("test"), states, rated(VALIDATION))
    texts = [text for ad in VALIDATION for text in ad.texts]
    scores = np.concatenate(model.score([(ad.context, ad.texts) for ad in VALIDATION])).mean(axis=1)
    assert np.corrcoef(scores, [text.count("e") * math.log(1.5) for text in texts])[0, 1] > 0.7


def test_a_margin_is_taken_from_both_sides(cache: Path, states: StateFile) -> None:
    settings = SETTINGS.model_copy(update={"margin": 1.0})
    trainer = RewardTrainer(make_model(cache, settings), TRAIN, settings, 1, states, VALIDATION)
    # equal scores, whatever p: p log(1 + e) + (1 - p) log(1 + e)
    assert trainer.judge(trainer.validation)[0] == pytest.approx(math.log(1 + math.e))


def test_the_first_loss_is_log_two_and_its_gradient_that_of_bradley_and_terry(cache: Path, states: StateFile) -> None:
    settings = SETTINGS.model_copy(update={"heads": 1})
    model = make_model(cache, settings)
    trainer = RewardTrainer(model, [make_ad("a", ("Bread.", "Buy bread now."), [0.8])], settings, 1, states)
    part = trainer.train.part(0)
    pooled = model.pool(trainer.cut.above(trainer.cut.below(part.pieces[0]), part.pieces[0]), part.pieces[0]).detach()
    weights = trainer.masters.flat[1]
    trainer.masters.step = lambda *_: None  # type: ignore[method-assign]
    trainer.train_step()
    assert trainer.running["loss"] / trainer.running["mass"] == pytest.approx(math.log(2))
    # (1/2 - 0.8) times the difference of the texts' states, scaled as the head scales them
    expected = -0.3 * (pooled[0] - pooled[1]) / math.sqrt(pooled.shape[1])
    torch.testing.assert_close(weights.grad, expected, rtol=1e-4, atol=1e-7)


def test_tied_texts_pull_nowhere(cache: Path, states: StateFile) -> None:
    model = make_model(cache, SETTINGS)
    trainer = RewardTrainer(model, [make_ad("a", ("Bread.", "Buy bread now."), [0.5])], SETTINGS, 1, states)
    trainer.train_step()
    assert torch.equal(model.head.weight, torch.zeros_like(model.head.weight))


def test_an_ad_of_one_text_has_no_pair_and_changes_nothing(cache: Path, states: StateFile) -> None:
    model = make_model(cache, SETTINGS)
    ads = [make_ad("a", ("Bread.",), []), make_ad("tied", ("Bread.", "Buy bread now."), [0.5])]
    RewardTrainer(model, ads, SETTINGS, 1, states).train_step()
    assert torch.equal(model.head.weight, torch.zeros_like(model.head.weight))


def test_labels_that_are_no_numbers_are_refused(cache: Path, states: StateFile) -> None:
    broken = make_ad("ad-7", ("Bread.", "Buy bread now."), [math.nan])
    with pytest.raises(UserError, match=r"Ad ad-7 has pairs whose p_left_better or weight is no finite number"):
        RewardTrainer(make_model(cache, SETTINGS), [broken], SETTINGS, 1, states)


def test_a_split_without_any_pair_that_counts_is_refused(cache: Path, states: StateFile) -> None:
    settings = SETTINGS.model_copy(update={"max_p_value": 0.05})
    ad = make_ad("a", ("Bread.", "Buy bread now."), [0.8])
    train, validation = ([ad._replace(p_value=np.array([p_value]))] for p_value in (0.01, 0.5))
    with pytest.raises(UserError, match=r"Of the 1 pairs .* none counts.* reward.max_p_value \(0.05\)"):
        RewardTrainer(make_model(cache, settings), train, settings, 1, states, validation)
    RewardTrainer(make_model(cache, settings), train, settings, 1, states, train)


@pytest.mark.parametrize("changes", [{}, {"solve_heads": True}, {"lora": None}], ids=["lora", "solved heads", "full"])
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(
    cache: Path, tmp_path: Path, changes: dict[str, object], deterministic: None
) -> None:
    settings = SETTINGS.model_copy(update=changes)

    def finish(name: str, stop_at: int | None) -> dict[str, torch.Tensor]:
        checkpoints = Checkpoints(tmp_path / f".{name}.checkpoint", "recipe")

        class Dies(Reporter):
            def progress(self, done: int, total: int, *rest: object, **figures: object) -> None:
                if done == stop_at:
                    raise KeyboardInterrupt

        for reporter in (Dies("test"), Reporter("test")):
            model = make_model(cache, settings)
            with StateFile(tmp_path / "states", 10**8) as states:
                try:
                    train_reward_model(model, TRAIN, settings, 7, reporter, states, VALIDATION, checkpoints)
                except KeyboardInterrupt:
                    continue
            break
        save_reward_model(model, tmp_path / name)
        return saved_tensors(tmp_path / name)

    whole = finish("whole", None)
    steps = len(RewardTrainer(make_model(cache, SETTINGS), TRAIN, SETTINGS, 7, StateFile(tmp_path, 0)).train.batches)
    stop_at = int(np.random.default_rng().integers(2, 3 * steps))
    resumed = finish("killed", stop_at)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole), f"killed at step {stop_at}"


def test_a_checkpoint_of_other_settings_is_not_taken_up(tmp_path: Path, cache: Path, states: StateFile) -> None:
    trainer = RewardTrainer(make_model(cache, SETTINGS), TRAIN, SETTINGS, 7, states)
    trainer.train_step()
    Checkpoints(tmp_path / "c", "these").save(trainer.checkpoint())
    assert Checkpoints(tmp_path / "c", "others").load() is None
    assert Checkpoints(tmp_path / "c", "these").load().state["step"] == 1


def test_training_stops_when_validation_no_longer_improves_and_keeps_the_best(cache: Path, states: StateFile) -> None:
    settings = SETTINGS.model_copy(update={"epochs": 6, "patience": 2})
    model = make_model(cache, settings)
    trainer = RewardTrainer(model, TRAIN, settings, 7, states, VALIDATION)
    losses = iter([0.69, 0.60, 0.65, 0.61])
    trainer.judge = lambda _: (next(losses), 0.5)  # type: ignore[method-assign]
    heads = []
    while not trainer.finished:
        trainer.train_step()
        if trainer.epoch_is_over:
            trainer.end_epoch()
            heads.append(model.head.weight.detach().clone())
    trainer.take_best()
    assert len(heads) == 4
    assert trainer.best_epoch == 2
    assert torch.equal(model.head.weight, heads[1])


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


@pytest.mark.slow
@pytest.mark.parametrize("start", ["zero", "solved"])
def test_two_ranks_give_what_one_gives(cache: Path, tmp_path: Path, start: str) -> None:
    found = []
    for ranks in (1, 2):
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(ranks), "--standalone"]
        script = ["-m", "rlpf_pipeline_tests.training.rank_job", str(cache), str(tmp_path / str(ranks)), start]
        environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
        subprocess.run([*command, *script], check=True, env=environment)
        found.append(saved_tensors(tmp_path / str(ranks)))
    one, two = found
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=0, atol=1e-5, msg=name)
    assert one["weight"].abs().max() > 1e-3
    trained = any(tensor.any() for name, tensor in one.items() if "lora_B" in name)
    assert trained or start == "solved"


def saved_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a reward model's folder."""
    return {name: own for file in folder.rglob("*.safetensors") for name, own in load_file(file).items()}
