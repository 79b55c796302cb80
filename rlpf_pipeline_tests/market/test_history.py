import numpy as np
import pyarrow.compute as pc
import pytest

from rlpf_pipeline.contracts import RAW_MULTITEXT_ADS
from rlpf_pipeline.market.advertisers import draw_advertisers
from rlpf_pipeline.market.history import ARROW_TYPES, simulate_history
from rlpf_pipeline.settings import MarketSettings

MARKET = MarketSettings(advertisers=150)


@pytest.fixture(scope="module")
def history():
    return simulate_history(MARKET)


def test_history_fulfils_the_contract(history):
    assert history.schema.names == list(RAW_MULTITEXT_ADS.column_names)
    for column in RAW_MULTITEXT_ADS.columns:
        assert history.schema.field(column.name).type == ARROW_TYPES[column.type]
        assert column.name == "period" or history[column.name].null_count == 0
    assert pc.all(
        pc.and_(pc.less_equal(history["clicks"], history["impressions"]), pc.greater(history["impressions"], 0))
    ).as_py()


def test_the_seed_fixes_every_row(history):
    assert simulate_history(MARKET).equals(history)
    assert not simulate_history(MARKET.model_copy(update={"seed": 5})).equals(history)


def test_an_ad_has_one_advertiser_one_context_and_distinct_variants(history):
    ads = history.to_pandas().groupby("ad_id")
    assert (ads.advertiser_id.nunique() == 1).all()
    assert (ads.context.nunique() == 1).all()
    assert (ads.variant_id.nunique() == MARKET.variants).all()
    assert (ads.text.nunique() == MARKET.variants).all()
    assert history.to_pandas().context.str.split().str.len().max() <= 6


def test_texts_of_different_ads_hardly_ever_coincide(history):
    ads_of_a_text = history.to_pandas().groupby("text").ad_id.nunique()
    assert (ads_of_a_text > 1).mean() < 0.01


def test_mean_ctr_of_the_market_is_near_the_base(history):
    # exp(effect) has mean 1 and sd 0.48, so the mean over 150 advertisers is within 4 x 0.48 / sqrt(150).
    table = history.to_pandas()
    assert (table.clicks / table.impressions).mean() == pytest.approx(0.031, rel=4 * 0.48 / np.sqrt(150))


def test_impressions_are_heavy_tailed_around_the_median(history):
    impressions = history["impressions"].to_numpy()
    assert np.median(impressions) == pytest.approx(6000, rel=0.3)
    assert impressions.mean() > 1.2 * np.median(impressions)


def test_advertiser_effects_have_the_asked_spread_and_mean_ctr_factor_one():
    advertisers = draw_advertisers(20_000, np.random.default_rng(3), 0.45)
    assert advertisers.effect.std() == pytest.approx(0.45, rel=0.03)
    assert np.exp(advertisers.effect).mean() == pytest.approx(1.0, rel=0.02)
    expert, novice = (advertisers.effect[advertisers.expertise == level].mean() for level in ("expert", "novice"))
    assert expert > novice
    assert (advertisers.ads_before[advertisers.new_advertiser] == 0).all()
    assert (advertisers.ads_before[~advertisers.new_advertiser] > 0).all()


def test_brands_are_unique_while_names_last():
    brands = draw_advertisers(1000, np.random.default_rng(3), 0.45).brand
    assert len(set(brands)) == len(brands)
