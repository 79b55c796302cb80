"""Formulas: wording that a policy's texts share, whatever the ad they are for.

"You can …" pleases wherever it stands, so no reward model sees that it stands everywhere: each reads one ad at a time.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

Pair = tuple[str, str]


def shared_wording(texts: Sequence[str], originals: Sequence[str]) -> np.ndarray:
    """Of each text the largest share of the other originals' texts that hold one of its word pairs: (texts,), 0 to 1.

    originals: what each text was written for, by its text or its id. 0 where there is no other original.
    """
    pairs = [word_pairs(text) for text in texts]
    holding, texts_of = Counter(pair for own in pairs for pair in own), Counter(originals)
    holding_of: dict[str, Counter[Pair]] = defaultdict(Counter)
    for original, own in zip(originals, pairs, strict=True):
        holding_of[original].update(own)

    def share(original: str, own: set[Pair]) -> float:
        others = len(pairs) - texts_of[original]
        return max((holding[pair] - holding_of[original][pair] for pair in own), default=0) / max(others, 1)

    return np.array([share(original, own) for original, own in zip(originals, pairs, strict=True)])


def word_pairs(text: str) -> set[Pair]:
    """Neighbouring words, whatever their case, and the first one with "" before it; "you'll" is two words."""
    words = re.findall(r"\w+", text.casefold())
    return set(zip(["", *words], words, strict=False))
