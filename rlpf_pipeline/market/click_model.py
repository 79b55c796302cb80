"""The planted truth of the simulated market: how the words of a text move its click-through rate.

    log effect on segment s = stakes(ad) x (sum of weight_s x feature - CENTRE + idiosyncratic effect)
    CTR = min(base x exp(advertiser effect) x sum of share_s x exp(log effect on s), 1/2)

An ad is read by three segments of people who like different texts; an industry's shares of them are its audience. How
much the wording matters differs by ad: stakes = SCALE x sqrt(3 / chi-squared of 3 degrees of freedom), so that over all
ads the effects of texts are Student-t with about 3 degrees of freedom and scale 0.15, as in real headline tests. The
features (text_features.py) saturate and turn against those who stuff them. The idiosyncratic effect is normal and fixed
by a hash of the text and the market's seed: it belongs to the text in every arm and period, and no model can learn it.
The weights stand only here, and nothing that trains imports this folder: reward models must find them out from clicks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from rlpf_pipeline.market import text_features as feature
from rlpf_pipeline.market.reading import Floats, read_sentences, read_words
from rlpf_pipeline.sentence_embeddings import cosines
from rlpf_pipeline.settings import MarketSettings, Relevance

MAX_CTR = 0.5


@dataclass(frozen=True)
class PlantedWeights:
    """Change of log CTR per unit of each feature, at stakes of 1, for the average person."""

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


FEATURES = tuple(asdict(PlantedWeights()))
AVERAGE = np.array(list(asdict(PlantedWeights()).values()))

SEGMENTS: dict[str, dict[str, float]] = {
    "hurried": {"call_to_action": 1.6, "length_cost": 1.6, "concreteness": 0.7, "second_person": 0.8},
    "careful": {
        "call_to_action": 0.5,
        "concreteness": 1.6,
        "question": 0.6,
        "length_cost": 0.6,
        "invented_claims": 1.4,
    },
    "sociable": {"second_person": 1.6, "question": 1.6, "concreteness": 0.7, "invented_claims": 0.6},
}
"""What a segment's weights are times the average ones; 1 where it says nothing."""
SEGMENT_WEIGHTS = np.array([[w * of.get(name, 1.0) for name, w in zip(FEATURES, AVERAGE, strict=True)]
                            for of in SEGMENTS.values()]).T  # fmt: skip

AUDIENCES: dict[str, tuple[float, float, float]] = {
    "Bakery": (0.4, 0.2, 0.4),
    "Bookshop": (0.2, 0.4, 0.4),
    "Fitness studio": (0.4, 0.2, 0.4),
    "Home repair": (0.5, 0.4, 0.1),
    "Pet care": (0.2, 0.3, 0.5),
    "Garden centre": (0.2, 0.6, 0.2),
    "Beauty salon": (0.3, 0.2, 0.5),
    "Tutoring school": (0.2, 0.6, 0.2),
}
"""Shares of the segments, in the order of SEGMENTS, among those who see an industry's ads."""
EVERYONE = (1 / 3, 1 / 3, 1 / 3)
INDUSTRY = "Industry: "
"""What the context of an ad says before its industry."""

CENTRE = 0.40
"""Mean weighted sum over human-written variants, and the little that unequal effects add to a mean CTR."""
IDIOSYNCRATIC_SIGMA = 0.08
SCALE = 0.72
"""Brings the effects of human variants at stakes of 1 to a standard deviation of 0.15 within an ad."""
MAX_STAKES = 4.0
"""In units of SCALE; 2 % of ads reach it."""
UNRELATED, RELATED = 0.1, 0.7
"""Cosines of embeddings from which relevance rises from 0, and at which it is full."""


