"""Splits without leaks: ads that share an advertiser or a near-duplicate text stay together.

Ads are nodes; each advertiser and each text (lower case, without punctuation) ties its ads and those of texts much like
it together (`sql/staging/stg_ad_ties.sql`). A connected
component is a cluster, named by its smallest ad_id. A hash of that name and the seed draws the cluster's split, so an
ad keeps its split when other clusters come or go, and the order of the rows does not matter.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.settings import PairSettings


def assign_splits(ties: Any, pairs: PairSettings, seed: int) -> Any:
    """One row per ad: ad_id, cluster_id, split, sorted by ad_id.

    ties: pyarrow Table with ad_id and tie, one row per ad and thing it may share with others (each ad at least once).
    The shares of `pairs` are expected shares of clusters. Raises UserError where they leave nothing for training.
    """
    if min(pairs.validation, pairs.test, pairs.evaluation) < 0 or pairs.validation + pairs.test + pairs.evaluation >= 1:
        raise UserError(
            f"The shares validation={pairs.validation}, test={pairs.test}, evaluation={pairs.evaluation} leave nothing "
            "for training. Choose shares of at least 0 whose sum is below 1."
        )
    ad_ids, ad = np.unique(ties["ad_id"].to_numpy(zero_copy_only=False).astype(str), return_inverse=True)
    tie_names, tie = np.unique(ties["tie"].to_numpy(zero_copy_only=False).astype(str), return_inverse=True)
    component = clusters(ad, tie, len(ad_ids), len(tie_names))
    # ad_ids are sorted, so the first ad of a component is its smallest.
    _, first, cluster = np.unique(component, return_index=True, return_inverse=True)
    names = ad_ids[first]
    split = np.array([split_of(str(name), pairs, seed) for name in names], dtype=str)
    return pa.table(
        {"ad_id": pa.array(ad_ids), "cluster_id": pa.array(names[cluster]), "split": pa.array(split[cluster])}
    )


def clusters(ad: NDArray[np.intp], tie: NDArray[np.intp], ads: int, ties: int) -> NDArray[np.int32]:
    """Component of each ad, (ads,), in the bipartite graph whose edges (ad[i], tie[i]) join ads and what they share."""
    edges = coo_array((np.ones(len(ad), dtype=np.int8), (ad, tie + ads)), shape=(ads + ties, ads + ties))
    _, component = connected_components(edges, directed=False)
    return np.asarray(component[:ads], dtype=np.int32)


def split_of(cluster_id: str, pairs: PairSettings, seed: int) -> str:
    """The cluster's split, from a hash that is uniform on [0, 1)."""
    digest = hashlib.sha256(f"{seed}:{cluster_id}".encode()).digest()
    draw = int.from_bytes(digest[:8]) / 2**64
    for split, share in (("validation", pairs.validation), ("test", pairs.test), ("evaluation", pairs.evaluation)):
        if draw < share:
            return split
        draw -= share
    return "train"
