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

Ads = Sequence[tuple[str | None, Sequence[str]]]


class Scorer(Protocol):
    """What orders texts: a reward model or a baseline."""

    def score(self, ads: Ads) -> list[np.ndarray]:
        """For each (context, texts) the scores (texts, heads), log odds up to a constant of the ad."""
        ...


class Split(NamedTuple):
    """Texts and pairs of one split, of ads with several texts.

    texts: one row per text, the texts of an ad together: ad (from 0), ad_id, variant_id, context, text, impressions,
    clicks, ctr, strength (of the prior that labels are made with), centre (of it, the CTR of all texts of the ad; a
    label's is that of those shown often enough for a pair), cluster (ads that share an advertiser or a near-duplicate
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
        clusters: np.ndarray = self.texts["cluster"].to_numpy()[self.starts]
        return clusters

    @property
    def decided(self) -> pd.DataFrame:
        """Pairs with a winner: `left_won` says whose observed CTR is the higher one."""
        ctr = self.texts["ctr"].to_numpy()
        left, right = ctr[self.pairs["left"]], ctr[self.pairs["right"]]
        decided: pd.DataFrame = self.pairs.assign(left_won=left > right)[left != right]
        return decided

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
    ads = pd.read_parquet(snapshot / "ads.parquet", filters=kept).drop(columns="split")
    priors = pd.read_parquet(snapshot / "ctr_priors.parquet", columns=["source", "ctr", "prior_strength"])
    ads = ads.merge(priors.rename(columns={"ctr": "source_ctr", "prior_strength": "strength"}), on="source")
    texts = pd.read_parquet(snapshot / "variants.parquet", filters=kept).merge(ads, on="ad")
    texts = texts[texts.groupby("ad")["variant"].transform("size") > 1].reset_index(drop=True)
    texts["context"] = texts["context"].astype(object).where(texts["context"].notna(), None)
    texts["ad"] = pd.factorize(texts["ad"])[0]
    totals = texts.groupby("ad")[["impressions", "clicks"]].transform("sum")
    texts = texts.assign(
        ctr=texts["clicks"] / texts["impressions"],
        centre=(totals["clicks"] + 1) / (totals["impressions"] + 1 / texts["source_ctr"]),
    )
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
