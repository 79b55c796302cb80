"""Features of small texts, counted by hand."""

import numpy as np
import pytest

from rlpf_pipeline.market import text_features as feature
from rlpf_pipeline.market.click_model import features_of
from rlpf_pipeline.market.reading import characters, read_sentences, read_words

ORIGINAL = "Maple Oven offers 3 sourdough loaves. Get $5 off."


def test_words_and_sentences_of_several_texts_stay_apart():
    words = read_words(["Don't stop. 3.5 loaves", "", "¿Stop? STOP!"])
    assert [words.known[piece] for piece in words.piece] == ["don't", "stop", "3.5", "loaves", "stop", "stop"]
    assert words.text.tolist() == [0, 0, 0, 0, 2, 2]
    assert words.number.tolist() == [4, 0, 2]
    assert words.distinct().number.tolist() == [4, 0, 1]
    assert words.of_texts(np.array([2, 0, 2])).number.tolist() == [2, 4, 2]
    sentences = read_sentences(["Don't stop. 3.5 loaves", " ?! ", "¿Stop? STOP!"])
    assert sentences.number.tolist() == [3, 0, 2]


def test_characters_of_every_script_are_counted_in_their_own_text():
    assert characters(["aß1", "", "日本 𝒜!"], str.isalpha).tolist() == [2, 0, 3]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("call_to_action", "Order bread. It is warm.", 1.0),
        ("call_to_action", "Order bread. Call us. Visit us!", 0.4),
        ("call_to_action", "Order bread?", 0.0),
        ("question", "Do you bake? We do.", 1.0),
        ("question", "Do you bake?", 0.4),
        ("question", "Really now? We do.", 0.0),
        ("second_person", "you and your bread is on the big wide table", 1 - np.exp(-4)),
        ("concreteness", "warm warm bread for $5", 1 - np.exp(-2.5 / 1.5)),
        ("concreteness", "great great value", -(1 - np.exp(-1.5))),
        ("hardness", "Go. Go. Go.", 1.0),
        ("length_cost", "one two three", 1.0),
        ("relevance", "Sourdough loaves offered", 3 / (0.4 * 8)),
        ("repetition", "bread now bread now", 1 / 3 + 1 / 2),
        ("invented_claims", "the best 3 loaves for $6, 40% off", 1 - np.exp(-2.7)),
        ("garbage", "", 3.0),
        ("garbage", "xkcd loaves of", 2 / 3 + 0.3),
    ],
)
def test_features_by_hand(name, text, expected):
    assert features_of([text], [ORIGINAL])[name] == pytest.approx([expected], abs=1e-12)


def test_a_feature_does_not_depend_on_the_other_texts():
    texts = ["Order bread. Do you bake?", "", "Maple Oven: 3 loaves, $5 off!", "☃ xkcd the"]
    together = features_of(texts, [ORIGINAL] * 4)
    for place, text in enumerate(texts):
        assert {name: values[place] for name, values in together.items()} == {
            name: values[0] for name, values in features_of([text], [ORIGINAL]).items()
        }


@pytest.mark.parametrize(("count", "expected"), [(0, 0.0), (1, 1.0), (2, 0.7), (4, 0.1), (5, -0.2), (20, -1.0)])
def test_one_is_best(count, expected):
    assert feature.single(np.array([float(count)])) == pytest.approx([expected])
