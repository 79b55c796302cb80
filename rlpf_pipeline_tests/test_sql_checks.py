"""Every check passes on clean data and finds an offender planted by one statement."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlpf_pipeline.contracts import SPLITS
from rlpf_pipeline.preferences.stages import build_preference_pairs, build_variant_performance
from rlpf_pipeline.settings import PairSettings
from rlpf_pipeline.warehouse import SQL, Warehouse
from rlpf_pipeline_tests.preferences.raw_rows import raw_table

OFFENDERS = {
    "raw_multitext_ads__counts_valid": "UPDATE raw_multitext_ads SET clicks = impressions + 1 WHERE text = 'ad0 0'",
    "raw_multitext_ads__text_not_empty": "UPDATE raw_multitext_ads SET text = ' ' WHERE text = 'ad0 0'",
    "variants__unique_in_order": "UPDATE variants SET variant_id = 'v0' WHERE ad = 0",
    "variants__clicks_within_impressions": "UPDATE variants SET clicks = -1 WHERE text = 'ad0 0'",
    "variants__split_of_the_ad": "UPDATE variants SET split = 'other' WHERE text = 'ad0 0'",
    "variants__counts_conserved": "DELETE FROM variants WHERE ad = 0",
    "pairs__probability_in_range": "UPDATE pairs SET p_left_better = 'nan' WHERE left_variant = 0",
    "pairs__sides_of_one_ad": "DELETE FROM variants WHERE text = 'ad0 0'",
    "pairs__each_pair_once": "INSERT INTO pairs FROM pairs LIMIT 1",
    "splits__advertiser_in_one_split": "UPDATE raw_multitext_ads SET advertiser_id = left(text, 3)",
    "splits__cluster_in_one_split": "UPDATE splits SET cluster = 0",
    "splits__text_in_one_split": "UPDATE raw_multitext_ads SET text = 'the same'",
}


@pytest.fixture
def warehouse(tmp_path):
    pq.write_table(raw_table(ads=40), tmp_path / "raw.parquet")
    with Warehouse(tmp_path / "w.duckdb") as warehouse:
        build_variant_performance(warehouse, tmp_path / "raw.parquet", PairSettings(), seed=1)
        build_preference_pairs(warehouse, PairSettings())
        yield warehouse


def test_every_check_has_its_offender_here():
    assert {path.stem for path in (SQL / "checks").glob("*.sql")} == set(OFFENDERS)


def test_clean_data_passes_every_check(warehouse):
    assert {name: warehouse.check(name).failing for name in OFFENDERS} == dict.fromkeys(OFFENDERS, 0)


def test_the_ads_of_a_single_advertiser_may_be_in_several_splits(tmp_path):
    alone = raw_table(ads=40).drop("advertiser_id").append_column("advertiser_id", pa.array(["one"] * 80))
    pq.write_table(alone.select(raw_table(ads=1).column_names), tmp_path / "raw.parquet")
    with Warehouse(tmp_path / "w.duckdb") as warehouse:
        metrics = build_variant_performance(warehouse, tmp_path / "raw.parquet", PairSettings(), seed=1)
        assert warehouse.check("splits__advertiser_in_one_split").failing == 0
    assert (metrics["advertisers"], metrics["clusters"]) == (1, 40)
    assert all(metrics[f"ads_{split}"] > 0 for split in SPLITS)


@pytest.mark.parametrize("name", OFFENDERS)
def test_a_planted_offender_is_found(warehouse, name):
    for view in ("raw_multitext_ads", "variants", "pairs"):
        warehouse.replace_table(view, warehouse.query(f"FROM {view}"))
    warehouse.connection.execute(OFFENDERS[name])
    result = warehouse.check(name)
    assert result.failing >= 1
    assert 1 <= len(result.sample) <= 5


@pytest.mark.parametrize(
    ("rule", "statement"),
    [
        (
            "raw_multitext_ads__text_not_empty",
            "UPDATE raw_multitext_ads SET text = chr(9) || chr(10) WHERE text = 'ad0 0'",
        ),
        ("variants__clicks_within_impressions", "UPDATE variants SET clicks = NULL WHERE text = 'ad0 0'"),
        ("variants__clicks_within_impressions", "UPDATE variants SET impressions = NULL WHERE text = 'ad0 0'"),
    ],
)
def test_a_blank_of_tabs_and_a_missing_count_are_found(warehouse, rule, statement):
    table = rule.split("__")[0]
    warehouse.replace_table(table, warehouse.query(f"FROM {table}"))
    warehouse.connection.execute(statement)
    assert warehouse.check(rule).failing == 1
