"""The stages from raw multitext ads to the preference snapshot: thin Python over `sql/`.

Raw Parquet → raw_multitext_ads → splits → variant_performance → preference_pairs → variants.parquet, pairs.parquet.
Each returns counts, which become the metrics of its manifest.
"""

from __future__ import annotations

from pathlib import Path

from rlpf_pipeline.contracts import SPLITS
from rlpf_pipeline.errors import UserError
from rlpf_pipeline.preferences.noise_ceiling import noise_ceiling
from rlpf_pipeline.preferences.splits import assign_splits
from rlpf_pipeline.settings import PairSettings
from rlpf_pipeline.warehouse import Warehouse, read_sql

Metrics = dict[str, float | int | str | bool | None]

VARIANTS_FILE = "variants.parquet"
PAIRS_FILE = "pairs.parquet"


def build_variant_performance(warehouse: Warehouse, raw: Path, pairs: PairSettings, seed: int) -> Metrics:
    """Build raw_multitext_ads from the Parquet file `raw`, then splits and variant_performance.

    Returns raw_rows, ads, variants, advertisers, impressions, clicks, ctr, clusters, largest_cluster_ads and
    ads_<split>.
    """
    raw_rows = warehouse.run_sql("staging/raw_multitext_ads", {"path": str(raw)})
    ties = warehouse.query(read_sql("staging/stg_ad_ties"))
    warehouse.replace_table("splits", assign_splits(ties, pairs, seed))
    warehouse.run_sql("marts/variant_performance")
    totals = warehouse.query("""
        SELECT
            count(DISTINCT ad_id) AS ads,
            count(*) AS variants,
            count(DISTINCT advertiser_id) AS advertisers,
            sum(impressions)::BIGINT AS impressions,
            sum(clicks)::BIGINT AS clicks,
            sum(clicks) / sum(impressions) AS ctr
        FROM variant_performance
    """).to_pylist()[0]
    clusters = warehouse.query("""
        SELECT count(*) AS clusters, max(ads) AS largest_cluster_ads
        FROM (SELECT count(*) AS ads FROM splits GROUP BY cluster_id)
    """).to_pylist()[0]
    return {"raw_rows": raw_rows, **totals, **clusters, **count_by_split(warehouse, "splits", "ads")}


def build_preference_pairs(warehouse: Warehouse, pairs: PairSettings) -> Metrics:
    """Build preference_pairs from variant_performance; the Beta prior's mean is the CTR over all variants.

    Returns pairs, pairs_<split>, significant_share (p-value below 0.05), tied_pairs (equal observed CTR), prior_mean,
    noise_ceiling and noise_ceiling_<split> (ties left out; null where a split has no pair). Raises UserError where no
    pair survives.
    """
    clicks, impressions = warehouse.connection.execute(
        "SELECT sum(clicks)::BIGINT, sum(impressions)::BIGINT FROM variant_performance"
    ).fetchall()[0]
    if not 0 < clicks < impressions:
        raise UserError(
            f"There are {clicks} clicks on {impressions} impressions in all: no text can be told from another. Check "
            "the columns clicks and impressions of the source."
        )
    prior_mean = clicks / impressions
    rows = warehouse.run_sql(
        "marts/preference_pairs",
        {"min_impressions": pairs.min_impressions, "prior_mean": prior_mean, "prior_strength": pairs.prior_strength},
    )
    if rows == 0:
        raise UserError(no_pair(warehouse, pairs))
    shares = warehouse.query("""
        SELECT
            count(*) FILTER (p_value < 0.05) / count(*) AS significant_share,
            count(*) FILTER (left_clicks * right_impressions = right_clicks * left_impressions) AS tied_pairs
        FROM preference_pairs
    """).to_pylist()[0]
    return {
        "pairs": rows,
        "prior_mean": prior_mean,
        **shares,
        **count_by_split(warehouse, "preference_pairs", "pairs"),
        **noise_ceilings(warehouse),
    }


def export_snapshot(warehouse: Warehouse, folder: Path) -> Metrics:
    """Write variants.parquet (by ad_id, variant_id) and pairs.parquet (by ad_id, left_id, right_id) into `folder`.

    Equal tables give equal bytes. Returns the row counts variants and pairs.
    """
    return {
        "variants": warehouse.export("variant_performance", folder / VARIANTS_FILE, ("ad_id", "variant_id")),
        "pairs": warehouse.export("preference_pairs", folder / PAIRS_FILE, ("ad_id", "left_id", "right_id")),
    }


def count_by_split(warehouse: Warehouse, table: str, what: str) -> Metrics:
    counted = warehouse.query(
        "SELECT split, count(*) AS rows FROM query_table($table) GROUP BY split", {"table": table}
    ).to_pylist()
    rows = {row["split"]: row["rows"] for row in counted}
    return {f"{what}_{split}": rows.get(split, 0) for split in SPLITS}


def noise_ceilings(warehouse: Warehouse) -> Metrics:
    """Noise ceilings over all pairs and by split, each pair counted once; pairs of equal observed CTR are left out."""
    decided = warehouse.query("""
        SELECT split, p_left_better
        FROM preference_pairs
        WHERE left_clicks * right_impressions <> right_clicks * left_impressions
        ORDER BY ad_id, left_id, right_id
    """)
    p = decided["p_left_better"].to_numpy()
    split = decided["split"].to_numpy(zero_copy_only=False)
    ceilings: Metrics = {"noise_ceiling": noise_ceiling(p) if len(p) else None}
    for name in SPLITS:
        chosen = p[split == name]
        ceilings[f"noise_ceiling_{name}"] = noise_ceiling(chosen) if len(chosen) else None
    return ceilings


def no_pair(warehouse: Warehouse, pairs: PairSettings) -> str:
    several, most = warehouse.connection.execute("""
        SELECT count(*), max(second)
        FROM (
            SELECT list_sort(list(impressions), 'DESC')[2] AS second
            FROM variant_performance GROUP BY ad_id HAVING count(*) > 1
        )
    """).fetchall()[0]
    if several == 0:
        return (
            "No preference pair: no ad has two different texts. Check that rows of the same ad carry the same ad_id, "
            "and that the source holds multitext ads."
        )
    return (
        f"No preference pair: none of the {several} ads with several texts has two with at least "
        f"{pairs.min_impressions} impressions (the best has two with {most}). Lower "
        "pairs.min_impressions, or bring data of a longer period."
    )
