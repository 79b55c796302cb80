"""Splits without leaks: ads that share an advertiser or a near-duplicate text stay together.

Ads are nodes; each advertiser and each text (lower case, without punctuation) ties its ads and those of texts much like
it together (`sql/staging/stg_near_texts.sql`, `stg_ad_ties.sql`). A connected component is a cluster;
`sql/marts/splits.sql` draws its split.
Names stay in DuckDB: only numbers of ads pass through memory.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.settings import PairSettings
from rlpf_pipeline.warehouse import Warehouse


def build_splits(warehouse: Warehouse, pairs: PairSettings, seed: int) -> None:
    """Build the table splits (ad, ad_id, cluster, split) from raw_multitext_ads.

    The shares of `pairs` are expected shares of clusters. Raises UserError where they leave nothing for training.
    """
    shares = pairs.model_dump(include={"validation", "test", "evaluation"})
    if min(shares.values()) < 0 or sum(shares.values()) >= 1:
        named = ", ".join(f"{name}={share}" for name, share in shares.items())
        raise UserError(
            f"The shares {named} leave nothing for training. Choose shares of at least 0 whose sum is below 1."
        )
    ads = tie_ads(warehouse, pairs.near_duplicate)
    edges = warehouse.query("FROM stg_tied_ads")
    first = first_of_cluster(edges["ad"].to_numpy(), edges["first_ad"].to_numpy(), ads)
    warehouse.replace_table("ad_clusters", pa.table({"ad": np.arange(ads), "first_ad": first}))
    warehouse.run_sql("marts/splits", {"seed": seed, **shares})
    for table in ("ad_clusters", "stg_tied_ads", "stg_ads"):
        warehouse.drop(table)


def tie_ads(warehouse: Warehouse, similarity: float) -> int:
    """Build stg_ads (numbered) and stg_tied_ads, whose components are the clusters; returns the number of ads.

    similarity: least Jaccard similarity of near-duplicate texts, above a half and below 1.
    """
    ads = warehouse.run_sql("staging/stg_ads")
    warehouse.run_sql("staging/stg_ad_texts")
    warehouse.run_sql("staging/stg_near_texts", {"similarity": similarity})
    warehouse.run_sql("staging/stg_ad_ties")
    warehouse.run_sql("staging/stg_tied_ads")
    for table in ("stg_ad_texts", "stg_near_texts", "stg_ad_ties"):
        warehouse.drop(table)
    return ads


def first_of_cluster(ad: NDArray[np.int64], other: NDArray[np.int64], ads: int) -> NDArray[np.int64]:
    """The smallest ad of each ad's connected component, (ads,), in the graph with edges (ad[i], other[i])."""
    edges = coo_array((np.ones(len(ad), dtype=np.int8), (ad.astype(np.int32), other.astype(np.int32))), (ads, ads))
    components, component = connected_components(edges, directed=False)
    first = np.empty(components, dtype=np.int64)
    first[component[::-1]] = np.arange(ads)[::-1]
    return np.asarray(first[component], dtype=np.int64)
