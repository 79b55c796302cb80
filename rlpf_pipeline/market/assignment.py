"""Which arm an advertiser is in: a uniform, stable function of a salt and the advertiser's id.

Stable across processes and releases: whoever serves the texts and whoever analyses the experiment find the same arm. A
new experiment takes a new salt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from rlpf_pipeline.contracts import ARMS


def assign(advertiser_ids: Iterable[str], salt: str, arms: Sequence[str] = ARMS) -> npt.NDArray[np.str_]:
    """One arm per id: the first 8 bytes of sha256("salt:id"), big-endian, modulo the number of arms."""
    return np.array([arms[bucket(advertiser_id, salt) % len(arms)] for advertiser_id in advertiser_ids], dtype=np.str_)


def bucket(advertiser_id: str, salt: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{salt}:{advertiser_id}".encode()).digest()[:8], "big")
