"""Splits without leaks: ads that share an advertiser (of several) or a near-duplicate text stay together.

Ads are nodes; each advertiser and each text (lower case, without punctuation) ties its ads and those of texts much like
it together (`sql/staging/stg_near_texts.sql`, `stg_ad_ties.sql`). A connected component is a cluster;
`sql/marts/splits.sql` draws its split.
Names stay in DuckDB, which works on a range of ads or on the things whose hash falls into one round at a time
(`ranges.py`); only numbers of ads pass through memory, the ties between them a batch at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rlpf_pipeline.preferences.ranges import ranges_of_ads, rounds_of_hashes
from rlpf_pipeline.settings import PairSettings
from rlpf_pipeline.warehouse import Warehouse

Numbers = NDArray[np.int32]
Edges = tuple[Numbers, Numbers]


def build_splits(warehouse: Warehouse, pairs: PairSettings, seed: int) -> None:
    """Build the table splits (ad, ad_id, cluster, split) from raw_multitext_ads.

    The shares of `pairs` are expected shares of clusters.
    """
    shares = pairs.model_dump(include={"validation", "test", "evaluation"})
    ads = tie_ads(warehouse, pairs.near_duplicate)
    first = first_of_cluster(lambda: edges_of(warehouse), ads)
    warehouse.replace_table("ad_clusters", pa.table({"ad": np.arange(ads, dtype=np.int32), "first_ad": first}))
    warehouse.run_sql("marts/splits", {"seed": seed, **shares})
    warehouse.discard("ad_clusters", "stg_tied_ads", "stg_ads")


def tie_ads(warehouse: Warehouse, similarity: float) -> int:
    """Build stg_ads (numbered) and stg_tied_ads, whose components are the clusters; returns the number of ads.

    similarity: least Jaccard similarity of near-duplicate texts, above a half and below 1.
    """
    ads = warehouse.run_sql("staging/stg_ads")
    ranges = ranges_of_ads(warehouse, "(SELECT rowid AS ad, ad_id FROM stg_ads)")
    rounds = rounds_of_hashes(warehouse)
    warehouse.run_parts("staging/stg_ad_texts", ranges)
    warehouse.run_sql("staging/stg_shingle_counts")
    warehouse.run_parts("staging/stg_first_pairs", ranges, {"similarity": similarity, "rounds": len(rounds)})
    warehouse.run_parts("staging/stg_near_candidates", rounds, {"similarity": similarity})
    warehouse.run_sql("staging/stg_near_texts", {"similarity": similarity})
    warehouse.run_parts(
        "staging/stg_ad_ties",
        ranges,
        {"rounds": len(rounds), "several_advertisers": has_several_advertisers(warehouse)},
    )
    warehouse.run_parts("staging/stg_tied_ads", rounds)
    warehouse.discard("stg_ad_texts", "stg_shingle_counts", "stg_first_pairs")
    warehouse.discard("stg_near_candidates", "stg_near_texts", "stg_ad_ties")
    return ads


def has_several_advertisers(warehouse: Warehouse) -> bool:
    """Whether raw_multitext_ads is not all of one and the same advertiser."""
    return bool(
        warehouse.connection.execute("""
            SELECT min(advertiser_id) < max(advertiser_id) OR bool_or(advertiser_id IS NULL) FROM raw_multitext_ads
        """).fetchall()[0][0]
    )


def edges_of(warehouse: Warehouse) -> Iterator[Edges]:
    for batch in warehouse.batches("FROM stg_tied_ads"):
        yield batch["ad"].to_numpy(), batch["first_ad"].to_numpy()


def first_of_cluster(edges: Callable[[], Iterable[Edges]], ads: int) -> Numbers:
    """The smallest ad of each ad's connected component, (ads,), in the graph whose edges each call of `edges` yields.

    Every ad points to an ad of its component that is no larger: along an edge the larger of the two pointed to comes to
    point to the smaller one, then all pointers are followed to their end, over and over until no edge joins two. Edges
    come in batches (ads, ads): memory holds a number for each ad, and never the graph.
    """
    first = np.arange(ads, dtype=np.int32)
    joining = True
    while joining:
        joining = False
        for ad, other in edges():
            one, two = first[ad], first[other]
            np.minimum.at(first, np.maximum(one, two), np.minimum(one, two))
            joining = joining or not np.array_equal(one, two)
        followed = first[first]
        while not np.array_equal(first, followed):
            first, followed = followed, followed[followed]
    return first
