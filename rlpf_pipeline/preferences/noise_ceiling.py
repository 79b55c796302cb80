"""Noise ceiling: the pairwise accuracy that even a perfect ranker cannot be expected to pass.

Accuracy counts how often a ranker's side is the side with the higher observed CTR. A perfect ranker names the side
whose true CTR is higher; clicks are noisy, so the observed winner is not always the true one. Given the clicks, the
posterior says with probability p that the left side is truly better. The observed winner is the side that the
posterior favours, so ranker and observation agree on the pair with probability max(p, 1 - p); accuracy is a mean over
pairs, and the ceiling is the mean of max(p, 1 - p).

It holds as far as the posterior is right. Where true CTRs within an ad differ less than the Beta prior allows, p is
too sure and the ceiling too high; where exposures differ so much that the prior turns the observed order around, the
term is that of the favoured side. Pairs of equal observed CTR have no winner: leave them out, here as in accuracy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def noise_ceiling(p_left_better: ArrayLike) -> float:
    """Expected accuracy of a perfect ranker, between 0.5 and 1.

    p_left_better: (pairs,) posterior probabilities. Raises ValueError where there is no pair or a value is no
    probability.
    """
    p = np.asarray(p_left_better, dtype=np.float64)
    if p.size == 0 or not bool(np.all((p >= 0) & (p <= 1))):
        raise ValueError("noise_ceiling needs at least one pair, and probabilities between 0 and 1")
    return float(np.maximum(p, 1 - p).mean())
