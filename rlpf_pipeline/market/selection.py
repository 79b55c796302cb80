"""How an advertiser picks among the suggestions for an ad: by how they look, not by their CTR, which nobody knows yet.

A suggestion looks good when it is about the same thing as the original, is finished and is not garbled. Empty texts and
copies (of the original or of an earlier suggestion) are never picked; at most four are, so that an ad has five texts
at most with its original.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rlpf_pipeline.market.reading import WORD, read_words
from rlpf_pipeline.market.text_features import garbage, relevance

MAX_SELECTED = 4
LEAST, MOST = 0.05, 0.75
"""Probability to pick a suggestion that looks hopeless, and one that looks flawless."""


def selection_probabilities(original: str, texts: Sequence[str], finished: Sequence[bool]) -> npt.NDArray[np.float64]:
    """Probability that an advertiser picks each suggestion for `original`, float64 of the length of `texts`."""
    every_word = read_words([*texts, original])
    words = every_word.of_texts(np.arange(len(texts)))
    original_words = every_word.of_texts(np.full(len(texts), len(texts)))
    quality = relevance(words, original_words) * np.where(finished, 1.0, 0.4) * np.exp(-2.0 * garbage(texts, words))
    seen, new = {(), wording(original)}, []
    for text in texts:
        new.append(wording(text) not in seen)
        seen.add(wording(text))
    return np.where(new, LEAST + (MOST - LEAST) * quality, 0.0)


def wording(text: str) -> tuple[str, ...]:
    return tuple(word.lower() for word in WORD.findall(text))


def select(probabilities: npt.NDArray[np.float64], draws: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """The suggestions picked, bool (ads, suggestions); the first four that please are taken, in the order offered.

    probabilities, draws (uniform in [0, 1)): (ads, suggestions).
    """
    pleasing = draws < probabilities
    return np.asarray(pleasing & (pleasing.cumsum(axis=1) <= MAX_SELECTED))
