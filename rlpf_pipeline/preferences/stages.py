"""The stages from raw multitext ads to the preference snapshot: thin Python over `sql/`.

Raw Parquet → splits → ads, variants → pairs → ads.parquet, variants.parquet, pairs.parquet. Names and texts are stored
once: a variant holds the number of its ad, a pair those of its two variants. The views variant_performance and
preference_pairs put names and counts beside them, for whoever asks the warehouse. Each stage returns counts, which
become the metrics of its manifest.
"""

from __future__ import annotations

from pathlib import Path

from rlpf_pipeline.contracts import SPLITS
from rlpf_pipeline.errors import UserError
from rlpf_pipeline.preferences.splits import build_splits
from rlpf_pipeline.settings import PairSettings
from rlpf_pipeline.warehouse import Warehouse

Metrics = dict[str, float | int | str | bool | None]

SPLIT_SETTINGS = {"near_duplicate", "validation", "test", "evaluation"}


def build_variant_performance(warehouse: Warehouse, raw: Path, pairs: PairSettings, seed: int) -> Metrics:
    """Build splits, ads, variants and delivery from the Parquet file `raw`, which raw_multitext_ads shows.

    Returns raw_rows, ads, variants, advertisers, impressions, clicks, ctr, clusters, largest_cluster_ads, ads_<split>,
    and of the delivery its mean evenness, and the mean gain of early winners with its z (marts/delivery.sql).
    """
    raw_rows = warehouse.view_parquet("raw_multitext_ads", raw)
    build_splits(warehouse, pairs, seed)
    warehouse.run_sql("marts/ads")
    warehouse.run_sql("marts/variants")
    warehouse.run_view("marts/variant_performance")
    warehouse.run_sql("marts/delivery")
    totals = warehouse.query("""
        SELECT
            (SELECT count(*) FROM ads) AS ads,
            count(*) AS variants,
            (SELECT count(DISTINCT advertiser_id) FROM ads) AS advertisers,
            sum(impressions)::BIGINT AS impressions,
            sum(clicks)::BIGINT AS clicks,
            sum(clicks) / sum(impressions) AS ctr
        FROM variants
    """).to_pylist()[0]
    clusters = warehouse.query("""
        SELECT count(*) AS clusters, max(ads) AS largest_cluster_ads
        FROM (SELECT count(*) AS ads FROM splits GROUP BY cluster_id)
    """).to_pylist()[0]
    # z: the mean gain of early winners over its standard error; beyond 3, delivery followed the clicks.
    delivery = warehouse.query("""
        SELECT
            avg(evenness::DECIMAL(18, 12))::DOUBLE AS delivery_evenness,
            avg(early_winner_gain::DECIMAL(18, 12))::DOUBLE AS early_winner_gain,
            avg(early_winner_gain) / nullif(stddev_samp(early_winner_gain) / sqrt(count(early_winner_gain)), 0) AS z
        FROM delivery
    """).to_pylist()[0]
    z = delivery.pop("z")
    delivery["early_winner_z"] = None if z is None else round(z, 6)
    return {"raw_rows": raw_rows, **totals, **clusters, **count_by_split(warehouse, "splits", "ads"), **delivery}


def build_preference_pairs(warehouse: Warehouse, pairs: PairSettings) -> Metrics:
    """Build ctr_priors and pairs from ads and variants.

    Returns pairs, pairs_<split>, tied_pairs (equal observed CTR), significant_share (p-value below 0.05) with the share
    of the weight and the noise ceiling that a filter for significance would keep, prior_strength_<source>, and
    noise_ceiling overall, by split and by impressions. Raises UserError where no pair survives.
    """
    clicks, impressions = warehouse.connection.execute(
        "SELECT sum(clicks)::BIGINT, sum(impressions)::BIGINT FROM variants"
    ).fetchall()[0]
    if not 0 < clicks < impressions:
        raise UserError(
            f"There are {clicks} clicks on {impressions} impressions in all: no text can be told from another. Check "
            "the columns clicks and impressions of the source."
        )
    warehouse.run_sql("marts/ctr_priors", {"prior_strength": pairs.prior_strength})
    filters = pairs.model_dump(exclude=SPLIT_SETTINGS | {"prior_strength"})
    rows = warehouse.run_sql("marts/pairs", filters)
    if rows == 0:
        raise UserError(no_pair(warehouse, pairs))
    warehouse.run_view("marts/preference_pairs")
    shares = warehouse.query("""
        SELECT
            count(*) FILTER (p_value = 1) AS tied_pairs,
            count(*) FILTER (p_value < 0.05) / count(*) AS significant_share,
            sum(weight::DECIMAL(18, 9)) FILTER (p_value < 0.05)
                / sum(weight::DECIMAL(18, 9)) AS significant_weight_share
        FROM pairs
    """).to_pylist()[0]
    priors = warehouse.query("SELECT source, prior_strength FROM ctr_priors ORDER BY source").to_pylist()
    return {
        "pairs": rows,
        **{f"prior_strength_{row['source']}": row["prior_strength"] for row in priors},
        **shares,
        **count_by_split(warehouse, "pairs", "pairs"),
        **noise_ceilings(warehouse),
    }


