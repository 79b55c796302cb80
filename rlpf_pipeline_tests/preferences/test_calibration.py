"""Soft labels against the planted truth of a simulated market, which the pipeline never sees."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from rlpf_pipeline.market.click_model import PlantedClickModel
from rlpf_pipeline.market.history import simulate_history
from rlpf_pipeline.preferences.stages import build_preference_pairs, build_variant_performance
from rlpf_pipeline.settings import MarketSettings, PairSettings
from rlpf_pipeline.warehouse import Warehouse


def labels_and_truth(folder, market, settings):
    """Pairs with p_left_better as p and their weight; whether the left text truly has the higher planted effect; the
    stage's metrics."""
    history = simulate_history(market)
    pq.write_table(history, folder / "raw.parquet")
    with Warehouse(folder / "w.duckdb") as warehouse:
        build_variant_performance(warehouse, folder / "raw.parquet", settings, seed=1)
        metrics = build_preference_pairs(warehouse, settings)
        pairs = warehouse.query(
            "SELECT ad_id, left_id, right_id, p_left_better AS p, weight FROM preference_pairs"
        ).to_pandas()
    texts = history.to_pandas()
    originals = texts.groupby("ad_id").text.first()
    effects = PlantedClickModel.of(market).log_effects(
        texts.text.tolist(), originals.loc[texts.ad_id].tolist(), texts.context.str.removeprefix("Industry: ").tolist()
    )
    truth = dict(zip(zip(texts.ad_id, texts.variant_id, strict=True), effects, strict=True))
    better = np.array([truth[ad, left] > truth[ad, right] for ad, left, right, *_ in pairs.itertuples(index=False)])
    return pairs, better, metrics


def test_a_label_of_p_is_right_with_probability_p(tmp_path):
    pairs, better, metrics = labels_and_truth(tmp_path, MarketSettings(seed=99, advertisers=800), PairSettings())
    p = pairs.p.to_numpy()
    sure, right = np.maximum(p, 1 - p), (p > 0.5) == better
    # About 7,000 pairs of 1,200 ads: the mean's standard error is near 0.005, a bin's near 0.015.
    assert abs(sure.mean() - right.mean()) < 0.015
    assert abs(metrics["noise_ceiling"] - right.mean()) < 0.015
    for low, high in ((0.5, 0.7), (0.7, 0.9), (0.9, 1.01)):
        chosen = (sure >= low) & (sure < high)
        assert abs(sure[chosen].mean() - right[chosen].mean()) < 0.045


def test_leaving_out_uneven_ads_or_giving_them_less_weight_mends_labels_that_divergent_delivery_spoils(tmp_path):
    market = MarketSettings(seed=99, advertisers=800, divergent_share=0.5)
    right, weighed = [], []
    for number, settings in enumerate(({}, {"min_evenness": 0.6}, {"weigh_evenness": True})):
        (tmp_path / str(number)).mkdir()
        pairs, better, _ = labels_and_truth(tmp_path / str(number), market, PairSettings(**settings))
        is_right = (pairs.p > 0.5) == better
        right.append(is_right.mean())
        weighed.append(np.average(is_right, weights=pairs.weight))
    assert right[1] > right[0] + 0.03
    assert weighed[2] > weighed[0] + 0.01


@pytest.mark.parametrize(("early_winner", "found"), [(0.0, False), (2.0, True)])
def test_the_diagnostic_finds_early_winners_where_they_were_planted_and_nowhere_else(tmp_path, early_winner, found):
    market = MarketSettings(seed=99, advertisers=150, days=5, early_winner=early_winner)
    pq.write_table(simulate_history(market), tmp_path / "raw.parquet")
    with Warehouse(tmp_path / "w.duckdb") as warehouse:
        metrics = build_variant_performance(warehouse, tmp_path / "raw.parquet", PairSettings(), seed=1)
    assert (abs(metrics["early_winner_z"]) > 4) is found
