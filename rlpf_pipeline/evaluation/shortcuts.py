"""Does a model reward length or surface marks more than clicks do? Everything is compared within ads.

Values are taken less their ad's mean (weighted by impressions), which removes all that the ad's texts share; beside
what the model gives for a feature stands what people gave: the log odds of a click, log((c + 1/2) / (n - c + 1/2)).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from rlpf_pipeline.evaluation.pair_metrics import clustered_standard_error
from rlpf_pipeline.evaluation.split import Split

LENGTH_MATCHED = 1.1
"""Pairs whose lengths differ by less than this factor."""

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


class Effect(NamedTuple):
    """Texts with a mark (`share` of all), beside texts of the same ad without it, in log odds.

    reward: what the model gives more. clicks: what people gave more, its standard error clustered by cluster of ads.
    """

    feature: str
    share: float
    reward: float
    clicks: float
    clicks_standard_error: float | None


class LengthBin(NamedTuple):
    """Texts of about the same length relative to their ad's mean; reward and clicks less their ad's mean, log odds."""

    texts: int
    relative_length: float
    reward: float
    clicks: float
    clicks_standard_error: float


def log_odds(split: Split) -> np.ndarray:
    clicks, shown = split.texts["clicks"].to_numpy(), split.texts["impressions"].to_numpy()
    return np.log((clicks + 0.5) / (shown - clicks + 0.5))


def within_ads(split: Split, values: np.ndarray) -> np.ndarray:
    """Each text's value less the mean of its ad, weighted by impressions: (texts,)."""
    weight = split.texts["impressions"].to_numpy(dtype=np.float64)
    means = np.add.reduceat(weight * values, split.starts) / np.add.reduceat(weight, split.starts)
    return values - means[split.texts["ad"]]


def log_length(split: Split) -> np.ndarray:
    return np.log(split.texts["text"].str.len().to_numpy(dtype=np.float64))


def length_correlation(split: Split, reward: np.ndarray) -> float | None:
    """Correlation of reward and log length within ads, weighted by impressions; None where either never differs."""
    x, y = within_ads(split, log_length(split)), within_ads(split, reward)
    weight = split.texts["impressions"].to_numpy(dtype=np.float64)
    variances = (weight @ x**2) * (weight @ y**2)
    return float(weight @ (x * y) / np.sqrt(variances)) if variances > 0 else None


def length_curve(split: Split, reward: np.ndarray, bins: int = 10) -> list[LengthBin]:
    """Reward and clicks over relative length in up to `bins` bins of as many texts each: a length bias may bend.

    Ads whose texts all have the same length say nothing and are left out.
    """
    length = within_ads(split, log_length(split))
    varies = (np.maximum.reduceat(np.abs(length), split.starts) > 1e-9)[split.texts["ad"]]
    table = pd.DataFrame(
        {"length": length, "reward": within_ads(split, reward), "clicks": within_ads(split, log_odds(split))}
    )[varies]
    if table.empty:
        return []
    groups = table.groupby(pd.qcut(table["length"], bins, duplicates="drop"), observed=True)
    return [
        LengthBin(
            len(own),
            float(np.exp(own["length"].mean())),
            float(own["reward"].mean()),
            float(own["clicks"].mean()),
            float(own["clicks"].std(ddof=1) / np.sqrt(len(own))) if len(own) > 1 else 0.0,
        )
        for _, own in groups
    ]


def style_effects(split: Split, reward: np.ndarray) -> list[Effect]:
    """One row per mark of STYLE that some texts of an ad have and others have not."""
    weight = split.texts["impressions"].to_numpy(dtype=np.float64)
    cluster = split.texts["cluster"].to_numpy()
    given, gave = within_ads(split, reward), within_ads(split, log_odds(split))
    effects = []
    for feature, pattern in STYLE.items():
        has = split.texts["text"].str.contains(pattern, regex=True).to_numpy(dtype=np.float64)
        x = within_ads(split, has)
        told = weight @ x**2
        if told < 1e-9:
            continue
        clicks = float(weight @ (x * gave) / told)
        influence = weight * x * (gave - clicks * x) * len(x) / told
        error = clustered_standard_error(influence, cluster)
        effects.append(Effect(feature, float(has.mean()), float(weight @ (x * given) / told), clicks, error))
    return effects


def explained_by_shortcuts(split: Split, reward: np.ndarray) -> float | None:
    """Share of the reward's variance within ads that log length, its square and the marks of STYLE explain together.

    Least squares weighted by impressions; None where the reward never differs within an ad.
    """
    length = log_length(split)
    marks = [split.texts["text"].str.contains(pattern, regex=True).to_numpy(dtype=float) for pattern in STYLE.values()]
    root = np.sqrt(split.texts["impressions"].to_numpy(dtype=np.float64))
    x = np.column_stack([root * within_ads(split, column) for column in (length, length**2, *marks)])
    y = root * within_ads(split, reward)
    if not y @ y > 0:
        return None
    rest = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    return float(1 - rest @ rest / (y @ y))


def length_matched(split: Split, pairs: pd.DataFrame) -> pd.DataFrame:
    """The pairs whose two texts are about as long as each other (LENGTH_MATCHED)."""
    length = log_length(split)
    return pairs[np.abs(length[pairs["left"]] - length[pairs["right"]]) < np.log(LENGTH_MATCHED)]
