"""Does a model reward length or surface marks more than clicks do? Everything is compared within ads.

Two voices speak in one unit, the probability that one text of a pair is better than the other: the model's,
sigmoid(margin), and the clicks', the soft label. Averaged over the pairs where one text is longer, or has a mark that
the other lacks, they agree where the model has learned what the feature is worth, and part where it takes it for more.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import expit

from rlpf_pipeline.evaluation.pair_metrics import clustered_standard_error, equal_mass
from rlpf_pipeline.evaluation.split import Split

LENGTH_MATCHED = 1.1
"""Pairs whose lengths differ by this factor at most."""

STYLE = {
    "question": r"\?",
    "exclamation": r"!",
    "number": r"\d",
    "capitals": r"\b[A-Z]{2,}\b",
    "second person": r"(?i)\b(?:you|your|yours|yourself)\b",
    "first person": r"(?i)\b(?:i|me|my|we|us|our)\b",
    "quotation": r"[\"“”«»]",
    "ellipsis": r"\.\.\.|…",
}
"""Marks that can be read off an English text; "capitals" is a word of two or more capital letters."""


class Voices(NamedTuple):
    """P(this text is better than the other) by the model and by clicks, means over `pairs`.

    The standard error is that of the clicks' mean, clustered by clusters of ads; None with a single cluster.
    """

    pairs: int
    reward: float
    clicks: float
    clicks_standard_error: float | None


class LengthBin(NamedTuple):
    """Pairs whose longer text is about `ratio` times as long as the other; voices for the longer one."""

    ratio: float
    voices: Voices


class Mark(NamedTuple):
    """Pairs of a text with a mark and one without; voices for the one with it. share: of all texts, with the mark."""

    mark: str
    share: float
    voices: Voices


def length_curve(split: Split, reward: np.ndarray, bins: int = 8) -> list[LengthBin]:
    """The longer text's chances over how much longer it is, in up to `bins` bins of as many pairs: a bias may bend."""
    pairs, difference = split.pairs, log_length_difference(split)
    differ = difference != 0
    if not differ.any():
        return []
    pairs, longer = pairs[differ], difference[differ] > 0
    ratio = np.abs(difference[differ]).round(9)
    return [
        LengthBin(float(np.exp(ratio[inside].mean())), voices(split, pairs.iloc[inside], longer[inside], reward))
        for inside in equal_mass(ratio, bins)
    ]


def style_marks(split: Split, reward: np.ndarray) -> list[Mark]:
    """One row per mark of STYLE in which some pair differs."""
    found = []
    for mark, pattern in STYLE.items():
        has = has_mark(split, pattern)
        left, right = has[split.pairs["left"]], has[split.pairs["right"]]
        differ = left != right
        if differ.any():
            own = voices(split, split.pairs[differ], left[differ], reward)
            found.append(Mark(mark, float(has.mean()), own))
    return found


def voices(split: Split, pairs: pd.DataFrame, left: np.ndarray, reward: np.ndarray) -> Voices:
    """What model and clicks give the side that `left` (pairs,) points to: True for the left one."""
    predicted = expit(reward[pairs["left"]] - reward[pairs["right"]])
    label = pairs["p_left_better"].to_numpy()
    model, clicks = (np.where(left, p, 1 - p) for p in (predicted, label))
    error = clustered_standard_error(clicks, split.texts["cluster"].to_numpy()[pairs["left"]])
    return Voices(len(pairs), float(model.mean()), float(clicks.mean()), error)


def length_matched(split: Split, pairs: pd.DataFrame) -> pd.DataFrame:
    """The pairs whose two texts are about as long as each other (LENGTH_MATCHED)."""
    length = split.texts["text"].str.len().to_numpy()
    sides = length[pairs[["left", "right"]]]
    alike: pd.DataFrame = pairs[sides.max(axis=1) / sides.min(axis=1) <= LENGTH_MATCHED]
    return alike


def length_correlation(split: Split, reward: np.ndarray) -> float | None:
    """Correlation of reward and log length, both less their ad's mean; None where either never differs."""
    x, y = within_ads(split, log_length(split)), within_ads(split, reward)
    variances = (x @ x) * (y @ y)
    return float(x @ y / np.sqrt(variances)) if variances > 0 else None


def explained_by_shortcuts(split: Split, reward: np.ndarray) -> float | None:
    """Share of the reward's variance within ads that log length, its square and the marks of STYLE explain together:
    adjusted R², which is 0 on average for a reward of chance alone, so that it may be negative.

    None where the reward never differs within an ad, or there are no more texts to go by than shortcuts and ads.
    """
    length = log_length(split)
    columns = [length, length**2, *(has_mark(split, pattern).astype(float) for pattern in STYLE.values())]
    x = np.column_stack([within_ads(split, column) for column in columns])
    y = within_ads(split, reward)
    coefficients, _, rank, _ = np.linalg.lstsq(x, y, rcond=None)
    free = len(y) - len(split.starts)
    if not y @ y > 0 or free <= rank:
        return None
    rest = y - x @ coefficients
    return float(1 - (rest @ rest / (free - rank)) / (y @ y / free))


def within_ads(split: Split, values: np.ndarray) -> np.ndarray:
    """Each text's value less the mean of its ad: (texts,)."""
    sizes = np.diff(split.starts, append=len(values))
    return values - (np.add.reduceat(values, split.starts) / sizes)[split.texts["ad"]]


def log_length(split: Split) -> np.ndarray:
    """Log of each text's length in characters: (texts,)."""
    return np.log(split.texts["text"].str.len().to_numpy(dtype=np.float64))


def log_length_difference(split: Split) -> np.ndarray:
    length = log_length(split)
    return np.asarray(length[split.pairs["left"]] - length[split.pairs["right"]])


def has_mark(split: Split, pattern: str) -> np.ndarray:
    return split.texts["text"].str.contains(pattern, regex=True).to_numpy(dtype=bool)
