"""How well a reward model orders texts of one ad, beside chance and what noise lets anyone reach."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from rlpf_pipeline.models.reward_model import RewardModel
from rlpf_pipeline.training.snapshot import Ad

SIGNIFICANT = 0.05


def score_pairs(model: RewardModel, ads: Sequence[Ad]) -> pd.DataFrame:
    """One row per pair with different observed CTRs: the score's margin (left - right) beside the labels.

    Columns: ad_id, margin (log odds), p_left_better, p_value, left_won (observed CTR), left_longer, min_impressions.
    """
    scores = model.score([(ad.context, ad.texts) for ad in ads])
    return pd.concat([_pairs(ad, own.mean(axis=1)) for ad, own in zip(ads, scores, strict=True)], ignore_index=True)


def _pairs(ad: Ad, scores: np.ndarray) -> pd.DataFrame:
    impressions, clicks = np.array(ad.impressions), np.array(ad.clicks)
    ctr, length = clicks / impressions, np.array([len(text) for text in ad.texts])
    pairs = pd.DataFrame(
        {
            "ad_id": ad.ad_id,
            "margin": scores[ad.left] - scores[ad.right],
            "p_left_better": ad.p_left_better,
            "p_value": ad.p_value,
            "left_won": ctr[ad.left] > ctr[ad.right],
            "length_difference": length[ad.left] - length[ad.right],
            "min_impressions": np.minimum(impressions[ad.left], impressions[ad.right]),
        }
    )
    return pairs[ctr[ad.left] != ctr[ad.right]]


def accuracy(margin: pd.Series, left_won: pd.Series) -> float:
    """Share of pairs where the side with the higher score had the higher observed CTR; equal scores count a half."""
    return float(np.where(margin == 0, 0.5, (margin > 0) == left_won).mean())


def negative_log_likelihood(margin: pd.Series, p_left_better: pd.Series) -> float:
    """Mean cross-entropy of sigmoid(margin) against the soft label, in nats; log 2 for a model that knows nothing."""
    return float((p_left_better * np.logaddexp(0, -margin) + (1 - p_left_better) * np.logaddexp(0, margin)).mean())


def summarise(pairs: pd.DataFrame) -> dict[str, float | int]:
    """Figures for one model on `score_pairs`' rows."""
    significant = pairs[pairs.p_value < SIGNIFICANT]
    return {
        "pairs": len(pairs),
        "pairs_significant": len(significant),
        "accuracy": accuracy(pairs.margin, pairs.left_won),
        "accuracy_standard_error": clustered_standard_error(pairs),
        "accuracy_significant": accuracy(significant.margin, significant.left_won)
        if len(significant)
        else float("nan"),
        "accuracy_longer_wins": accuracy(pairs.length_difference, pairs.left_won),
        "negative_log_likelihood": negative_log_likelihood(pairs.margin, pairs.p_left_better),
    }


def clustered_standard_error(pairs: pd.DataFrame) -> float:
    """Standard error of the accuracy with pairs of one ad taken as one cluster (linearised ratio)."""
    correct = np.where(pairs.margin == 0, 0.5, (pairs.margin > 0) == pairs.left_won)
    residual = pd.Series(correct - correct.mean()).groupby(pairs.ad_id.to_numpy()).sum()
    return float(np.sqrt((residual**2).sum()) / len(pairs))
