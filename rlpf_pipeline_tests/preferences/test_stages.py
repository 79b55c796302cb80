"""The stages from raw rows to the snapshot: merging, conservation, order, metrics, advice."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlpf_pipeline.contracts import (
    ADS,
    CTR_PRIORS,
    DELIVERY,
    LABEL_COUNTS,
    PAIRS,
    PREFERENCE_PAIRS,
    VARIANT_PERFORMANCE,
    VARIANTS,
)
from rlpf_pipeline.errors import UserError
from rlpf_pipeline.preferences.stages import build_preference_pairs, build_variant_performance, export_snapshot
from rlpf_pipeline.settings import PairSettings
from rlpf_pipeline.warehouse import Warehouse
from rlpf_pipeline_tests.preferences.raw_rows import SCHEMA, raw_row, raw_table

SHOWN = (VARIANT_PERFORMANCE, PREFERENCE_PAIRS, ADS, VARIANTS, PAIRS, LABEL_COUNTS, CTR_PRIORS)


def build(tmp_path, table, name="w", **pairs):
    pq.write_table(table, tmp_path / f"{name}.parquet")
    (tmp_path / name).mkdir()
    with Warehouse(tmp_path / f"{name}.duckdb") as warehouse:
        performance = build_variant_performance(warehouse, tmp_path / f"{name}.parquet", PairSettings(**pairs), seed=3)
        preferences = build_preference_pairs(warehouse, PairSettings(**pairs))
        snapshot = export_snapshot(warehouse, tmp_path / name)
        types = [columns_of(warehouse, contract.name) for contract in SHOWN]
    return performance, preferences, snapshot, types


def columns_of(warehouse, table):
    return [(name, kind) for name, kind, *_ in warehouse.connection.execute(f"DESCRIBE {table}").fetchall()]


def test_tables_are_those_of_the_contract(tmp_path):
    *_, types = build(tmp_path, raw_table(ads=10))
    for contract, columns in zip(SHOWN, types, strict=True):
        assert columns == [(column.name, column.type) for column in contract.columns]
    for contract in (ADS, VARIANTS, PAIRS, CTR_PRIORS):
        assert pq.read_table(tmp_path / "w" / f"{contract.name}.parquet").column_names == list(contract.column_names)


def test_equal_texts_of_an_ad_are_merged_and_counts_conserved(tmp_path):
    rows = [
        raw_row("a", "v2", "same", 1000, 10, period="1"),
        raw_row("a", "v1", "same", 500, 7, period="1"),
        raw_row("a", "v2", "same", 200, 2, period="2"),
        raw_row("a", "v3", "other", 900, 9),
    ]
    performance, preferences, snapshot, _ = build(tmp_path, pa.Table.from_pylist(rows, schema=SCHEMA))
    variants = pq.read_table(tmp_path / "w" / "variants.parquet").to_pylist()
    assert [(v["variant_id"], v["text"], v["impressions"], v["clicks"]) for v in variants] == [
        ("v1", "same", 1700, 19),
        ("v3", "other", 900, 9),
    ]
    assert (performance["impressions"], performance["clicks"]) == (2600, 28)
    assert (performance["raw_rows"], performance["ads"], performance["variants"]) == (4, 1, 2)
    assert preferences["pairs"] == snapshot["pairs"] == 1


def files_in(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.parquet") if path.is_file()}


def test_the_snapshot_does_not_depend_on_the_order_of_the_rows(tmp_path):
    table = raw_table(ads=300)
    build(tmp_path, table, "forth")
    build(tmp_path, table.take(list(range(table.num_rows))[::-1]), "back")
    assert len(files_in(tmp_path / "forth")) == 4
    assert files_in(tmp_path / "forth") == files_in(tmp_path / "back")


@pytest.mark.parametrize("filters", [{}, {"max_pairs_per_ad": 2}])
def test_tables_are_the_same_in_one_part_or_in_many(tmp_path, monkeypatch, filters):
    table = raw_table(ads=100, variants=4)
    build(tmp_path, table, "one", **filters)
    monkeypatch.setattr("rlpf_pipeline.preferences.ranges.PART_ROWS", 90)
    monkeypatch.setattr("rlpf_pipeline.preferences.ranges.ROUND_ROWS", 60)
    build(tmp_path, table, "many", **filters)
    assert len(files_in(tmp_path / "many")) == 16
    for name in ("ads", "variants", "pairs"):
        one, many = (pq.read_table(tmp_path / run / f"{name}.parquet") for run in ("one", "many"))
        assert one.num_rows == {"ads": 100, "variants": 400, "pairs": 200 if filters else 600}[name]
        assert one.to_pylist() == many.to_pylist()


raw_rows = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["one", "two", "three"]), st.sampled_from("vw"),
              st.integers(1, 500), st.integers(0, 1)),
    min_size=1, max_size=12,
)  # fmt: skip


@settings(max_examples=15, deadline=None)
@given(raw_rows, st.randoms(use_true_random=False))
def test_counts_are_conserved_whatever_the_rows_and_their_order(tmp_path_factory, drawn, random):
    rows = [raw_row(ad, variant, text, n, min(k, n)) for ad, text, variant, n, k in drawn]
    expected = {}
    for row in rows:
        n, k, names = expected.get((row["ad_id"], row["text"]), (0, 0, []))
        expected[row["ad_id"], row["text"]] = n + row["impressions"], k + row["clicks"], [*names, row["variant_id"]]
    built = []
    for order in (rows, random.sample(rows, len(rows))):
        folder = tmp_path_factory.mktemp("conserved")
        pq.write_table(pa.Table.from_pylist(order, schema=SCHEMA), folder / "raw.parquet")
        with Warehouse(folder / "w.duckdb") as warehouse:
            build_variant_performance(warehouse, folder / "raw.parquet", PairSettings(), seed=3)
            built.append([warehouse.query(f"FROM {table}").to_pylist() for table in ("ads", "variants")])
            merged = warehouse.query("FROM variant_performance").to_pylist()
    assert built[0] == built[1]
    assert {(v["ad_id"], v["text"]): (v["impressions"], v["clicks"], v["variant_id"]) for v in merged} == {
        key: (n, k, min(names)) for key, (n, k, names) in expected.items()
    }


def test_ads_with_a_text_alike_but_for_case_and_punctuation_share_a_split(tmp_path):
    table = raw_table(ads=60)
    alike = [
        raw_row(f"ad{i}", "v2", f"{'SALE' if i % 2 else 'Sale'} now, at {i // 2}!"[: 20 - i % 2], 500, 5)
        for i in range(60)
    ]
    performance, *_ = build(tmp_path, pa.concat_tables([table, pa.Table.from_pylist(alike, schema=SCHEMA)]))
    split = {row["ad_id"]: row["split"] for row in pq.read_table(tmp_path / "w" / "ads.parquet").to_pylist()}
    assert performance["clusters"] == 30
    assert performance["largest_cluster_ads"] == 2
    assert all(split[f"ad{i}"] == split[f"ad{i + 1}"] for i in range(0, 60, 2))
    assert sum(performance[f"ads_{name}"] for name in ("train", "validation", "test", "evaluation")) == 60


def test_delivery_tells_evenness_and_what_early_winners_gained(tmp_path):
    rows = [
        raw_row("a", "v0", "one", 100, 9, period="2025-01-01"),
        raw_row("a", "v1", "two", 100, 3, period="2025-01-01"),
        raw_row("a", "v0", "one", 500, 15, period="2025-01-02"),
        raw_row("a", "v1", "two", 100, 3, period="2025-01-02"),
        raw_row("a", "v2", "added later", 400, 3, period="2025-01-02"),
        raw_row("b", "v0", "three", 300, 9),
        raw_row("b", "v1", "four", 100, 3),
        raw_row("c", "v0", "five", 100, 3),
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), tmp_path / "raw.parquet")
    with Warehouse(tmp_path / "w.duckdb") as warehouse:
        metrics = build_variant_performance(warehouse, tmp_path / "raw.parquet", PairSettings(), seed=1)
        assert columns_of(warehouse, "delivery") == [(column.name, column.type) for column in DELIVERY.columns]
        ads = {row["ad_id"]: row for row in warehouse.query("FROM delivery").to_pylist()}
    # a: 600, 200 and 400 impressions; of the first two texts the early winner went from half of them to five sixths.
    assert ads["a"]["evenness"] == pytest.approx(1200**2 / (3 * (600**2 + 200**2 + 400**2)))
    assert ads["a"]["early_winner_gain"] == pytest.approx(5 / 6 - 1 / 2)
    assert ads["b"]["evenness"] == pytest.approx(0.8)
    assert ads["b"]["early_winner_gain"] is None
    assert set(ads) == {"a", "b"}
    assert metrics["early_winner_gain"] == pytest.approx(1 / 3)


def test_noise_ceilings_are_means_over_the_pairs_with_a_winner(tmp_path):
    table = pa.Table.from_pylist(
        [
            raw_row("a", "v0", "one", 500, 5),
            raw_row("a", "v1", "two", 5000, 100),
            raw_row("b", "v0", "three", 2000, 40),
            raw_row("b", "v1", "four", 3000, 20),
            raw_row("c", "v0", "five", 100, 4),
            raw_row("c", "v1", "six", 200, 8),
        ],
        schema=SCHEMA,
    )
    _, metrics, *_ = build(tmp_path, table, validation=0, test=0, evaluation=0)
    a, b, c = pq.read_table(tmp_path / "w" / "pairs.parquet")["p_left_better"].to_pylist()
    p = {"a": a, "b": b, "c": c}
    sure = {ad: max(value, 1 - value) for ad, value in p.items()}
    assert metrics["tied_pairs"] == 1
    assert metrics["noise_ceiling"] == pytest.approx((sure["a"] + sure["b"]) / 2, abs=1e-12)
    assert metrics["noise_ceiling_from_100_impressions"] == pytest.approx(sure["a"], abs=1e-12)
    assert metrics["noise_ceiling_from_1000_impressions"] == pytest.approx(sure["b"], abs=1e-12)
    assert metrics["noise_ceiling_train"] == metrics["noise_ceiling"]
    assert metrics["noise_ceiling_test"] is None


def test_filters_that_leave_no_pair_are_named(tmp_path):
    with pytest.raises(UserError, match=r"min_effect=9.*Loosen"):
        build(tmp_path, raw_table(ads=5), min_effect=9)
    with pytest.raises(UserError, match=r"min_evenness=1 leave nothing.*Loosen"):
        build(tmp_path, raw_table(ads=5), "uneven", min_evenness=1)


@pytest.mark.parametrize(
    ("rows", "advice"),
    [
        ([raw_row("a", "v", "one", 1000, 5), raw_row("b", "v", "two", 1000, 5)], "same ad_id"),
        (
            [raw_row("a", "v", "one", 1000, 5), raw_row("a", "w", "two", 99, 5)],
            r"best has two with 99\).*min_impressions",
        ),
        ([raw_row("a", "v", "one", 1000, 0), raw_row("a", "w", "two", 1000, 0)], "0 clicks"),
    ],
)
def test_no_pair_is_a_user_error_with_advice(tmp_path, rows, advice):
    with pytest.raises(UserError, match=advice):
        build(tmp_path, pa.Table.from_pylist(rows, schema=SCHEMA))
