"""Every check passes on clean data and finds an offender planted by one statement."""

import pyarrow.parquet as pq
import pytest

from rlpf_pipeline.preferences.stages import build_preference_pairs, build_variant_performance
from rlpf_pipeline.settings import PairSettings
from rlpf_pipeline.warehouse import SQL, Warehouse
from rlpf_pipeline_tests.preferences.raw_rows import raw_table

OFFENDERS = {
    "raw_multitext_ads__counts_valid": "UPDATE raw_multitext_ads SET clicks = impressions + 1 WHERE text = 'ad0 0'",
    "raw_multitext_ads__text_not_empty": "UPDATE raw_multitext_ads SET text = ' ' WHERE text = 'ad0 0'",
    "variant_performance__unique_variant": "UPDATE variant_performance SET variant_id = 'v0' WHERE ad_id = 'ad0'",
    "variant_performance__clicks_within_impressions": "UPDATE variant_performance SET clicks = -1 WHERE text = 'ad0 0'",
    "variant_performance__one_split_per_ad": "UPDATE variant_performance SET split = 'other' WHERE text = 'ad0 0'",
    "preference_pairs__probability_in_range": "UPDATE preference_pairs SET p_left_better = 'nan' WHERE ad_id = 'ad0'",
    "preference_pairs__both_sides_exist": "DELETE FROM variant_performance WHERE text = 'ad0 0'",
    "preference_pairs__no_self_pair": "UPDATE preference_pairs SET right_id = left_id WHERE ad_id = 'ad0'",
    "splits__advertiser_in_one_split": "UPDATE raw_multitext_ads SET advertiser_id = 'everyone'",
    "splits__cluster_in_one_split": "UPDATE splits SET cluster_id = 'everyone'",
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


@pytest.mark.parametrize("name", OFFENDERS)
def test_a_planted_offender_is_found(warehouse, name):
    warehouse.connection.execute(OFFENDERS[name])
    result = warehouse.check(name)
    assert result.rule == name.split("__")[1]
    assert result.failing >= 1
    assert 1 <= len(result.sample) <= 5
