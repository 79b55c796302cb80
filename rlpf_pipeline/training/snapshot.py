"""The preference snapshot as training reads it: ads with their variants and pairs, from Parquet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from rlpf_pipeline.contracts import SPLITS
from rlpf_pipeline.errors import UserError


class Ad(NamedTuple):
    """One ad: variants in order, and its pairs as indices into them with soft label and weight."""

    ad_id: str
    context: str | None
    texts: tuple[str, ...]
    impressions: tuple[int, ...]
    clicks: tuple[int, ...]
    left: np.ndarray
    right: np.ndarray
    p_left_better: np.ndarray
    p_value: np.ndarray
    weight: np.ndarray


def read_ads(snapshot: Path, split: str) -> list[Ad]:
    """Ads of a split that have at least one pair, ordered by ad_id; there may be none."""
    kept = [("split", "==", split)]
    ads = pd.read_parquet(snapshot / "ads.parquet", filters=kept).set_index("ad")
    variants = pd.read_parquet(snapshot / "variants.parquet", filters=kept)
    pairs = pd.read_parquet(snapshot / "pairs.parquet", filters=kept)
    pairs["ad"] = variants.set_index("variant")["ad"].loc[pairs["left_variant"]].to_numpy()
    by_ad = dict(tuple(variants.groupby("ad")))
    return [_ad(ads.loc[ad], by_ad[ad], group) for ad, group in pairs.groupby("ad", sort=True)]


def read_needed_ads(snapshot: Path, split: str) -> list[Ad]:
    """The same. Raises UserError where there are none, as in a snapshot of few clusters."""
    found = read_ads(snapshot, split)
    if not found:
        ads = pd.read_parquet(snapshot / "ads.parquet", columns=["split"])["split"].value_counts()
        counts = ", ".join(f"{name} {ads.get(name, 0):,}" for name in SPLITS)
        raise UserError(
            f"The {split} split has no pair to work with. Ads by split: {counts}. Ads that share an advertiser (where "
            "there are several) or nearly a text go into one split together: bring more ads of more advertisers, or "
            "train on one advertiser's ads alone, under an RLPF_HOME of their own; then only texts tie them. The "
            "splits' shares are pairs.validation, pairs.test and pairs.evaluation."
        )
    return found


def _ad(ad: pd.Series, variants: pd.DataFrame, pairs: pd.DataFrame) -> Ad:
    first = variants["variant"].iloc[0]
    return Ad(
        ad["ad_id"],
        ad["context"] if isinstance(ad["context"], str) else None,
        tuple(variants["text"]),
        tuple(variants["impressions"].tolist()),
        tuple(variants["clicks"].tolist()),
        (pairs["left_variant"] - first).to_numpy(),
        (pairs["right_variant"] - first).to_numpy(),
        pairs["p_left_better"].to_numpy(),
        pairs["p_value"].to_numpy(),
        pairs["weight"].to_numpy(),
    )


def original_of(ad: Ad) -> str:
    """The text a policy is asked to vary: the first variant, which is the advertiser's own where the source says so."""
    return ad.texts[0]


def shuffled(ads: Sequence[Ad], seed: int) -> list[Ad]:
    """The ads in a random order that depends on the seed alone."""
    return [ads[i] for i in np.random.default_rng(seed).permutation(len(ads))]
