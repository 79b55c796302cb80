import pytest

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.training.snapshot import read_ads, read_needed_ads
from rlpf_pipeline_tests.training.snapshots import write_snapshot


def test_a_split_without_ads_is_refused_where_it_is_needed(tmp_path):
    snapshot = write_snapshot(
        tmp_path / "snapshot", {"a": ("One", "Two"), "b": ("Three", "Four")}, {"a": "test", "b": "validation"}
    )
    assert [ad.ad_id for ad in read_needed_ads(snapshot, "test")] == ["a"]
    assert read_ads(snapshot, "train") == []
    with pytest.raises(UserError, match=r"The train split has no pair .* train 0, validation 1, test 1, evaluation 0"):
        read_needed_ads(snapshot, "train")
