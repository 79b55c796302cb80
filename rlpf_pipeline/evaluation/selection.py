"""What choosing the best-scored text of an ad is worth: top-1 accuracy, and the lift in CTR on randomised tests.

A scorer sees texts only, never clicks, and each arm was shown at random; so the observed CTR of the arm it picks is an
unbiased estimate of that arm's true CTR, however noisy. Over ads a

    lift = sum_a w_a CTR_a(picked arm) / sum_a w_a (mean over arms of CTR_a) - 1,    w_a = arms^2 / sum over arms of 1/n

Each arm counts by its own rate, so picking an arm that was shown more gains nothing by that. w_a is the ad's
impressions where its arms had as many each, and little where one of them was hardly shown and its rate hardly known;
it depends neither on clicks nor on the pick. A pick among equal scores is the mean over them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rlpf_pipeline.evaluation.split import Split

RESAMPLES, DRAWS = 1000, 200
MOST_HALVED = 10**9 - 1
"""Impressions of an arm that NumPy divides; of more, this many at the same CTR tell the same."""


class Picks(NamedTuple):
    """The CTR expected of a way to pick, by ad, beside that of an arm picked by chance: both (ads,)."""

    picked: np.ndarray
    chance: np.ndarray


class Lift(NamedTuple):
    """Relative gain in CTR over an arm picked by chance, with a 95 % interval (None with fewer than two clusters)."""

    lift: float
    low: float | None
    high: float | None


class Oracle(NamedTuple):
    """What a ranker that knows every arm's true CTR could be expected to reach, given the clicks.

    picks: with the true best arm's CTR. top1: the probability that the arm with the best observed CTR is the true best
    one, (ads,): no ranker can be expected to agree with the observed winner more often.
    """

    picks: Picks
    top1: np.ndarray


def top1(split: Split, score: np.ndarray) -> np.ndarray:
    """Probability that the text picked by `score` (texts,) has its ad's best observed CTR: (ads,).

    A pick among equal scores is even; of several texts with the same best CTR each is right. For a constant score this
    is chance.
    """
    best = highest_of_ad(split, split.texts["ctr"].to_numpy())
    top = highest_of_ad(split, score)
    return np.add.reduceat(best * top, split.starts) / np.add.reduceat(top, split.starts)


def picks(split: Split, score: np.ndarray) -> Picks:
    """Observed CTR of the arm with the highest score (the mean over equal ones), and mean CTR of the arms."""
    ctr, top = split.texts["ctr"].to_numpy(), highest_of_ad(split, score)
    sizes = np.diff(split.starts, append=len(ctr))
    picked = np.add.reduceat(ctr * top, split.starts) / np.add.reduceat(top, split.starts)
    return Picks(picked, np.add.reduceat(ctr, split.starts) / sizes)


def highest_of_ad(split: Split, values: np.ndarray) -> np.ndarray:
    """1.0 at the texts whose value is the highest of their ad, else 0.0: (texts,)."""
    highest = np.maximum.reduceat(values, split.starts)
    return np.asarray(values == highest[split.texts["ad"]], dtype=np.float64)


def ad_weights(split: Split) -> np.ndarray:
    """Arms times the harmonic mean of their impressions: (ads,), impressions."""
    sizes = np.diff(split.starts, append=len(split.texts))
    return sizes**2 / np.add.reduceat(1 / split.texts["impressions"].to_numpy(), split.starts)


def selection_lift(picks: Picks, weight: np.ndarray, cluster: np.ndarray, seed: int = 0) -> Lift | None:
    """The lift over all ads with a percentile interval from resampled clusters; None where no arm was clicked.

    weight, cluster: (ads,). Clusters are drawn with replacement, as many as there are (Field & Welsh 2007); ads within
    one are kept together.
    """
    _, number = np.unique(cluster, return_inverse=True)
    picked = np.bincount(number, weights=weight * picks.picked)
    chance = np.bincount(number, weights=weight * picks.chance)
    if chance.sum() == 0:
        return None
    lift = float(picked.sum() / chance.sum() - 1)
    if len(chance) < 2:
        return Lift(lift, None, None)
    rng, lifts = np.random.default_rng(seed), []
    for _ in range(RESAMPLES):
        times = np.bincount(rng.integers(len(chance), size=len(chance)), minlength=len(chance))
        if total := times @ chance:
            lifts.append(times @ picked / total - 1)
    low, high = np.quantile(lifts, [0.025, 0.975])
    return Lift(lift, float(low), float(high))


def oracle(split: Split, seed: int = 0) -> Oracle:
    """Expectation over the posterior of the arms' true CTRs, Beta with the labels' prior strength around the CTR
    of the ad's texts, from DRAWS draws.

    Not the arm with the best observed CTR: that one's CTR is high by luck too. Effects with heavier tails than the
    prior has would make the true oracle somewhat better than this one. The mean arm is the posterior's too, so that
    both sides of the lift are of one kind.
    """
    texts, rng = split.texts, np.random.default_rng(seed)
    a = texts["centre"] * texts["strength"] + texts["clicks"]
    b = (1 - texts["centre"]) * texts["strength"] + texts["impressions"] - texts["clicks"]
    observed_best = highest_of_ad(split, texts["ctr"].to_numpy())
    sizes = np.diff(split.starts, append=len(texts))
    best, mean, agreed = (np.zeros(len(split.starts)) for _ in range(3))
    for _ in range(DRAWS):
        ctr = rng.beta(a.to_numpy(), b.to_numpy())
        best += np.maximum.reduceat(ctr, split.starts)
        mean += np.add.reduceat(ctr, split.starts) / sizes
        agreed += np.add.reduceat(highest_of_ad(split, ctr) * observed_best, split.starts)
    return Oracle(Picks(best / DRAWS, mean / DRAWS), agreed / DRAWS)


def half_test(split: Split, seed: int = 0) -> Picks:
    """The arm that wins on a random half of its own impressions, judged on the other half; mean over DRAWS halvings.

    What the test itself would find with half of its traffic, without a prior: clicks are divided as a draw without
    replacement divides them. Arms with a single impression keep it on the judging side.
    """
    texts, rng = split.texts, np.random.default_rng(seed)
    kept = np.minimum(MOST_HALVED / texts["impressions"], 1)
    clicks, shown = (np.rint(texts[name] * kept).to_numpy(np.int64) for name in ("clicks", "impressions"))
    half = shown // 2
    totals = [np.zeros(len(split.starts)) for _ in range(2)]
    for _ in range(DRAWS):
        first = rng.hypergeometric(clicks, shown - clicks, half)
        judged = split._replace(texts=texts.assign(ctr=(clicks - first) / (shown - half)))
        for total, values in zip(totals, picks(judged, first / np.maximum(half, 1)), strict=True):
            total += values
    return Picks(totals[0] / DRAWS, totals[1] / DRAWS)
