"""Balanced bootstrap over ads: how often each score head sees an ad (Davison, Hinkley & Schechtman 1986).

Each ad is dealt as many times as there are heads, each time to a head drawn at random. All heads together see every ad
equally often, so that their mean has nothing of the draw, to first order; their spread has. The draw depends on seed
and ad_id alone: it is the same on every rank, after a resume, and however ads are ordered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np


def bootstrap_counts(ad_ids: Sequence[str], heads: int, seed: int) -> np.ndarray:
    """Counts, float32 (ads, heads), binomial with mean 1; each ad's sum to `heads`."""
    drawn = b"".join(hashlib.shake_128(f"{seed}:{ad_id}".encode()).digest(8 * heads) for ad_id in ad_ids)
    dealt_to = np.frombuffer(drawn, "<u8").reshape(len(ad_ids), heads) % heads
    counts = np.zeros((len(ad_ids), heads), np.float32)
    np.add.at(counts, (np.arange(len(ad_ids))[:, None], dealt_to), 1.0)
    return counts
