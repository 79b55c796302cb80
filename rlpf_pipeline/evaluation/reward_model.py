"""Evaluation of whatever scores texts, on a split that it has not learned from: models and baselines in one table.

`compare` takes each one's reward per text (mean over heads); `evaluate` gives a row of figures for one of them, and
`conditions` says what anyone could reach on the split. A figure that the split cannot tell is absent, never NaN.
docs/reward-evaluation.md explains each one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from rlpf_pipeline.evaluation import shortcuts
from rlpf_pipeline.evaluation.pair_metrics import (
    ReliabilityBin,
    accuracy,
    ceiling_closed,
    clustered_standard_error,
    correct,
    equal_mass,
    expected_calibration_error,
    negative_log_likelihood,
    reliability,
)
from rlpf_pipeline.evaluation.selection import Picks, ad_weights, half_test, oracle, picks, selection_lift, top1
from rlpf_pipeline.evaluation.split import Split
from rlpf_pipeline.preferences.noise_ceiling import noise_ceiling

SIGNIFICANT = 0.05
MODELS = {
    "reward_model": "reward model",
    "evaluation_reward_model": "evaluation reward model",
    "pointwise_reward_model": "pointwise model",
    "minilm": "MiniLM difference, logistic",
    "tfidf": "TF-IDF difference, logistic",
    "longer_wins": "longer wins",
    "chance": "chance",
}
"""Everything that is compared, in the order of the tables, with its title."""
ORDER_ONLY = frozenset({"longer_wins"})
"""Its scores order texts, but a margin is no log odds of being the better text: no likelihood, no calibration."""

Figures = dict[str, float]


class Band(NamedTuple):
    """A quarter of the pairs by effect size or by impressions: from `low` to `high`."""

    low: float
    high: float
    pairs: int
    accuracy: float
    standard_error: float | None
    ceiling: float


class Gain(NamedTuple):
    """Accuracy of the model under test less another's, on the same pairs."""

    gain: float
    standard_error: float | None


class Evaluation(NamedTuple):
    """All that is reported. models, gains, reliability: by name in MODELS. The rest is of the model under test."""

    conditions: Figures
    models: dict[str, Figures]
    gains: dict[str, Gain]
    reliability: dict[str, list[ReliabilityBin]]
    by_effect: list[Band]
    by_impressions: list[Band]
    by_length: list[shortcuts.LengthBin]
    by_style: list[shortcuts.Mark]


def compare(
    split: Split, rewards: Mapping[str, np.ndarray], seed: int = 0, pointwise: Collection[str] = ()
) -> Evaluation:
    """Evaluate everything in `rewards` (name in MODELS → (texts,)); the first in MODELS' order is under test.

    pointwise: those whose scores are log CTRs, of which the same is true as of ORDER_ONLY's.
    """
    order_only = ORDER_ONLY.union(pointwise)
    rewards = {name: rewards[name] for name in MODELS if name in rewards}
    tested, *others = rewards
    own = rewards[tested]
    decided = split.decided
    likelihoods = {
        name: with_margins(split.pairs, reward) for name, reward in rewards.items() if name not in order_only
    }
    says_chances = tested not in order_only
    return Evaluation(
        conditions(split, seed),
        {name: evaluate(split, reward, seed, name not in order_only) for name, reward in rewards.items()},
        {name: accuracy_gain(split, own, rewards[name]) for name in others},
        {name: reliability(pairs["margin"], pairs["p_left_better"]) for name, pairs in likelihoods.items()},
        bands(split, own, decided["effect"].abs().to_numpy()),
        bands(split, own, decided["exposure"].to_numpy()),
        shortcuts.length_curve(split, own) if says_chances else [],
        shortcuts.style_marks(split, own) if says_chances else [],
    )