def export_snapshot(warehouse: Warehouse, folder: Path) -> Metrics:
    """Write ads.parquet, variants.parquet and pairs.parquet (contracts.ADS, VARIANTS, PAIRS) into `folder`.

    Equal tables give equal bytes. Returns the row counts ads, variants and pairs.
    """
    return {
        "ads": warehouse.export("ads", folder / "ads.parquet", number="ad"),
        "variants": warehouse.export("variants", folder / "variants.parquet", number="variant"),
        "pairs": warehouse.export("pairs", folder / "pairs.parquet"),
    }


def count_by_split(warehouse: Warehouse, table: str, what: str) -> Metrics:
    counted = warehouse.query(
        "SELECT split, count(*) AS rows FROM query_table($table) GROUP BY split", {"table": table}
    ).to_pylist()
    rows = {row["split"]: row["rows"] for row in counted}
    return {f"{what}_{split}": rows.get(split, 0) for split in SPLITS}


def noise_ceilings(warehouse: Warehouse) -> Metrics:
    """Noise ceilings (`noise_ceiling.py`), each pair counted once; pairs of equal observed CTR are left out.

    noise_ceiling over all, _<split>, _significant (p-value below 0.05), and _from_<n>_impressions: pairs whose smaller
    side has n to 10 n impressions. None where there is no pair.
    """
    rows = warehouse.query("""
        SELECT
            CASE grouping(split, decade, significant)
                WHEN 7 THEN 'noise_ceiling'
                WHEN 3 THEN 'noise_ceiling_' || split
                WHEN 5 THEN 'noise_ceiling_from_' || (10 ** decade)::BIGINT || '_impressions'
                ELSE 'noise_ceiling_significant'
            END AS name,
            avg(greatest(p_left_better, 1 - p_left_better)::DECIMAL(18, 15))::DOUBLE AS ceiling
        FROM (
            SELECT
                split,
                floor(log10(exposure))::INTEGER AS decade,
                p_value < 0.05 AS significant,
                p_left_better
            FROM pairs
            WHERE p_value < 1
        )
        GROUP BY GROUPING SETS ((), (split), (decade), (significant))
        HAVING grouping(significant) = 1 OR significant
        ORDER BY name
    """).to_pylist()
    expected = ["noise_ceiling", *(f"noise_ceiling_{split}" for split in SPLITS), "noise_ceiling_significant"]
    return {**dict.fromkeys(expected), **{row["name"]: row["ceiling"] for row in rows}}


def no_pair(warehouse: Warehouse, pairs: PairSettings) -> str:
    several, most = warehouse.connection.execute("""
        SELECT count(*), max(second)
        FROM (
            SELECT list_sort(list(impressions), 'DESC')[2] AS second
            FROM variants GROUP BY ad HAVING count(*) > 1
        )
    """).fetchall()[0]
    if several == 0:
        return (
            "No preference pair: no ad has two different texts. Check that rows of the same ad carry the same ad_id, "
            "and that the source holds multitext ads."
        )
    if most >= pairs.min_impressions:
        return (
            f"No preference pair: pairs.min_effect={pairs.min_effect:g}, pairs.max_p_value={pairs.max_p_value} leave "
            f"nothing of {several} ads with several texts. Loosen them: soft labels tell sure pairs from unsure ones."
        )
    return (
        f"No preference pair: none of the {several} ads with several texts has two with at least "
        f"{pairs.min_impressions} impressions (the best has two with {most}). Lower "
        "pairs.min_impressions, or bring data of a longer period."
    )
