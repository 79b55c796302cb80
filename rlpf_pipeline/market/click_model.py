"""The planted truth of the simulated market: how the words of a text move its click-through rate.

    log effect = sum of weight x feature - CENTRE + idiosyncratic effect
    CTR = min(base x exp(advertiser effect + log effect), 1/2)

The features (text_features.py) saturate and turn against those who stuff them. The idiosyncratic effect is Student-t
with 3 degrees of freedom (heavy tails, as in real headline tests), fixed by a hash of the text and the market's seed:
it belongs to the text in every arm and period, and no model can learn it. The weights stand only here, and
nothing that trains imports this folder: reward models must find them out from clicks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from rlpf_pipeline.market import text_features as feature
from rlpf_pipeline.settings import MarketSettings

Floats = npt.NDArray[np.float64]

MAX_CTR = 0.5


@dataclass(frozen=True)
class PlantedWeights:
    """Change of log CTR per unit of each feature."""

    call_to_action: float = 0.22
    question: float = 0.18
    second_person: float = 0.19
    concreteness: float = 0.20
    hardness: float = -0.15
    length_cost: float = -0.22
    relevance: float = 0.25
    repetition: float = -0.45
    invented_claims: float = -0.35
    garbage: float = -1.2


WEIGHTS = PlantedWeights()
CENTRE = 0.39
"""Mean weighted sum over human-written variants, so that their effects average 0."""
IDIOSYNCRATIC_SCALE = 0.06


@dataclass(frozen=True)
class PlantedClickModel:
    """Scores any text, given its ad's original. `seed` (MarketSettings.seed) fixes the idiosyncratic effects."""

    seed: int

    def log_effects(self, texts: Sequence[str], originals: Sequence[str]) -> Floats:
        """Log CTR of each text relative to an average one; `originals` holds the original of each text's ad.

        Both of one length; returns float64 of that length.
        """
        return self.systematic_effects(texts, originals) + self.idiosyncratic_effects(texts)

    def systematic_effects(self, texts: Sequence[str], originals: Sequence[str]) -> Floats:
        """The part of `log_effects` that is a function of the words, hence learnable."""
        pairs = list(zip(texts, originals, strict=True))
        known = {pair: systematic_effect(*pair) for pair in dict.fromkeys(pairs)}
        return np.array([known[pair] for pair in pairs], dtype=np.float64)

    def idiosyncratic_effects(self, texts: Sequence[str]) -> Floats:
        """Scale times Student-t (3 degrees of freedom): a normal over the root of the mean of three squared normals."""
        digests = b"".join(hashlib.blake2b(f"{self.seed}:{text}".encode(), digest_size=32).digest() for text in texts)
        uniforms = (np.frombuffer(digests, dtype=">u8").reshape(-1, 4).astype(np.float64) + 0.5) / 2.0**64
        radius, angle = np.sqrt(-2.0 * np.log(uniforms[:, :2])), 2.0 * np.pi * uniforms[:, 2:]
        normals = np.hstack([radius * np.cos(angle), radius * np.sin(angle)])
        return np.asarray(
            IDIOSYNCRATIC_SCALE * normals[:, 0] / np.sqrt((normals[:, 1:] ** 2).mean(axis=1)), dtype=np.float64
        )

    def ctr(
        self, texts: Sequence[str], originals: Sequence[str], advertiser_effects: npt.ArrayLike, base_ctr: float
    ) -> Floats:
        """Planted CTR of each text; `advertiser_effects` (log CTR) is a scalar or one a text."""
        return capped_ctr(base_ctr, np.asarray(advertiser_effects) + self.log_effects(texts, originals))


def capped_ctr(base_ctr: float, log_effects: Floats) -> Floats:
    return np.minimum(base_ctr * np.exp(log_effects), MAX_CTR)


def planted_ctr(texts: Sequence[str], originals: Sequence[str], market: MarketSettings) -> float:
    """Mean planted CTR of texts for an average advertiser: what a policy is worth in this market."""
    return float(PlantedClickModel(market.seed).ctr(texts, originals, 0.0, market.base_ctr).mean())


def systematic_effect(text: str, original: str) -> float:
    values = features_of(text, original)
    return sum((weight * values[name] for name, weight in asdict(WEIGHTS).items()), start=-CENTRE)


def features_of(text: str, original: str) -> dict[str, float]:
    """The value of every feature of a text, by the names of `PlantedWeights`."""
    words, original_words = feature.words_of(text), feature.words_of(original)
    sentences = feature.sentences_of(text)
    return {
        "call_to_action": feature.calls_to_action(sentences),
        "question": feature.question(sentences),
        "second_person": feature.second_person(words),
        "concreteness": feature.concreteness(words, original_words),
        "hardness": feature.hardness(words, sentences),
        "length_cost": feature.length_cost(len(words)),
        "relevance": feature.relevance(words, original_words),
        "repetition": feature.repetition(words),
        "invented_claims": feature.invented_claims(words, original_words),
        "garbage": feature.garbage(text, words),
    }
