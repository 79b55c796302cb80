from collections.abc import Sequence

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from rlpf_pipeline.evaluation import baselines
from rlpf_pipeline.evaluation.baselines import Chance, LongerWins, fit_pairs, logistic, minilm_logistic, tfidf_logistic
from rlpf_pipeline_tests.conftest import needs_minilm
from rlpf_pipeline_tests.evaluation.splits import split_of

NONE = split_of([("x", 100, 5), ("y", 100, 5)])
NONE = NONE._replace(pairs=NONE.pairs[:0])


def questions(ads: int):  # type: ignore[no-untyped-def]
    """Ads whose question always has more clicks."""
    return split_of(*[[(f"word{i} here", 1000, 10), (f"word{i} here?", 1000, 30)] for i in range(ads)])


def test_chance_and_length() -> None:
    ads = [(None, ["ab", "abc"]), ("c", ["a"])]
    assert [own.tolist() for own in Chance().score(ads)] == [[[0], [0]], [[0]]]
    assert [own.tolist() for own in LongerWins().score(ads)] == [[[2], [3]], [[1]]]


def test_soft_labels_are_fitted_by_maximum_likelihood() -> None:
    rng = np.random.default_rng(0)
    x, p, weight = rng.normal(size=(200, 3)), rng.random(200), rng.random(200)

    def penalised(b):  # type: ignore[no-untyped-def]
        cross_entropy = p * np.logaddexp(0, -x @ b) + (1 - p) * np.logaddexp(0, x @ b)
        return weight @ cross_entropy + b @ b / (2 * 0.5)

    expected = minimize(penalised, np.zeros(3), tol=1e-10).x
    assert logistic(x, p, weight, 0.5) == pytest.approx(expected, abs=1e-3)


def test_a_label_is_reached_where_nothing_holds_it_back() -> None:
    # one feature, label .9 wherever it differs by 1: the coefficient is log(.9 / .1), but for the weakest penalty
    split = questions(500)
    scorer = fit_pairs(lambda texts: np.array([[float("?" in text)] for text in texts]), split, split, 0)
    assert expit(scorer.coefficients[0]) == pytest.approx(0.9, abs=0.002)


def test_words_that_win_are_learned() -> None:
    scorer = tfidf_logistic(questions(50), questions(50), 0)
    (scores,) = scorer.score([(None, ["new here?", "new here"])])
    assert scores.shape == (2, 1)
    assert scores[0, 0] > scores[1, 0]


def test_the_penalty_is_chosen_on_the_validation_split() -> None:
    # where validation says the opposite, the strongest penalty is the least wrong
    right = questions(50)
    wrong = right._replace(pairs=right.pairs.assign(p_left_better=1 - right.pairs.p_left_better))
    sure, unsure = (np.abs(tfidf_logistic(right, own, 0).coefficients).sum() for own in (right, wrong))
    assert unsure < sure / 10


def test_the_validation_pairs_are_learned_from_once_the_penalty_is_chosen() -> None:
    train, exclaimed = questions(50), split_of(*[[(f"w{i}", 1000, 10), (f"w{i}!", 1000, 30)] for i in range(50)])
    scorer = fit_pairs(
        lambda texts: np.array([[float(m in text) for m in "?!"] for text in texts]), train, exclaimed, 0
    )
    assert (scorer.coefficients > 0.1).all()


def test_without_validation_pairs_the_penalty_is_one() -> None:
    split = questions(20)
    features = lambda texts: np.array([[float("?" in text)] for text in texts])  # noqa: E731
    difference = features(split.texts.text)[split.pairs.left] - features(split.texts.text)[split.pairs.right]
    expected = logistic(difference, split.pairs.p_left_better.to_numpy(), np.ones(20), 1.0)
    assert fit_pairs(features, split, NONE, 0).coefficients == pytest.approx(expected)


def test_no_more_pairs_of_a_split_are_learned_from_than_memory_is_meant_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "MAX_PAIRS", 10)
    encoded: set[str] = set()

    def features(texts: Sequence[str]) -> np.ndarray:
        encoded.update(texts)
        return np.array([[float("?" in text)] for text in texts])

    train, validation = questions(50), questions(50)
    validation.texts["text"] = "held out " + validation.texts["text"]
    fit_pairs(features, train, validation, 0)
    assert sum(text.startswith("held out") for text in encoded) == 20
    assert len(encoded) == 40


@needs_minilm
def test_meaning_that_wins_is_learned() -> None:
    topics = ("a cat sleeps on the sofa", "a dog plays in the park", "my hamster eats", "the rabbit jumps")
    money = ("quarterly tax returns", "interest on a mortgage", "stock market losses", "a bank account fee")
    train = split_of(
        *[[(f"{a} {i}", 1000, 30), (f"{b} {i}", 1000, 10)] for i in range(3) for a in topics for b in money]
    )
    (scores,) = minilm_logistic(train, train, 0).score([("any", ["a kitten naps", "credit card debt"])])
    assert scores[0, 0] > scores[1, 0]
