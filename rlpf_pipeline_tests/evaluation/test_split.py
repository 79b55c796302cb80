from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.special import digamma

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.evaluation.split import Split, read_decided_split, read_split
from rlpf_pipeline.preferences.stages import build_preference_pairs, build_variant_performance, export_snapshot
from rlpf_pipeline.settings import PairSettings
from rlpf_pipeline.warehouse import Warehouse
from rlpf_pipeline_tests.evaluation.splits import split_of
from rlpf_pipeline_tests.preferences.raw_rows import SCHEMA, raw_row, raw_table


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 ads of two texts, 40 more of the first advertisers, and 40 of a single text, as the pipeline makes them."""
    folder = tmp_path_factory.mktemp("snapshot")
    alone = [raw_row(f"alone{i}", "v0", f"alone {i}", 1000, 9, f"lonely{i}") for i in range(40)]
    more = [
        raw_row(f"more{i}", f"v{v}", f"more {i} {v}", 2000, 20 + i % 7 + v, f"advertiser{i}")
        for i in range(40)
        for v in range(2)
    ]
    raw = pa.concat_tables([raw_table(200), pa.Table.from_pylist(alone + more, schema=SCHEMA)])
    pq.write_table(raw, folder / "raw.parquet")
    with Warehouse(folder / "w.duckdb") as warehouse:
        build_variant_performance(warehouse, folder / "raw.parquet", PairSettings(), 13)
        build_preference_pairs(warehouse, PairSettings())
        export_snapshot(warehouse, folder)
    return folder


@pytest.fixture(scope="module")
def test_split(snapshot: Path) -> Split:
    return read_split(snapshot, "test")


def test_texts_and_pairs_are_those_of_the_snapshot(snapshot: Path, test_split: Split) -> None:
    ads = pd.read_parquet(snapshot / "ads.parquet").set_index("ad")
    variants = pd.read_parquet(snapshot / "variants.parquet").set_index("variant")
    pairs = pd.read_parquet(snapshot / "pairs.parquet")
    pairs = pairs[pairs.split == "test"]
    text = test_split.texts.text.to_numpy()
    assert text[test_split.pairs.left].tolist() == variants.text[pairs.left_variant].tolist()
    assert text[test_split.pairs.right].tolist() == variants.text[pairs.right_variant].tolist()
    assert test_split.pairs.p_left_better.tolist() == pairs.p_left_better.tolist()
    assert set(test_split.texts.ad_id) == set(ads.ad_id[variants.ad[pairs.left_variant]])


def test_ads_of_a_single_text_are_left_out(test_split: Split) -> None:
    assert not test_split.texts.ad_id.str.startswith("alone").any()
    assert np.diff(test_split.starts, append=len(test_split.texts)).min() == 2


def test_the_prior_is_the_one_of_the_labels(test_split: Split) -> None:
    texts, pairs = test_split
    a = texts.centre * texts.strength + texts.clicks
    b = (1 - texts.centre) * texts.strength + texts.impressions - texts.clicks
    log_odds = (digamma(a) - digamma(b)).to_numpy()
    assert pairs.effect.tolist() == pytest.approx((log_odds[pairs.left] - log_odds[pairs.right]).tolist(), abs=1e-7)


def test_scores_keep_the_order_of_the_texts(test_split: Split) -> None:
    class Echo:
        def score(self, ads):  # type: ignore[no-untyped-def]
            return [np.array([[len(text), hash(text) % 97] for text in texts], np.float32) for _, texts in ads]

    scores = test_split.score(Echo())
    assert scores.tolist() == [[len(text), hash(text) % 97] for text in test_split.texts.text]


def test_a_score_that_is_not_finite_is_refused(test_split: Split) -> None:
    class Broken:
        def score(self, ads):  # type: ignore[no-untyped-def]
            return [np.full((len(texts), 1), np.nan) for _, texts in ads]

    with pytest.raises(ValueError, match="not finite"):
        test_split.score(Broken())


def test_tied_pairs_have_no_winner() -> None:
    split = split_of([("a", 100, 5), ("b", 100, 5), ("c", 100, 7)])
    assert split.decided[["left", "right", "left_won"]].values.tolist() == [[0, 2, False], [1, 2, False]]


def test_ads_of_one_advertiser_are_one_cluster(test_split: Split) -> None:
    advertisers = test_split.texts.advertiser_id.to_numpy()[test_split.starts]
    both = set(zip(advertisers, test_split.clusters, strict=True))
    assert len(both) == len(set(advertisers)) == len(set(test_split.clusters)) < len(test_split.starts)


def test_some_ads_of_a_split() -> None:
    split = split_of(
        [("a", 100, 5), ("b", 100, 6)], [("c", 100, 5), ("d", 100, 7), ("e", 100, 8)], [("f", 9, 1), ("g", 9, 2)]
    )
    part = split.only({"ad 1", "ad 2"})
    text = part.texts.text.to_numpy()
    assert part.texts.ad.tolist() == [0, 0, 0, 1, 1]
    pairs = list(zip(text[part.pairs.left], text[part.pairs.right], strict=True))
    assert pairs == [("c", "d"), ("c", "e"), ("d", "e"), ("f", "g")]
    assert part.starts.tolist() == [0, 3]


def test_a_split_without_a_pair_is_explained(snapshot: Path) -> None:
    assert len(read_split(snapshot, "nowhere").pairs) == 0
    with pytest.raises(UserError, match=r"no pair of texts whose CTRs differ.*pairs\.nowhere"):
        read_decided_split(snapshot, "nowhere")
