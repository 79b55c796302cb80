"""Splits made by hand, for the tests of the evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from rlpf_pipeline.evaluation.split import Split

LABEL, STRENGTH = 0.9, 1000.0


def split_of(*ads: Sequence[tuple[str, int, int]], contexts: Sequence[str | None] | None = None) -> Split:
    """A split of ads with (text, impressions, clicks) each, and all pairs of an ad.

    A pair's label is LABEL for the side with the higher CTR, one half in a tie; its p-value .01; its effect the log of
    the CTRs' ratio. Every ad is a cluster.
    """
    texts = pd.DataFrame(
        [
            (at, f"ad {at}", f"{at}-{place}", contexts[at] if contexts else None, *row)
            for at, own in enumerate(ads)
            for place, row in enumerate(own)
        ],
        columns=["ad", "ad_id", "variant_id", "context", "text", "impressions", "clicks"],
    )
    by_ad = texts.groupby("ad")
    texts = texts.assign(
        ctr=texts.clicks / texts.impressions,
        centre=by_ad.clicks.transform("sum") / by_ad.impressions.transform("sum"),
        strength=STRENGTH,
        cluster=texts.ad,
    )
    sides = [pair for _, own in texts.groupby("ad") for pair in combinations(own.index, 2)]
    pairs = pd.DataFrame(sides, columns=["left", "right"])
    ctr = texts.ctr.to_numpy()
    left, right = ctr[pairs.left], ctr[pairs.right]
    shown = texts.impressions.to_numpy()
    return Split(
        texts,
        pairs.assign(
            effect=np.log(np.maximum(left, 1e-6) / np.maximum(right, 1e-6)),
            p_left_better=np.where(left == right, 0.5, np.where(left > right, LABEL, 1 - LABEL)),
            p_value=0.01,
            weight=1.0,
            exposure=np.minimum(shown[pairs.left], shown[pairs.right]),
        ),
    )
