"""What the reward model learns, and what it refuses to learn from."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.models.frozen_layers import StateFile
from rlpf_pipeline.models.reward_model import RewardModel
from rlpf_pipeline.settings import RewardSettings
from rlpf_pipeline.training.reporter import Reporter
from rlpf_pipeline.training.reward_trainer import RewardTrainer, ordered, train_reward_model
from rlpf_pipeline.training.snapshot import Ad
from rlpf_pipeline_tests.training.reward_ads import make_ad
from rlpf_pipeline_tests.training.tiny_reward import SETTINGS, TRAIN, VALIDATION, make_model


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


def test_a_last_step_that_is_too_large_is_seen(cache: Path, states: StateFile) -> None:
    """One step in all and no validation ads: no loss is left that could tell."""
    settings = SETTINGS.model_copy(update={"epochs": 1, "tokens_per_batch": 10**6, "head_learning_rate": 1e38})
    with pytest.raises(UserError, match=r"gives scores that are not finite\. Train it again, with a lower reward\."):
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
