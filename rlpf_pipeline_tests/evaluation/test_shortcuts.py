import numpy as np
import pytest
from scipy.special import expit, logit

from rlpf_pipeline.evaluation.pair_metrics import clustered_standard_error
from rlpf_pipeline.evaluation.shortcuts import (
    explained_by_shortcuts,
    length_correlation,
    length_curve,
    length_matched,
    style_marks,
    within_ads,
)
from rlpf_pipeline_tests.evaluation.splits import LABEL, split_of

SPLIT = split_of([("aaaa", 100, 10), ("aa", 300, 20)], [("bb?", 100, 5), ("bb", 100, 10)])


def test_values_are_taken_less_their_ads_mean() -> None:
    assert within_ads(SPLIT, np.array([4.0, 8, 1, 3])).tolist() == [-2, 2, -1, 1]


def test_a_reward_of_log_length_correlates_fully() -> None:
    lengths = SPLIT.texts.text.str.len().to_numpy()
    assert length_correlation(SPLIT, np.log(lengths) * 3) == pytest.approx(1.0)
    assert length_correlation(SPLIT, -np.log(lengths)) == pytest.approx(-1.0)


def test_a_reward_that_never_differs_has_no_correlation() -> None:
    assert length_correlation(SPLIT, np.array([1.0, 1, 2, 2])) is None
    assert explained_by_shortcuts(SPLIT, np.array([1.0, 1, 2, 2])) is None


def test_both_voices_speak_for_the_text_with_the_mark() -> None:
    # only ad 1 differs in "?": its clicks favour the other side, the model gives it sigmoid(.3)
    (question,) = style_marks(SPLIT, np.array([3.0, -3, 0.5, 0.2]))
    assert (question.mark, question.share, question.voices.pairs) == ("question", 0.25, 1)
    assert question.voices.reward == pytest.approx(expit(0.3))
    assert question.voices.clicks == pytest.approx(1 - LABEL)
    assert question.voices.clicks_standard_error is None


def test_a_mark_is_averaged_over_its_pairs_whichever_side_it_is_on() -> None:
    # "!" on the right, on the left, and on neither; labels for it .9 and .1
    split = split_of([("a", 100, 5), ("a!", 100, 9)], [("b!", 100, 5), ("b", 100, 9)], [("c", 100, 5), ("d", 100, 9)])
    (mark,) = style_marks(split, np.array([0.0, 1, 2, 0, 9, 0]))
    assert mark.voices.pairs == 2
    assert mark.voices.reward == pytest.approx((expit(1) + expit(2)) / 2)
    assert mark.voices.clicks == pytest.approx(0.5)
    # two clusters of one pair, residuals +.4 and -.4
    assert mark.voices.clicks_standard_error == pytest.approx(clustered_standard_error([0.9, 0.1], [0, 1]))


def test_a_model_that_says_what_the_labels_say_agrees_with_them() -> None:
    split = split_of(*[[(f"{i}", 100, 5), (f"{i}{'?' * (i % 2)}", 100, 5 + i % 3)] for i in range(60)])
    reward = np.zeros(120)
    reward[split.pairs.left] = logit(split.pairs.p_left_better)
    for mark in style_marks(split, reward):
        assert mark.voices.reward == pytest.approx(mark.voices.clicks)


def test_capitals_are_words_of_capital_letters() -> None:
    split = split_of([("SALE now", 100, 10), ("Sale now", 100, 20)], [("I am", 100, 5), ("He is", 100, 6)])
    assert {own.mark: own.share for own in style_marks(split, np.zeros(4))} == {"capitals": 0.25, "first person": 0.25}


def test_shortcuts_explain_what_is_made_of_them_and_nothing_else() -> None:
    rng = np.random.default_rng(1)
    ads = [[("x" * int(n), 1000, 10) for n in rng.integers(10, 100, 5)] for _ in range(100)]
    split = split_of(*ads)
    log_length = np.log(split.texts.text.str.len().to_numpy())
    assert explained_by_shortcuts(split, log_length**2 - log_length) == pytest.approx(1.0)
    assert explained_by_shortcuts(split, rng.normal(size=500)) == pytest.approx(0.0, abs=0.03)


def test_chance_is_not_told_by_shortcuts_however_few_ads_there_are() -> None:
    """Of 15 ads of 4 texts R² would be .18 on average: eight marks and a bent length for 45 differences within ads."""
    rng, words = np.random.default_rng(2), ["why?", "now!", "5", "SALE", "you", "we", '"so"', "…", "a", "bread"]
    told = []
    for _ in range(200):
        ads = [[(" ".join(rng.choice(words, rng.integers(3, 9))), 1000, 10) for _ in range(4)] for _ in range(15)]
        told.append(explained_by_shortcuts(split_of(*ads), rng.normal(size=60)))
    assert np.mean(told) == pytest.approx(0.0, abs=0.03)
    few = split_of([("one?", 100, 1), ("two!", 100, 2), ("3", 100, 3)])
    assert explained_by_shortcuts(few, np.array([1.0, 2, 3])) is None


def test_the_length_curve_shows_a_bend() -> None:
    # texts of 10, 20 and 40 letters, of which the middle one wins both its pairs; 10 against 40 is a tie
    split = split_of(*[[("x" * 10, 100, 4), ("y" * 20, 100, 9), ("z" * 40, 100, 4)] for _ in range(30)])
    curve = length_curve(split, np.tile([0.0, 0.6, 0.0], 30), bins=2)
    # twice as long: half of the pairs for the longer one, half against it; four times: even
    assert [own.ratio for own in curve] == pytest.approx([2, 4])
    assert [own.voices.pairs for own in curve] == [60, 30]
    assert [own.voices.clicks for own in curve] == pytest.approx([0.5, 0.5])
    assert [own.voices.reward for own in curve] == pytest.approx([(expit(0.6) + expit(-0.6)) / 2, 0.5])


def test_the_length_curve_speaks_for_the_longer_text() -> None:
    split = split_of([("x" * 10, 100, 4), ("y" * 20, 100, 9)], [("z" * 40, 100, 9), ("w" * 20, 100, 4)])
    (only,) = length_curve(split, np.array([0.0, 2, 1, 0]))
    assert only.voices.clicks == pytest.approx(LABEL)
    assert only.voices.reward == pytest.approx((expit(2) + expit(1)) / 2)


def test_texts_of_one_length_make_no_curve() -> None:
    assert length_curve(split_of([("ab", 100, 1), ("cd", 100, 2)]), np.zeros(2)) == []


def test_matched_pairs_are_about_as_long_as_each_other() -> None:
    split = split_of([("x" * 100, 100, 1), ("y" * 109, 100, 2), ("z" * 121, 100, 3)])
    # 109 / 100 is below 1.1, 121 / 109 is 1.11, 121 / 100 is more
    assert length_matched(split, split.pairs)[["left", "right"]].values.tolist() == [[0, 1]]


def test_a_tenth_more_is_matched_whatever_the_length() -> None:
    split = split_of(*[[("x" * 10 * tens, 100, 1), ("y" * 11 * tens, 100, 2)] for tens in range(1, 15)])
    assert len(length_matched(split, split.pairs)) == 14
