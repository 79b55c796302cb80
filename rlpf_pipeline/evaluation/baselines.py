"""What a reward model has to beat, learned from the same splits: length, words, and frozen sentence embeddings.

Each scores a text by a weighted sum of its features, so that a pair's margin is linear in the difference of features:
the pairwise logistic model of Bradley & Terry 1952 with covariates. Labels are the soft ones, with the pairs' weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from rlpf_pipeline.evaluation.pair_metrics import negative_log_likelihood
from rlpf_pipeline.evaluation.split import Ads, Split
from rlpf_pipeline.sentence_embeddings import embed

MAX_PAIRS = 200_000
MAX_WORDS = 200_000
PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Inverse strengths of the L2 penalty to choose from."""

Features = Callable[[Sequence[str]], Any]


class Chance:
    """Knows nothing: every text scores 0."""

    def score(self, ads: Ads) -> list[np.ndarray]:
        return [np.zeros((len(texts), 1)) for _, texts in ads]


class LongerWins:
    """A text's score is its length in characters: an order, no probability."""

    def score(self, ads: Ads) -> list[np.ndarray]:
        return [np.array([[float(len(text))] for text in texts]) for _, texts in ads]


class LinearScorer(NamedTuple):
    """A text's score is features(text) @ coefficients, log odds."""

    features: Features
    coefficients: np.ndarray

    def score(self, ads: Ads) -> list[np.ndarray]:
        scores = self.features([text for _, texts in ads for text in texts]) @ self.coefficients
        return np.split(scores[:, None], np.cumsum([len(texts) for _, texts in ads])[:-1])


def tfidf_logistic(train: Split, validation: Split, seed: int) -> LinearScorer:
    """Words and word pairs by TF-IDF; of very many, the most frequent MAX_WORDS."""
    vectorizer = TfidfVectorizer(
        ngram_range=(1, 2), sublinear_tf=True, max_features=MAX_WORDS, token_pattern=r"(?u)\b\w+\b|[?!]"
    )
    vectorizer.fit(train.texts["text"])
    return fit_pairs(vectorizer.transform, train, validation, seed)


def minilm_logistic(train: Split, validation: Split, seed: int) -> LinearScorer:
    """Frozen all-MiniLM-L6-v2 embeddings. Raises UserError where the package of its weights is missing."""

    def features(texts: Sequence[str]) -> np.ndarray:
        vectors = embed(list(dict.fromkeys(texts)))
        return np.stack([vectors[text] for text in texts])

    return fit_pairs(features, train, validation, seed)


def fit_pairs(features: Features, train: Split, validation: Split, seed: int) -> LinearScorer:
    """Logistic regression of the soft labels on differences of features, without intercept: sides have no order.

    At most MAX_PAIRS pairs of either split, drawn by the seed. The penalty is the one with the best likelihood on the
    validation split, or 1 where that has no pair; with it the validation pairs are learned from too, as the reward
    model does.
    """
    known = labelled(features, train, seed)
    if validation.pairs.empty:
        return LinearScorer(features, logistic(*known, 1.0))
    held_out = labelled(features, validation, seed)

    def miss(penalty: float) -> float:
        return negative_log_likelihood(held_out.differences @ logistic(*known, penalty), held_out.p)

    penalty = min(PENALTIES, key=miss)
    differences = stacked(known.differences, held_out.differences)
    p, weight = np.concatenate([known.p, held_out.p]), np.concatenate([known.weight, held_out.weight])
    return LinearScorer(features, logistic(differences, p, weight, penalty))


class Labelled(NamedTuple):
    """Differences of features (pairs, features), soft labels and weights (pairs,)."""

    differences: Any
    p: np.ndarray
    weight: np.ndarray


def labelled(features: Features, split: Split, seed: int) -> Labelled:
    pairs = split.pairs.sample(min(MAX_PAIRS, len(split.pairs)), random_state=seed)
    weight = pairs["weight"] / pairs["weight"].mean()
    return Labelled(differences_of(features, split, pairs), pairs["p_left_better"].to_numpy(), weight.to_numpy())


def differences_of(features: Features, split: Split, pairs: pd.DataFrame) -> Any:
    """Features of the left side less those of the right one: (pairs, features). Each text is encoded once."""
    used = np.unique(pairs[["left", "right"]])
    encoded = features(split.texts["text"].to_numpy()[used].tolist())
    return encoded[np.searchsorted(used, pairs["left"])] - encoded[np.searchsorted(used, pairs["right"])]


def stacked(first: Any, second: Any) -> Any:
    """The rows of both, sparse or not."""
    return (sparse.vstack if sparse.issparse(first) else np.vstack)([first, second])


def logistic(differences: Any, p: np.ndarray, weight: np.ndarray, penalty: float) -> np.ndarray:
    """Coefficients (features,). A soft label is two hard ones, weighted p and 1 - p.

    penalty: inverse strength of L2.
    """
    both = stacked(differences, differences)
    labels, weights = np.repeat([1, 0], len(p)), np.concatenate([weight * p, weight * (1 - p)])
    model = LogisticRegression(C=penalty, fit_intercept=False, max_iter=1000).fit(both, labels, weights)
    return np.asarray(model.coef_[0], dtype=np.float64)