@dataclass(frozen=True)
class PlantedClickModel:
    """Scores any text, given its ad's original and industry.

    seed: fixes stakes and idiosyncratic effects. relevance: to the original, by shared words or by embeddings.
    """

    seed: int
    relevance: Relevance = "words"

    @classmethod
    def of(cls, market: MarketSettings) -> PlantedClickModel:
        return cls(market.seed, market.relevance)

    def log_effects(
        self, texts: Sequence[str], originals: Sequence[str], industries: Sequence[str] | None = None
    ) -> Floats:
        """Log CTR of each text relative to an average one, over the audience of its industry (None: everyone).

        All of one length, `originals` holding the original of each text's ad; returns float64 of that length.
        """
        names = [""] * len(texts) if industries is None else industries
        audience = [AUDIENCES.get(name, EVERYONE) for name in names]
        own = self.features(texts, originals) @ SEGMENT_WEIGHTS - CENTRE + self.idiosyncratic_effects(texts)[:, None]
        of_segments = self.stakes(originals)[:, None] * own
        return np.asarray(np.log((np.array(audience).reshape(-1, len(SEGMENTS)) * np.exp(of_segments)).sum(axis=1)))

    def features(self, texts: Sequence[str], originals: Sequence[str]) -> Floats:
        """The value of every feature of each text, (texts, features), in the order of FEATURES."""
        found = features_of(texts, originals)
        if self.relevance == "minilm":
            found["relevance"] = embedding_relevance(texts, originals)
        return np.column_stack([found[name] for name in FEATURES])

    def idiosyncratic_effects(self, texts: Sequence[str]) -> Floats:
        return np.asarray(IDIOSYNCRATIC_SIGMA * self.hashed_normals("text", texts)[:, 0], dtype=np.float64)

    def stakes(self, originals: Sequence[str]) -> Floats:
        """How much the wording matters for the ad of each original."""
        chi_squared = (self.hashed_normals("stakes", originals)[:, :3] ** 2).sum(axis=1)
        return np.asarray(SCALE * np.minimum(np.sqrt(3.0 / chi_squared), MAX_STAKES), dtype=np.float64)

    def hashed_normals(self, purpose: str, keys: Sequence[str]) -> Floats:
        """Four standard normals for each key, (keys, 4), by a hash of seed, purpose and key (Box-Muller)."""
        digests = b"".join(
            hashlib.blake2b(f"{self.seed}:{purpose}:{key}".encode(), digest_size=32).digest() for key in keys
        )
        uniforms = (np.frombuffer(digests, dtype=">u8").reshape(-1, 4).astype(np.float64) + 0.5) / 2.0**64
        radius, angle = np.sqrt(-2.0 * np.log(uniforms[:, :2])), 2.0 * np.pi * uniforms[:, 2:]
        return np.hstack([radius * np.cos(angle), radius * np.sin(angle)])

    def ctr(
        self,
        texts: Sequence[str],
        originals: Sequence[str],
        advertiser_effects: npt.ArrayLike,
        base_ctr: float,
        industries: Sequence[str] | None = None,
    ) -> Floats:
        """Planted CTR of each text; `advertiser_effects` (log CTR) is a scalar or one a text."""
        return capped_ctr(base_ctr, np.asarray(advertiser_effects) + self.log_effects(texts, originals, industries))


def industry_of(context: str | None) -> str:
    """The industry that an ad's context names; empty without one."""
    return (context or "").removeprefix(INDUSTRY)


def embedding_relevance(texts: Sequence[str], originals: Sequence[str]) -> Floats:
    """Relevance in [0, 1] of each text to the original beside it, by the cosine of their MiniLM embeddings."""
    risen = (cosines(texts, originals) - UNRELATED) / (RELATED - UNRELATED)
    return np.asarray(np.clip(risen, 0.0, 1.0), dtype=np.float64)


def capped_ctr(base_ctr: float, log_effects: Floats) -> Floats:
    return np.minimum(base_ctr * np.exp(log_effects), MAX_CTR)


def features_of(texts: Sequence[str], originals: Sequence[str]) -> dict[str, Floats]:
    """Every feature of each text, (texts,), by the names of `PlantedWeights`; relevance by shared words."""
    place = {text: i for i, text in enumerate(dict.fromkeys([*texts, *originals]))}
    every_word = read_words(list(place))
    words = every_word.of_texts(np.array([place[text] for text in texts], dtype=np.int64))
    original_words = every_word.of_texts(np.array([place[text] for text in originals], dtype=np.int64))
    sentences = read_sentences(texts)
    return {
        "call_to_action": feature.calls_to_action(sentences),
        "question": feature.question(sentences),
        "second_person": feature.second_person(words),
        "concreteness": feature.concreteness(words, original_words),
        "hardness": feature.hardness(words, sentences),
        "length_cost": feature.length_cost(words),
        "relevance": feature.relevance(words, original_words),
        "repetition": feature.repetition(words),
        "invented_claims": feature.invented_claims(words, original_words),
        "garbage": feature.garbage(texts, words),
    }
