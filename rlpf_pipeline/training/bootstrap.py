"""Poisson bootstrap over ads: how often each score head sees an ad (Oza & Russell 2001).

The draw depends on seed and ad_id alone, so it is the same on every rank, after a resume, and however ads are ordered.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np

# P(at most k) for a Poisson variable of mean 1; beyond 12 lies less than 1e-10.
POISSON_ONE = np.cumsum([math.exp(-1) / math.factorial(k) for k in range(13)])


def bootstrap_counts(ad_ids: Sequence[str], heads: int, seed: int) -> np.ndarray:
    """Poisson(1) counts, float32 (ads, heads); all one for a single head, which then sees the sample as it is."""
    if heads == 1:
        return np.ones((len(ad_ids), 1), np.float32)
    drawn = b"".join(hashlib.shake_128(f"{seed}:{ad_id}".encode()).digest(8 * heads) for ad_id in ad_ids)
    uniform = np.frombuffer(drawn, "<u8").reshape(len(ad_ids), heads) / 2.0**64
    return np.searchsorted(POISSON_ONE, uniform, side="right").astype(np.float32)
