"""A split of the snapshot as evaluation reads it: every text of its ads, and the pairs as rows of texts.

Scores are kept beside the texts, (texts,), so that a pair's margin is scores[left] - scores[right] for any scorer, and
ads without a pair still count where an ad's best text is asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import pandas as pd

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.preferences.splits import first_of_cluster

Ads = Sequence[tuple[str | None, Sequence[str]]]


class Scorer(Protocol):
    """What orders texts: a reward model or a baseline."""

    def score(self, ads: Ads) -> list[np.ndarray]:
        """For each (context, texts) the scores (texts, heads), log odds up to a constant of the ad."""
        ...


class Split(NamedTuple):
    """Texts and pairs of one split, of ads with several texts.

    texts: one row per text, the texts of an ad together: ad (from 0), ad_id, variant_id, context, text, impressions,
    clicks, ctr, centre and strength (the prior that labels are made with), cluster (ads that share an advertiser or a
    text). pairs: left and right (rows of texts), and effect, p_left_better, p_value, weight, exposure as in
    contracts.PAIRS.
    """

    texts: pd.DataFrame
    pairs: pd.DataFrame

    @property
    def starts(self) -> np.ndarray:
        """First row of each ad in `texts`: (ads,)."""
        return np.flatnonzero(np.diff(self.texts["ad"], prepend=-1))

    @property
    def clusters(self) -> np.ndarray:
        """Cluster of each ad: (ads,)."""
        return self.texts["cluster"].to_numpy()[self.starts]

    @property
    def decided(self) -> pd.DataFrame:
        """Pairs with a winner: `left_won` says whose observed CTR is the higher one."""
        ctr = self.texts["ctr"].to_numpy()
        left, right = ctr[self.pairs["left"]], ctr[self.pairs["right"]]
        return self.pairs.assign(left_won=left > right)[left != right]

    def only(self, ad_ids: Collection[str]) -> Split:
        """The same with these ads alone."""
        kept = self.texts["ad_id"].isin(ad_ids).to_numpy()
        row = kept.cumsum() - 1
        texts = self.texts[kept].reset_index(drop=True)
        pairs = self.pairs[kept[self.pairs["left"]]]
        return Split(
            texts.assign(ad=pd.factorize(texts["ad"])[0]),
            pairs.assign(left=row[pairs["left"]], right=row[pairs["right"]]),
        )

    def ads(self) -> list[tuple[str | None, list[str]]]:
        """(context, texts) of each ad, as scorers take them."""
        return [(own["context"].iloc[0], own["text"].tolist()) for _, own in self.texts.groupby("ad", sort=True)]

    def score(self, scorer: Scorer) -> np.ndarray:
        """Scores of all texts, in order: (texts, heads), float64. Raises ValueError where one is not finite."""
        scores = np.concatenate(scorer.score(self.ads())).astype(np.float64)
        if not np.isfinite(scores).all():
            raise ValueError("a score is not finite")
        return scores


def read_split(snapshot: Path, split: str) -> Split:
    """Texts and pairs of a split; there may be none."""
    kept = [("split", "==", split)]
    counts = pd.read_parquet(snapshot / "variants.parquet", columns=["variant", "ad", "impressions", "clicks"])
    sources = pd.read_parquet(snapshot / "ads.parquet", columns=["ad", "source"])
    prior = add_prior(counts.merge(sources, on="ad"))[["variant", "ctr", "centre", "strength"]]
    ads = pd.read_parquet(snapshot / "ads.parquet", filters=kept).drop(columns="split")
    texts = pd.read_parquet(snapshot / "variants.parquet", filters=kept).merge(ads, on="ad").merge(prior, on="variant")
    texts = texts[texts.groupby("ad")["variant"].transform("size") > 1].reset_index(drop=True)
    texts["context"] = texts["context"].astype(object).where(texts["context"].notna(), None)
    texts["ad"] = pd.factorize(texts["ad"])[0]
    texts["cluster"] = clusters_of(texts)
    row = pd.Series(texts.index, index=texts["variant"])
    pairs = pd.read_parquet(snapshot / "pairs.parquet", filters=kept)
    pairs = pairs.assign(
        left=row.loc[pairs["left_variant"]].to_numpy(), right=row.loc[pairs["right_variant"]].to_numpy()
    )
    return Split(texts, pairs.drop(columns=["left_variant", "right_variant"]))


def read_decided_split(snapshot: Path, split: str) -> Split:
    """The same. Raises UserError where no pair has a winner: nothing can be measured there."""
    found = read_split(snapshot, split)
    if found.decided.empty:
        raise UserError(
            f"The {split} split of {snapshot} holds no pair of texts whose CTRs differ: nothing can be evaluated. "
            f"Bring more ads, or raise its share (pairs.{split})."
        )
    return found


def add_prior(variants: pd.DataFrame) -> pd.DataFrame:
    """Add ctr, and the Beta prior of the labels: centre (of the ad) and strength (of the source).

    The same method of moments as sql/marts/ctr_priors.sql and the same centre as sql/marts/pairs.sql; a test holds them
    together.
    """
    v = variants.assign(ctr=variants["clicks"] / variants["impressions"])
    by_ad, by_source = v.groupby("ad"), v.groupby("source")
    clicks, shown = by_ad["clicks"].transform("sum"), by_ad["impressions"].transform("sum")
    overall = (by_source["clicks"].transform("sum") + 0.5) / (by_source["impressions"].transform("sum") + 1)
    ctr, share = clicks / shown, v["impressions"] / shown
    told = (by_ad["clicks"].transform("size") > 1) & (clicks > 0) & (clicks < shown)
    chi = v["impressions"] * (v["ctr"] - ctr) ** 2 / (ctr * (1 - ctr)).where(told)
    moments = pd.DataFrame(
        {
            "source": v["source"],
            "excess": (chi - (1 - share)).where(told),
            "leverage": ((v["impressions"] - 1) * (1 - share)).where(told),
        }
    )
    sums = moments.groupby("source").sum()
    correlation = (sums["excess"] / sums["leverage"].where(sums["leverage"] > 0)).clip(lower=0)
    strength = (1 / correlation.where(correlation > 0) - 1).clip(1, 1e6).fillna(1e6)
    return v.assign(centre=(clicks + 1) / (shown + 1 / overall), strength=v["source"].map(strength))


def clusters_of(texts: pd.DataFrame) -> np.ndarray:
    """Number of each row's cluster: ads that share an advertiser or a text (in lower case) hang together."""
    first = [texts["ad"]]
    for column in (texts["text"].str.casefold(), texts["advertiser_id"].astype(object)):
        first.append(texts.groupby(column)["ad"].transform("min").fillna(texts["ad"]).astype(int))
    own = np.concatenate([texts["ad"]] * (len(first) - 1))
    return first_of_cluster(own, np.concatenate(first[1:]), int(texts["ad"].max()) + 1 if len(texts) else 0)[
        texts["ad"]
    ]
