import numpy as np

from rlpf_pipeline.market.selection import MAX_SELECTED, MOST, select, selection_probabilities

ORIGINAL = "Maple Oven offers sourdough loaves baked before dawn."
GOOD = "Want real bread? Try the sourdough loaves of Maple Oven today."


def test_empty_texts_and_copies_are_never_selected():
    texts = ["", GOOD, GOOD.upper(), ORIGINAL.lower(), " ?! "]
    probabilities = selection_probabilities(ORIGINAL, texts, [True] * 5)
    assert probabilities[1] > 0.5
    assert probabilities[[0, 2, 3, 4]].tolist() == [0.0] * 4


def test_relevant_finished_clean_texts_are_preferred():
    others = [
        "Want a new bike? Try the fast wheels of River Cycles.",
        GOOD + " ☃☃☃ xkcd zzz",
        "Sourdough loaves of Maple Oven and",
    ]
    good, *rest = selection_probabilities(ORIGINAL, [GOOD, *others], [True, True, True, False])
    assert good == MOST
    assert all(probability < 0.8 * good for probability in rest)


def test_at_most_four_are_selected_in_the_order_offered():
    selected = select(np.ones((1, 6)), np.zeros((1, 6)))
    assert selected.tolist() == [[True] * MAX_SELECTED + [False] * 2]


def test_selection_follows_its_probabilities():
    draws = np.random.default_rng(0).random((10_000, 3))
    shares = select(np.tile([0.0, 0.3, 0.7], (10_000, 1)), draws).mean(axis=0)
    assert shares[0] == 0
    assert np.abs(shares[1:] - [0.3, 0.7]).max() < 4 * np.sqrt(0.25 / 10_000)
