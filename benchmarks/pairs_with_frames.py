"""The pairs of `bench_pairs.py` by polars (streaming) and by pandas, as one would write them with what each offers.

given: the folder of raw.parquet and splits.parquet; the three tables go into `output`. Both return seconds by step.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from rlpf_pipeline.settings import PairSettings

PAIRS = PairSettings()


class Clock:
    """Seconds between calls, by the names these give."""

    def __init__(self) -> None:
        self.seconds, self.last = dict[str, float](), time.perf_counter()

    def __call__(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name], self.last = now - self.last, now


def probability_of_better(z, left, right):
    """P(CTR_left > CTR_right) as in sql/marts/pairs.sql; z: (pairs,); left, right: a and b, (pairs,) each."""
    from scipy.special import gammaln, ndtr

    (p, r), (q, s) = ((a * b / (a + b), b * b / (a + b + 1)) for a, b in (left, right))
    low = np.maximum(left[0] / sum(left), right[0] / sum(right)) <= 0.3
    skewed = low & (np.minimum(p, q) < 16)
    better = ndtr(z)
    p, r, q, s = p[skewed], r[skewed], q[skewed], s[skewed]
    x, y, m, n = r / (r + s), s / (r + s), np.cbrt((p + 2) / r), np.cbrt((q + 2) / s)
    larger_z = (m * (1 - 1 / (9 * p + 18)) - n * (1 - 1 / (9 * q + 18))) / np.sqrt(
        m * m / (9 * p + 18) + n * n / (9 * q + 18)
    )
    over = np.exp(gammaln(p + q + 1) - gammaln(p + 1) - gammaln(q + 1) + p * np.log(x) + q * np.log(y)) * (
        (p * x - q * y) / (p + q) + x * y * (p + q + 1) / ((p + 1) * (q + 1)) * ((p + 1) * x - (q + 1) * y)
    )
    better[skewed] = np.clip(ndtr(larger_z) + over, 0, 1)
    return better


def with_polars(given: Path, output: Path) -> dict[str, float]:
    import polars as pl
    from scipy.special import digamma, ndtr, polygamma

    clock = Clock()
    raw = pl.scan_parquet(given / "raw.parquet")
    ads = (
        raw.group_by("ad_id")
        .agg(pl.col("source", "advertiser_id", "context").min())
        .join(pl.scan_parquet(given / "splits.parquet"), on="ad_id")
        .sort("ad")
        .collect(engine="streaming")
    )
    variants = (
        raw.join(ads.lazy().select("ad_id", "ad", "split"), on="ad_id")
        .group_by("ad", "text")
        .agg(pl.col("variant_id").min(), pl.col("impressions", "clicks").sum(), pl.col("split").first())
        .sort("ad", "variant_id")
        .collect(engine="streaming")
        .with_row_index("variant")
    )
    clock("variants")
    n, k = pl.col("impressions"), pl.col("clicks")
    ctr = (variants["clicks"].sum() + 0.5) / (variants["impressions"].sum() + 1)
    counts = variants.select("variant", "ad", "split", "impressions", "clicks")
    totals = counts.group_by("ad").agg(N=n.sum(), K=k.sum(), texts=pl.len())
    moments = (
        counts.lazy()
        .join(totals.lazy().filter((pl.col("texts") > 1) & (pl.col("K") > 0) & (pl.col("K") < pl.col("N"))), on="ad")
        .with_columns(m=pl.col("K") / pl.col("N"))
        .select(
            excess=(n * (k / n - pl.col("m")) ** 2 / (pl.col("m") * (1 - pl.col("m"))) - (1 - n / pl.col("N"))).sum(),
            leverage=((n - 1) * (1 - n / pl.col("N"))).sum(),
        )
        .collect(engine="streaming")
    )
    rho = max(moments["excess"][0] / moments["leverage"][0], 0)
    strength = max(min(1 / rho - 1, 1e6), 1) if rho > 0 else 1e6
    shown = counts.lazy().filter(n >= PAIRS.min_impressions)
    sums = shown.group_by("ad").agg(N=n.sum(), K=k.sum())
    odds = (
        shown.join(sums, on="ad")
        .with_columns(centre=(pl.col("K") + 1) / (pl.col("N") + 1 / ctr))
        .with_columns(a=pl.col("centre") * strength + k, b=(1 - pl.col("centre")) * strength + (n - k))
        .collect(engine="streaming")
    )
    a, b = odds["a"].to_numpy(), odds["b"].to_numpy()
    odds = odds.select("variant", "ad", "split", "impressions", "clicks").with_columns(
        mean=pl.Series(digamma(a) - digamma(b)),
        variance=pl.Series(polygamma(1, a) + polygamma(1, b)),
        a=pl.Series(a),
        b=pl.Series(b),
    )
    left_n, right_n, left_k, right_k = (
        pl.col(c) for c in ("impressions", "impressions_right", "clicks", "clicks_right")
    )
    pooled = (left_k + right_k) / (left_n + right_n)
    pairs = (
        odds.lazy()
        .join(odds.lazy().drop("split"), on="ad")
        .filter(pl.col("variant") < pl.col("variant_right"))
        .select(
            left_variant="variant",
            right_variant="variant_right",
            exposure=pl.min_horizontal(left_n, right_n),
            effect=pl.col("mean") - pl.col("mean_right"),
            z=(pl.col("mean") - pl.col("mean_right")) / (pl.col("variance") + pl.col("variance_right")).sqrt(),
            pooled_z=(left_k / left_n - right_k / right_n).abs()
            / (pooled * (1 - pooled) * (1 / left_n + 1 / right_n)).sqrt(),
            split="split",
            a="a",
            b="b",
            a_right="a_right",
            b_right="b_right",
        )
        .sort("left_variant", "right_variant")
        .collect(engine="streaming")
    )
    left, right = ((pairs[f"a{side}"].to_numpy(), pairs[f"b{side}"].to_numpy()) for side in ("", "_right"))
    pairs = pairs.with_columns(
        p_left_better=pl.Series(probability_of_better(pairs["z"].to_numpy(), left, right)),
        p_value=pl.Series(2 * ndtr(-pairs["pooled_z"].fill_nan(0).to_numpy())),
        weight=(1 + pl.col("exposure")).log(),
    ).drop("pooled_z", "a", "b", "a_right", "b_right")
    clock("pairs")
    for name, table in {"ads": ads, "variants": variants, "pairs": pairs}.items():
        table.write_parquet(output / f"{name}.parquet", compression="zstd")
    clock("snapshot")
    return clock.seconds


def with_pandas(given: Path, output: Path) -> dict[str, float]:
    import pandas as pd
    from scipy.special import digamma, ndtr, polygamma

    clock = Clock()
    raw = pd.read_parquet(given / "raw.parquet")
    shared = dict.fromkeys(("source", "advertiser_id", "context"), "min")
    ads = raw.groupby("ad_id", as_index=False).agg(shared).merge(pd.read_parquet(given / "splits.parquet"), on="ad_id")
    ads = ads.sort_values("ad", ignore_index=True)
    raw = raw.merge(ads[["ad_id", "ad", "split"]], on="ad_id")
    sums = {"variant_id": "min", "impressions": "sum", "clicks": "sum", "split": "first"}
    variants = raw.groupby(["ad", "text"], as_index=False).agg(sums)
    variants = variants.sort_values(["ad", "variant_id"], ignore_index=True)
    variants.insert(0, "variant", np.arange(len(variants)))
    clock("variants")
    totals = variants.groupby("ad").agg(N=("impressions", "sum"), K=("clicks", "sum"), texts=("text", "size"))
    ctr = (variants.clicks.sum() + 0.5) / (variants.impressions.sum() + 1)
    counts = variants[["variant", "ad", "split", "impressions", "clicks"]]
    judgeable = totals[(totals.texts > 1) & (totals.K > 0) & (totals.K < totals.N)]
    useful = counts.join(judgeable, on="ad", how="inner")
    m, share = useful.K / useful.N, useful.impressions / useful.N
    deviation = useful.clicks / useful.impressions - m
    excess = (useful.impressions * deviation**2 / (m * (1 - m)) - (1 - share)).sum()
    rho = max(excess / ((useful.impressions - 1) * (1 - share)).sum(), 0)
    strength = max(min(1 / rho - 1, 1e6), 1) if rho > 0 else 1e6
    shown = counts[counts.impressions >= PAIRS.min_impressions]
    sums_of_ad = shown.groupby("ad")[["impressions", "clicks"]].transform("sum")
    centre = (sums_of_ad.clicks + 1) / (sums_of_ad.impressions + 1 / ctr)
    a, b = centre * strength + shown.clicks, (1 - centre) * strength + (shown.impressions - shown.clicks)
    shown = shown.assign(mean=digamma(a) - digamma(b), variance=polygamma(1, a) + polygamma(1, b), a=a, b=b)
    pairs = shown.merge(shown.drop(columns="split"), on="ad", suffixes=("_left", "_right"))
    pairs = pairs[pairs.variant_left < pairs.variant_right]
    effect = pairs.mean_left - pairs.mean_right
    z = effect / np.sqrt(pairs.variance_left + pairs.variance_right)
    nl, kl, nr, kr = pairs.impressions_left, pairs.clicks_left, pairs.impressions_right, pairs.clicks_right
    pooled = (kl + kr) / (nl + nr)
    with np.errstate(invalid="ignore"):
        pooled_z = (np.abs(kl / nl - kr / nr) / np.sqrt(pooled * (1 - pooled) * (1 / nl + 1 / nr))).fillna(0)
    exposure = np.minimum(nl, nr)
    pairs = pd.DataFrame(
        {
            "left_variant": pairs.variant_left,
            "right_variant": pairs.variant_right,
            "exposure": exposure,
            "effect": effect,
            "z": z,
            "p_left_better": probability_of_better(
                z.to_numpy(),
                (pairs.a_left.to_numpy(), pairs.b_left.to_numpy()),
                (pairs.a_right.to_numpy(), pairs.b_right.to_numpy()),
            ),
            "p_value": 2 * ndtr(-pooled_z),
            "weight": np.log(1 + exposure),
            "split": pairs.split,
        }
    ).sort_values(["left_variant", "right_variant"])
    clock("pairs")
    for name, table in {"ads": ads, "variants": variants, "pairs": pairs}.items():
        table.to_parquet(output / f"{name}.parquet", compression="zstd", index=False)
    clock("snapshot")
    return clock.seconds
