"""What the evaluation leaves behind: the pictures, a table in Markdown, and every figure as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from rlpf_pipeline.evaluation import plots
from rlpf_pipeline.evaluation.pair_metrics import reliability
from rlpf_pipeline.evaluation.reward_model import (
    ORDER_ONLY,
    Figures,
    accuracy_gain,
    bands,
    conditions,
    evaluate,
    with_margins,
)
from rlpf_pipeline.evaluation.shortcuts import length_curve, style_effects
from rlpf_pipeline.evaluation.split import Split
from rlpf_pipeline.report.plots import standalone_svg

TITLES = {
    "reward_model": "reward model",
    "evaluation_reward_model": "evaluation reward model",
    "pointwise_reward_model": "pointwise model",
    "minilm": "MiniLM difference, logistic",
    "tfidf": "TF-IDF difference, logistic",
    "longer_wins": "longer wins",
    "chance": "chance",
}
RELIABILITY_OF = ("reward_model", "evaluation_reward_model", "tfidf")
COLUMNS = (
    ("accuracy", "accuracy"),
    ("significant pairs", "accuracy_significant"),
    ("ceiling closed", "ceiling_closed"),
    ("same length", "accuracy_length_matched"),
    ("NLL", "negative_log_likelihood"),
    ("ECE", "calibration_error"),
    ("top-1", "top1"),
    ("CTR lift of its pick", "selection_lift"),
    ("correlation with length", "length_correlation"),
    ("explained by shortcuts", "explained_by_shortcuts"),
)


def write_evaluation(split: Split, rewards: Mapping[str, np.ndarray], folder: Path, seed: int) -> tuple[Figures, dict[str, Figures]]:
    """Evaluate `rewards` (name in TITLES → (texts,)) and write comparison.md, figures.json and SVG files into `folder`.

    The first of `rewards` is the model under test: breakdowns, shortcuts and gains are its own. Returns the split's
    conditions and each model's figures.
    """
    rewards = {name: rewards[name] for name in TITLES if name in rewards}
    tested = next(iter(rewards.values()))
    figures = {name: evaluate(split, name, reward, seed) for name, reward in rewards.items()}
    reachable = conditions(split, seed)
    gains = {name: accuracy_gain(split, tested, reward) for name, reward in list(rewards.items())[1:]}
    decided = split.decided
    by_effect = bands(split, tested, decided["effect"].abs().to_numpy())
    by_impressions = bands(split, tested, decided["exposure"].to_numpy())
    curve, style = length_curve(split, tested), style_effects(split, tested)
    pictures = {
        "accuracy": plots.comparison_plot(figures, reachable, TITLES),
        "selection_lift": plots.lift_plot(figures, reachable, TITLES),
        "accuracy_by_effect_and_impressions": plots.bands_plot(by_effect, by_impressions),
        "reliability": plots.reliability_plot(reliabilities(split, rewards), TITLES),
    }
    pictures |= {"reward_by_length": plots.length_plot(curve)} if curve else {}
    pictures |= {"style": plots.style_plot(style)} if style else {}
    for name, picture in pictures.items():
        (folder / f"{name}.svg").write_text(standalone_svg(picture))
    everything = {
        "conditions": reachable,
        "models": figures,
        "accuracy_gain_of_reward_model": {name: dict(zip(("gain", "standard_error"), own, strict=True)) for name, own in gains.items()},
        "by_effect": [band._asdict() for band in by_effect],
        "by_impressions": [band._asdict() for band in by_impressions],
        "reward_by_length": [own._asdict() for own in curve],
        "style": [own._asdict() for own in style],
    }
    (folder / "figures.json").write_text(json.dumps(everything, indent=2, allow_nan=False))
    (folder / "comparison.md").write_text(comparison_table(reachable, figures, gains))
    return reachable, figures


def reliabilities(split: Split, rewards: Mapping[str, np.ndarray]) -> dict[str, list]:  # type: ignore[type-arg]
    chosen = {name: with_margins(split.pairs, rewards[name]) for name in RELIABILITY_OF if name in rewards}
    return {name: reliability(pairs["margin"], pairs["p_left_better"]) for name, pairs in chosen.items()}
