"""The stages from raw multitext ads to the preference snapshot: thin Python over `sql/`.

Raw Parquet → splits → ads.parquet, variants.parquet → pairs.parquet → the snapshot, which links them. Names and texts
are stored once: a variant holds the number of its ad, a pair those of its two variants. The views variant_performance
and preference_pairs put names and counts beside them, for whoever asks the warehouse. Each stage returns counts, which
become the metrics of its manifest.
"""

from __future__ import annotations

from pathlib import Path

from rlpf_pipeline.artifacts import Metrics
from rlpf_pipeline.contracts import SPLITS
from rlpf_pipeline.errors import UserError
from rlpf_pipeline.preferences.ranges import ranges_of_ads
from rlpf_pipeline.preferences.splits import build_splits
from rlpf_pipeline.settings import PairSettings
from rlpf_pipeline.warehouse import Warehouse
from rlpf_pipeline.whole_files import link_or_copy

SNAPSHOT = ("ads", "variants", "pairs", "ctr_priors")
SPLIT_SETTINGS = {"near_duplicate", "validation", "test", "evaluation"}


def build_variant_performance(warehouse: Warehouse, raw: Path, pairs: PairSettings, seed: int) -> Metrics:
    """Build splits, ads, variants and delivery from the Parquet file `raw`, which raw_multitext_ads shows.

    Returns raw_rows, ads, variants, advertisers, impressions, clicks, ctr, clusters, largest_cluster_ads, ads_<split>,
    and of the delivery its mean evenness, and the mean gain of early winners with its z (marts/delivery.sql).
    """
    raw_rows = warehouse.view_parquet("raw_multitext_ads", raw)
    build_splits(warehouse, pairs, seed)
    build_ads_and_variants(warehouse)
    warehouse.run_view("marts/variant_performance")
    warehouse.run_parts("marts/delivery", ranges_of_ads(warehouse, "splits"))
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
        FROM (SELECT count(*) AS ads FROM splits GROUP BY cluster)
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
    return {
        "raw_rows": raw_rows,
        **totals,
        **clusters,
        **count_by_split(warehouse, "count(*)", "splits", "ads"),
        **delivery,
    }


def build_ads_and_variants(warehouse: Warehouse) -> None:
    """Build ads and variants from raw_multitext_ads and splits; fast where the raw file is in order of ad_id."""
    ranges = ranges_of_ads(warehouse, "splits")
    warehouse.run_parts("marts/ads", ranges)
    first_variant = 0
    with warehouse.parts("marts/variants") as write:
        for own in ranges:
            bounds = {name: own[name] for name in ("first_id", "last_id")}
            first_variant += write(bounds | {"first_variant": first_variant})


def build_preference_pairs(warehouse: Warehouse, pairs: PairSettings) -> Metrics:
    """Build ctr_priors and pairs from ads and variants.

    Returns pairs, prior_strength_<source> and `label_metrics`. Raises UserError where no pair survives.
    """
    clicks, impressions = warehouse.connection.execute(
        "SELECT sum(clicks)::BIGINT, sum(impressions)::BIGINT FROM variants"
    ).fetchall()[0]
    if not 0 < clicks < impressions:
        raise UserError(
            f"There are {clicks} clicks on {impressions} impressions in all: no text can be told from another. Check "
            "the columns clicks and impressions of the source."
        )
    warehouse.run_parts("marts/ctr_priors", [{"prior_strength": pairs.prior_strength}])
    filters = pairs.model_dump(exclude=SPLIT_SETTINGS | {"prior_strength"})
    rows = warehouse.run_parts("marts/pairs", ranges_of_ads(warehouse, "splits"), filters)
    if rows == 0:
        raise UserError(no_pair(warehouse, pairs))
    warehouse.run_view("marts/preference_pairs")
    priors = warehouse.query("SELECT source, prior_strength FROM ctr_priors ORDER BY source").to_pylist()
    return {
        "pairs": rows,
        **{f"prior_strength_{row['source']}": row["prior_strength"] for row in priors},
        **label_metrics(warehouse),
    }


def export_snapshot(warehouse: Warehouse, folder: Path) -> Metrics:
    """Put ads.parquet, variants.parquet, pairs.parquet and ctr_priors.parquet into `folder`; columns in contracts.py.

    They are folders of files, links to the warehouse's own, which are replaced and never changed. Returns row counts.
    Raises UserError where one is damaged.
    """
    for table in SNAPSHOT:
        (folder / f"{table}.parquet").mkdir()
        for part in warehouse.parts_of(table):
            link_or_copy(part, folder / f"{table}.parquet" / part.name)
    return {table: warehouse.count(table) for table in SNAPSHOT}


def label_metrics(warehouse: Warehouse) -> Metrics:
    """What the labels of `pairs` are worth (marts/label_counts.sql).

    tied_pairs (equal observed CTR), pairs_<split>, significant_share (p-value below 0.05) and the share of the weight
    that a filter for significance would keep. Noise ceilings (`noise_ceiling.py`), each pair counted once and ties left
    out: noise_ceiling over all, _<split>, _significant, and _from_<n>_impressions: pairs whose smaller side has n to
    10 n impressions. None where there is no pair.
    """
    warehouse.run_sql("marts/label_counts")
    shares = warehouse.query("""
        SELECT
            coalesce(sum(pairs) FILTER (exposure_from IS NULL), 0)::BIGINT AS tied_pairs,
            coalesce(sum(pairs) FILTER (significant), 0)::BIGINT / sum(pairs) AS significant_share,
            coalesce(sum(weight) FILTER (significant), 0) / sum(weight) AS significant_weight_share
        FROM label_counts
    """).to_pylist()[0]
    rows = warehouse.query("""
        SELECT
            CASE grouping(split, exposure_from, significant)
                WHEN 7 THEN 'noise_ceiling'
                WHEN 3 THEN 'noise_ceiling_' || split
                WHEN 5 THEN 'noise_ceiling_from_' || exposure_from || '_impressions'
                ELSE 'noise_ceiling_significant'
            END AS name,
            sum(sure) / sum(pairs) AS ceiling
        FROM label_counts
        WHERE exposure_from IS NOT NULL
        GROUP BY GROUPING SETS ((), (split), (exposure_from), (significant))
        HAVING grouping(significant) = 1 OR significant
        ORDER BY name
    """).to_pylist()
    expected = ["noise_ceiling", *(f"noise_ceiling_{split}" for split in SPLITS), "noise_ceiling_significant"]
    return {
        **shares,
        **count_by_split(warehouse, "sum(pairs)::BIGINT", "label_counts", "pairs"),
        **dict.fromkeys(expected),
        **{row["name"]: row["ceiling"] for row in rows},
    }


def count_by_split(warehouse: Warehouse, count: str, table: str, what: str) -> Metrics:
    counted = warehouse.query(f"SELECT split, {count} AS rows FROM {table} GROUP BY split").to_pylist()  # noqa: S608
    rows = {row["split"]: row["rows"] for row in counted}
    return {f"{what}_{split}": rows.get(split, 0) for split in SPLITS}


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
            f"No preference pair: pairs.min_effect={pairs.min_effect:g}, pairs.max_p_value={pairs.max_p_value}, "
            f"pairs.min_evenness={pairs.min_evenness:g} leave nothing of {several} ads with several texts. Loosen "
            "them: soft labels tell sure pairs from unsure ones."
        )
    return (
        f"No preference pair: none of the {several} ads with several texts has two with at least "
        f"{pairs.min_impressions} impressions (the best has two with {most}). Lower "
        "pairs.min_impressions, or bring data of a longer period."
    )
