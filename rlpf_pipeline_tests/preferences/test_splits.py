import numpy as np
import pyarrow as pa
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from rlpf_pipeline.preferences.splits import build_splits, first_of_cluster
from rlpf_pipeline.settings import PairSettings
from rlpf_pipeline.warehouse import Warehouse
from rlpf_pipeline_tests.preferences.raw_rows import SCHEMA, raw_row


@pytest.fixture
def assigned(tmp_path):
    """First ad of the cluster, and split, by ad, from (ad, tie)."""

    def assign(ties, seed=1, **shares):
        rows = [
            raw_row(ad, "v", tie, 100, 1)
            if tie.startswith("text:")
            else {**raw_row(ad, "w", f"of {ad}", 100, 1), "advertiser_id": tie}
            for ad, tie in ties
        ]
        with Warehouse(tmp_path / "w.duckdb") as warehouse:
            warehouse.replace_table("raw_multitext_ads", pa.Table.from_pylist(rows, schema=SCHEMA))
            build_splits(warehouse, PairSettings(**shares), seed)
            rows = warehouse.query("FROM splits").to_pylist()
        names = {row["ad"]: row["ad_id"] for row in rows}
        return {row["ad_id"]: (names[row["cluster"]], row["split"]) for row in rows}

    return assign


def test_ties_are_transitive(assigned):
    # a-b share an advertiser, b-c a text, so a and c lie together; d stands alone.
    clusters = assigned(
        [("c", "text:x"), ("b", "text:x"), ("b", "advertiser:1"), ("a", "advertiser:1"), ("d", "text:y")]
    )
    assert {ad: cluster for ad, (cluster, _) in clusters.items()} == {"a": "a", "b": "a", "c": "a", "d": "d"}
    assert clusters["a"] == clusters["b"] == clusters["c"]


def test_ads_of_one_and_the_same_advertiser_are_tied_by_their_texts_alone(assigned):
    ties = [("a", "of:1"), ("b", "of:1"), ("c", "of:1")]
    assert {ad: cluster for ad, (cluster, _) in assigned(ties).items()} == {"a": "a", "b": "b", "c": "c"}
    unknown, other = ("d", "text:x"), ("d", "of:2")
    for more in (unknown, other):
        clusters = {ad: cluster for ad, (cluster, _) in assigned([*ties, more]).items()}
        assert clusters == {"a": "a", "b": "a", "c": "a", "d": "d"}


def test_the_order_of_rows_does_not_matter_and_other_clusters_neither(assigned):
    ties = [(f"ad{i:03}", f"text:{i // 2}") for i in range(200)]
    assert assigned(ties) == assigned(ties[::-1])
    assert {ad: got for ad, got in assigned(ties).items() if ad < "ad100"} == assigned(ties[:100])


def test_shares_are_met_and_the_seed_redraws(assigned):
    ties = [(f"ad{i}", f"text:{i}") for i in range(4000)]
    shares = {"validation": 0.1, "test": 0.15, "evaluation": 0.3}
    first, second = assigned(ties, seed=1, **shares), assigned(ties, seed=2, **shares)
    for split, share in {**shares, "train": 0.45}.items():
        drawn = sum(got == split for _, got in first.values()) / 4000
        assert drawn == pytest.approx(share, abs=4 * (share * (1 - share) / 4000) ** 0.5)
    assert first != second


def test_long_chains_are_one_cluster_and_strangers_none():
    chain = np.random.default_rng(3).permutation(1000)
    batches = [(chain[i : i + 100], chain[i + 1 : i + 101]) for i in range(0, 999, 100)]
    first = first_of_cluster(lambda: [(one[: len(two)], two) for one, two in batches], 1002)
    assert first.tolist() == [0] * 1000 + [1000, 1001]


@pytest.mark.parametrize("edges", [10, 150, 400])
def test_clusters_are_the_connected_components_of_scipy(edges):
    one, two = np.random.default_rng(edges).integers(0, 300, (2, edges))
    components = connected_components(coo_array((np.ones(edges), (one, two)), (300, 300)), directed=False)[1]
    smallest = {component: ad for ad, component in reversed(list(enumerate(components)))}
    half = edges // 2
    first = first_of_cluster(lambda: [(one[:half], two[:half]), (one[half:], two[half:])], 300)
    assert first.tolist() == [smallest[component] for component in components]
