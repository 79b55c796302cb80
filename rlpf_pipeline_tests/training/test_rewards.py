from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rlpf_pipeline.models.base import load_tokenizer
from rlpf_pipeline.settings import PolicySettings
from rlpf_pipeline.training import rewards
from rlpf_pipeline.training.prompts import Prompt
from rlpf_pipeline.training.rewards import Samples, head_gains, reward_terms, samples_of, weighted
from rlpf_pipeline_tests.conftest import TINY, needs_minilm

SAMPLES = Samples(
    gains=np.array([[1.0, 3.0], [0.5, 0.5], [0.0, 2.0], [-1.0, 1.0]]),
    texts=["buy buy Buy now", "fresh bread", "", "a b a b"],
    originals=["Fresh bread, baked at dawn."] * 4,
    tokens=np.array([4, 6, 16, 18]),  # three of them with their end mark
    original_tokens=np.full(4, 10),
    finished=np.array([True, True, True, False]),
)


def terms_of(**settings: object) -> dict[str, list[float]]:
    terms = reward_terms(PolicySettings.model_validate(settings))
    return {name: values.tolist() for name, values in weighted(terms, replace(SAMPLES)).items()}


def test_the_reward_is_the_mean_gain_less_lambda_times_the_spread_of_the_heads() -> None:
    terms = terms_of(spread_penalty=0.5, usual_spread=0.0)
    assert terms["gain"] == [2.0, 0.5, 1.0, 0.0]
    # half the distance of two heads is their standard deviation: 1, 0, 1, 1
    assert terms["spread"] == [-0.5, 0.0, -0.5, -0.5]


def test_the_usual_spread_costs_nothing() -> None:
    assert terms_of(spread_penalty=2.0, usual_spread=0.75)["spread"] == [-0.5, 0.0, -0.5, -0.5]
    assert terms_of(spread_penalty=2.0, usual_spread=1.5)["spread"] == [0.0, 0.0, 0.0, 0.0]


def test_length_costs_only_outside_the_band() -> None:
    # free from 5 to 15 tokens, then half a point each
    assert terms_of(length_penalty=0.5, shortest=0.5, longest=1.5)["length"] == [-1.0, 0.0, 0.0, -1.5]


def test_linear_length_costs_every_token() -> None:
    assert terms_of(length="linear", length_penalty=0.1)["length"] == pytest.approx([-0.3, -0.5, -1.5, -1.8])


def test_a_length_costs_the_nats_by_which_people_s_texts_seldom_have_it() -> None:
    double = replace(SAMPLES, tokens=np.array([11, 21, 6, 40]))
    # z of the same length, twice, half and four times it, at a deviation of log 2: 0, 1, -1, 2
    settings = PolicySettings(length="curve", length_penalty=3.0, usual_length=float(np.log(2)))
    assert weighted(reward_terms(settings), double)["length"].tolist() == pytest.approx([0.0, -1.5, -1.5, -6.0])


def test_an_empty_text_is_as_long_as_one_token() -> None:
    settings = PolicySettings(length="curve", length_penalty=2.0, usual_length=float(np.log(10)))
    empty = replace(SAMPLES, tokens=np.array([1, 2, 11, 10]))  # an end mark alone, a token, ten of them twice
    assert weighted(reward_terms(settings), empty)["length"].tolist() == pytest.approx([-1.0, -1.0, 0.0, 0.0])


def test_a_copy_is_as_long_as_its_original(cache: Path) -> None:
    tokenizer = load_tokenizer(TINY, cache)
    copy = tokenizer("Fresh bread.", add_special_tokens=False)["input_ids"]
    prompt = Prompt("ad", None, "Fresh bread.", [1], len(copy))
    samples = samples_of(tokenizer, [prompt], [[[*copy, tokenizer.eos_token_id]]], np.zeros((1, 1)))
    exact = PolicySettings(length_penalty=1.0, shortest=1.0, longest=1.0)
    assert weighted(reward_terms(exact), samples)["length"].tolist() == [0.0]


@pytest.mark.parametrize(
    ("name", "settings"), [("usual_length", {"length": "curve"}), ("usual_spread", {"spread_penalty": 1.0})]
)
def test_what_is_usual_has_to_be_known(name: str, settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=name):
        reward_terms(PolicySettings.model_validate(settings))
    assert reward_terms(PolicySettings.model_validate({**settings, name: 0.5}))


def test_an_unfinished_text_is_penalised() -> None:
    assert terms_of(missing_eos_penalty=2.0)["missing_eos"] == [0.0, 0.0, 0.0, -2.0]


def test_repeated_words_cost_their_share() -> None:
    # two of "buy buy Buy now" repeat, none, no word at all, two of four
    assert terms_of(repetition_penalty=1.0)["repetition"] == [-0.5, 0.0, 0.0, -0.5]


def test_a_text_costs_what_its_cosine_with_the_original_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewards, "cosines", lambda texts, originals: np.array([0.25, 0.5, -0.5, 0.875]))
    # lacking .25 and 1 to .5, at two a unit
    assert terms_of(off_topic_penalty=2.0, least_relevance=0.5)["off_topic"] == [-0.5, 0.0, -2.0, 0.0]


def test_a_copy_costs_all_and_a_near_one_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewards, "cosines", lambda texts, originals: np.array([1.0, 0.875, 0.75, -0.5]))
    # from .75 on: all the way, half of it, not at all, not at all
    assert terms_of(copy_penalty=2.0, most_relevance=0.75)["copy"] == [-2.0, -1.0, 0.0, 0.0]


def test_a_formula_costs_the_share_of_other_originals_texts_that_have_it() -> None:
    shared = replace(SAMPLES, texts=["You can", "You will", "Bake.", ""], originals=["a", "b", "b", "c"])
    # one of three others begins with "you", one of two others does; nothing is shared; there is no word
    values = weighted(reward_terms(PolicySettings(formula_penalty=3.0)), shared)["formula"]
    assert values.tolist() == [-1.0, -1.5, 0.0, 0.0]


@needs_minilm
def test_a_text_about_something_else_is_off_topic() -> None:
    loaves = replace(
        SAMPLES, texts=["Loaves warm from our oven each morning.", "You can try it out.", "", "Buy a car."]
    )
    terms = reward_terms(PolicySettings(off_topic_penalty=1.0))
    kept, *strayed = weighted(terms, loaves)["off_topic"]
    assert kept == 0.0
    assert max(strayed) < -0.1


def test_a_term_without_weight_is_left_out() -> None:
    assert set(terms_of(length="none", missing_eos_penalty=0.0)) == {"gain"}


def test_a_gain_is_a_score_less_the_one_of_the_own_original() -> None:
    class Words:
        def score(self, ads):  # type: ignore[no-untyped-def]
            return [np.array([[len(text.split()), 2.0 * len(text.split())] for text in texts]) for _, texts in ads]

    prompts = [Prompt("a", None, "one two", [1], 2), Prompt("b", None, "one", [1], 1)]
    texts = [["one", "one two three"], ["one", "one two"]]
    assert head_gains(Words(), prompts, texts).tolist() == [[-1, -2], [1, 2], [0, 0], [1, 2]]  # type: ignore[arg-type]
    assert head_gains(Words(), prompts, texts).mean(axis=1).tolist() == [-1.5, 1.5, 0, 1.5]  # type: ignore[arg-type]
