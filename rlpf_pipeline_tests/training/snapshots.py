"""A preference snapshot made by hand: what `read_ads` reads, and no more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd


def write_snapshot(folder: Path, ads: Mapping[str, Sequence[str]], splits: Mapping[str, str]) -> Path:
    """Ads by id with their texts, the original first, each in the train split unless `splits` says otherwise."""
    folder.mkdir()
    names, split_of = list(ads), {ad: splits.get(ad, "train") for ad in ads}
    pd.DataFrame(
        [(number, ad, None, split_of[ad]) for number, ad in enumerate(names)],
        columns=["ad", "ad_id", "context", "split"],
    ).to_parquet(folder / "ads.parquet")
    variants = pd.DataFrame(
        [(names.index(ad), text, 100, 3, split_of[ad]) for ad, texts in ads.items() for text in texts],
        columns=["ad", "text", "impressions", "clicks", "split"],
    )
    variants.insert(0, "variant", range(len(variants)))
    variants.to_parquet(folder / "variants.parquet")
    first = variants.groupby("ad").variant.first().to_numpy()
    pd.DataFrame(
        {"left_variant": first, "right_variant": first + 1, "p_left_better": 0.5, "p_value": 1.0, "weight": 1.0}
    ).assign(split=list(split_of.values())).to_parquet(folder / "pairs.parquet")
    return folder
