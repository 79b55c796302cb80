"""Small ads for tests of the reward trainer: the better text of an ad is the one that holds more of a letter."""

from itertools import combinations

import numpy as np

from rlpf_pipeline.training.snapshot import Ad

WORDS = ("bread", "fresh", "every", "day", "here", "street", "taste", "never", "bakery", "you", "buy", "now")


def make_ad(ad_id: str, texts: tuple[str, ...], p: list[float], context: str | None = None) -> Ad:
    """An ad with all pairs of its texts, in order, and their labels."""
    sides = np.array(list(combinations(range(len(texts)), 2)), np.int32).reshape(-1, 2)
    many = np.full(len(sides), 2.0)
    impressions, clicks = (100,) * len(texts), tuple(range(1, len(texts) + 1))
    return Ad(ad_id, context, texts, impressions, clicks, sides[:, 0], sides[:, 1], np.array(p), many / 4, many)


def make_ads(count: int, seed: int) -> list[Ad]:
    """Ads of two to four random texts; P(left better) is 0.9 where the left one has more of the letter e."""
    rng, ads = np.random.default_rng(seed), []
    for number in range(count):
        texts = tuple(" ".join(rng.choice(WORDS, rng.integers(3, 8))) for _ in range(rng.integers(2, 5)))
        gaps = [left.count("e") - right.count("e") for left, right in combinations(texts, 2)]
        p = [0.5 + 0.4 * float(np.sign(gap)) for gap in gaps]
        ads.append(make_ad(f"ad{seed}-{number}", texts, p, "Bakery" if number % 2 else None))
    return ads
