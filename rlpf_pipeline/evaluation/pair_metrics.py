"""How well margins order pairs, and how honest they are about it. Pure functions of arrays, one entry per pair.

A margin is scores[left] - scores[right], log odds: sigmoid(margin) = P(CTR_left > CTR_right). The sides' order carries
no meaning, so calibration is measured on the side that the model favours.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

BINS = 10


class ReliabilityBin(NamedTuple):
    """Pairs whose favoured side the model gave about the same probability; means over them."""

    pairs: int
    predicted: float
    label: float


def correct(margin: ArrayLike, left_won: ArrayLike) -> np.ndarray:
    """1.0 where the side with the higher score won, 0.5 where scores are equal, else 0.0: (pairs,)."""
    margin = np.asarray(margin, dtype=np.float64)
    return np.where(margin == 0, 0.5, (margin > 0) == np.asarray(left_won)).astype(np.float64)


def accuracy(margin: ArrayLike, left_won: ArrayLike) -> float:
    """Share of pairs where the side with the higher score had the higher observed CTR; equal scores count a half."""
    return float(correct(margin, left_won).mean())


def clustered_standard_error(values: ArrayLike, cluster: ArrayLike) -> float | None:
    """Standard error of the mean of `values` where those of one cluster move together; None with a single cluster.

    Linearised (Cameron & Miller 2015, eq. 11, for a mean), with the factor clusters / (clusters - 1).
    """
    values = np.asarray(values, dtype=np.float64)
    _, number = np.unique(np.asarray(cluster), return_inverse=True)
    sums = np.bincount(number, weights=values - values.mean())
    if len(sums) < 2:
        return None
    return float(np.sqrt((sums**2).sum() * len(sums) / (len(sums) - 1)) / len(values))


def ceiling_closed(accuracy: float, ceiling: float) -> float | None:
    """Share of the way from chance to the ceiling, (accuracy - 1/2) / (ceiling - 1/2); None at a ceiling of 1/2."""
    return (accuracy - 0.5) / (ceiling - 0.5) if ceiling > 0.5 else None


def negative_log_likelihood(margin: ArrayLike, p_left_better: ArrayLike) -> float:
    """Mean cross-entropy of sigmoid(margin) against the soft label, in nats; log 2 for a model that knows nothing."""
    margin, p = np.asarray(margin, dtype=np.float64), np.asarray(p_left_better, dtype=np.float64)
    return float((p * np.logaddexp(0, -margin) + (1 - p) * np.logaddexp(0, margin)).mean())


def reliability(margin: ArrayLike, p_left_better: ArrayLike, bins: int = BINS) -> list[ReliabilityBin]:
    """Pairs in `bins` bins of as many pairs each, by the favoured side's probability; fewer where many are equal.

    predicted: mean of sigmoid(|margin|). label: mean of the soft label for the favoured side; between equal scores
    either side could be meant, so that the label is 1/2.
    """
    margin, p = np.asarray(margin, dtype=np.float64), np.asarray(p_left_better, dtype=np.float64)
    predicted = 1 / (1 + np.exp(-np.abs(margin)))
    label = np.where(margin == 0, 0.5, np.where(margin > 0, p, 1 - p))
    return [
        ReliabilityBin(len(inside), float(predicted[inside].mean()), float(label[inside].mean()))
        for inside in equal_mass(predicted, bins)
    ]


def equal_mass(values: np.ndarray, bins: int) -> list[np.ndarray]:
    """Positions of the values of each bin, in order: `bins` bins of as many values, fewer where many are equal."""
    step = np.searchsorted(np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1]), values)
    return [np.flatnonzero(step == number) for number in np.unique(step)]


def expected_calibration_error(bins: list[ReliabilityBin]) -> float:
    """Mean over pairs of |predicted - label| of their bin (Guo et al. 2017, eq. 3; bins of equal mass and soft labels).

    Noise alone makes it larger than 0: about 0.8 standard errors of a bin's mean label.
    """
    pairs = sum(own.pairs for own in bins)
    return sum(own.pairs * abs(own.predicted - own.label) for own in bins) / pairs