def evaluate(split: Split, reward: np.ndarray, seed: int = 0, log_odds: bool = True) -> Figures:
    """Figures of one model: `reward` (texts,), the mean over heads; log_odds: whether its margins are such."""
    pairs = with_margins(split.decided, reward)
    right = accuracy(pairs["margin"], pairs["left_won"])
    figures: dict[str, float | None] = {"accuracy": right}
    figures["accuracy_standard_error"] = accuracy_error(split, pairs)
    figures["ceiling_closed"] = ceiling_closed(right, noise_ceiling(pairs["p_left_better"]))
    for suffix, subset in (
        ("significant", pairs[pairs["p_value"] < SIGNIFICANT]),
        ("length_matched", shortcuts.length_matched(split, pairs)),
    ):
        if len(subset):
            figures[f"accuracy_{suffix}"] = accuracy(subset["margin"], subset["left_won"])
            figures[f"accuracy_{suffix}_standard_error"] = accuracy_error(split, subset)
    if log_odds:
        everything = with_margins(split.pairs, reward)
        figures["negative_log_likelihood"] = negative_log_likelihood(everything["margin"], everything["p_left_better"])
        bins = reliability(everything["margin"], everything["p_left_better"])
        figures["calibration_error"] = expected_calibration_error(bins)
    figures["top1"] = float(top1(split, reward).mean())
    figures |= lift_figures("selection_lift", split, picks(split, reward), seed)
    figures["length_correlation"] = shortcuts.length_correlation(split, reward)
    figures["explained_by_shortcuts"] = shortcuts.explained_by_shortcuts(split, reward)
    return present(figures)


def conditions(split: Split, seed: int = 0) -> Figures:
    """What the split holds, and what it lets anyone reach: ceilings, the oracle's lift, that of half the test."""
    decided = split.decided
    significant = decided[decided["p_value"] < SIGNIFICANT]
    knowing = oracle(split, seed)
    figures: dict[str, float | None] = {
        "ads": len(split.starts),
        "texts": len(split.texts),
        "clusters": len(np.unique(split.clusters)),
        "pairs": len(decided),
        "pairs_significant": len(significant),
        "pairs_length_matched": len(shortcuts.length_matched(split, decided)),
        "noise_ceiling": noise_ceiling(decided["p_left_better"]),
        "noise_ceiling_significant": noise_ceiling(significant["p_left_better"]) if len(significant) else None,
        "top1_ceiling": float(knowing.top1.mean()),
    }
    figures |= lift_figures("oracle_lift", split, knowing.picks, seed)
    figures |= lift_figures("half_test_lift", split, half_test(split, seed), seed)
    return present(figures)


def accuracy_gain(split: Split, reward: np.ndarray, other: np.ndarray) -> Gain:
    """Accuracy of `reward` less that of `other` on the same pairs, with its clustered standard error."""
    pairs = split.decided
    own, others = (correct(with_margins(pairs, scores)["margin"], pairs["left_won"]) for scores in (reward, other))
    return Gain(float((own - others).mean()), clustered_standard_error(own - others, cluster_of(split, pairs)))


def bands(split: Split, reward: np.ndarray, by: np.ndarray) -> list[Band]:
    """Accuracy in quarters of the decided pairs by `by` (decided pairs,), each beside its own noise ceiling."""
    pairs = with_margins(split.decided, reward).assign(by=by)
    quarters = [pairs.iloc[inside] for inside in equal_mass(by, 4)]
    return [
        Band(
            float(own["by"].min()),
            float(own["by"].max()),
            len(own),
            accuracy(own["margin"], own["left_won"]),
            accuracy_error(split, own),
            noise_ceiling(own["p_left_better"]),
        )
        for own in quarters
    ]


def with_margins(pairs: pd.DataFrame, reward: np.ndarray) -> pd.DataFrame:
    return pairs.assign(margin=reward[pairs["left"]] - reward[pairs["right"]])


def accuracy_error(split: Split, pairs: pd.DataFrame) -> float | None:
    return clustered_standard_error(correct(pairs["margin"], pairs["left_won"]), cluster_of(split, pairs))


def cluster_of(split: Split, pairs: pd.DataFrame) -> np.ndarray:
    return np.asarray(split.texts["cluster"].to_numpy()[pairs["left"]])


def lift_figures(name: str, split: Split, chosen: Picks, seed: int) -> dict[str, float | None]:
    lift = selection_lift(chosen, ad_weights(split), split.clusters, seed)
    return {name: lift.lift, f"{name}_low": lift.low, f"{name}_high": lift.high} if lift else {}


def present(figures: Mapping[str, float | None]) -> Figures:
    """The figures that could be measured. Raises ValueError where one is not finite."""
    known = {name: value for name, value in figures.items() if value is not None}
    broken = [name for name, value in known.items() if not np.isfinite(value)]
    if broken:
        raise ValueError(f"not finite: {', '.join(broken)}")
    return known
