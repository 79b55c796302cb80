import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from rlpf_pipeline.arrow_tables import ARROW_TYPES
from rlpf_pipeline.contracts import RAW_MULTITEXT_ADS
from rlpf_pipeline.market import history as history_module
from rlpf_pipeline.market.advertisers import draw_advertisers
from rlpf_pipeline.market.history import deliver, simulate_history, write_history
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


def test_written_in_parts_by_several_processes_it_is_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(history_module, "PART", 40)
    done = []
    rows = write_history(MARKET, tmp_path / "ads.parquet", 2, lambda *progress: done.append(progress))
    written = pq.read_table(tmp_path / "ads.parquet")
    assert written.equals(simulate_history(MARKET))
    assert written.num_rows == rows
    assert done == [(40, 150), (80, 150), (120, 150), (150, 150)]
    assert written["ad_id"].to_pylist() == sorted(written["ad_id"].to_pylist())
    assert [path.name for path in tmp_path.iterdir()] == ["ads.parquet"]


MARKET_IN_WORKERS = """
import sys, time
from pathlib import Path
from rlpf_pipeline.market import history
from rlpf_pipeline.settings import MarketSettings
simulate_part = history.simulate_part
def endless_but_for_the_first(part):
    return time.sleep(3600) if part.number else simulate_part(part)
history.simulate_part = endless_but_for_the_first
if __name__ == "__main__":
    history.PART = 500
    progress = lambda done, total: print(done, flush=True)
    try:
        history.write_history(MarketSettings(advertisers=200_000), Path("ads.parquet"), 2, progress)
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.fixture
def simulating(tmp_path):
    """A market in the making, in a session of its own: its first part is there, and the others never will be."""
    (tmp_path / "market.py").write_text(MARKET_IN_WORKERS)
    with subprocess.Popen(
        [sys.executable, "market.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        process.stdout.readline()
        yield process
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_ctrl_c_waits_for_no_worker_and_prints_the_traceback_of_none(simulating, tmp_path):
    os.killpg(simulating.pid, signal.SIGINT)
    assert simulating.communicate(timeout=60)[1] == b""
    assert simulating.returncode == 130
    assert [path.name for path in tmp_path.iterdir()] == ["market.py"]


def test_workers_end_with_a_parent_that_is_killed(simulating):
    simulating.kill()
    simulating.communicate(timeout=60)  # ends when no worker holds the pipe


def test_several_days_make_a_row_a_day_of_every_text():
    table = simulate_history(MARKET.model_copy(update={"advertisers": 20, "days": 3})).to_pandas()
    assert table.period.unique().tolist() == ["2025-01-01", "2025-01-02", "2025-01-03"]
    assert (table.groupby(["ad_id", "variant_id"]).size() == 3).all()
    assert (table.groupby(["ad_id", "variant_id"]).text.nunique() == 1).all()


def test_a_new_text_is_clicked_more_and_the_more_is_halved_every_two_days():
    market = MARKET.model_copy(update={"days": 5, "novelty": 0.4})
    planned, log_ctr = np.full((50, 4), 1e6), np.zeros((50, 4))
    impressions, clicks = deliver(planned, log_ctr, market, np.random.default_rng(0))
    ctr = clicks.sum(axis=(0, 1)) / impressions.sum(axis=(0, 1))
    # 4e7 impressions a day at 3 %: a relative standard error of 0.1 %.
    assert np.log(ctr / 0.031)[[0, 2, 4]] == pytest.approx([0.4, 0.2, 0.1], abs=0.005)


def test_early_winners_get_more_from_the_second_day_on_and_the_days_total_stays():
    market = MARKET.model_copy(update={"days": 3, "early_winner": 1.0})
    planned, log_ctr = np.full((200, 2), 3e5), np.tile([0.5, 0.0], (200, 1))
    impressions, _ = deliver(planned, log_ctr, market, np.random.default_rng(0))
    share = impressions[:, 0].sum(axis=0) / impressions.sum(axis=(0, 1))
    ratio = np.exp(0.5)
    assert share == pytest.approx([0.5, ratio / (1 + ratio), ratio / (1 + ratio)], abs=0.005)
    assert impressions.sum(axis=1) == pytest.approx(np.full((200, 3), 2e5), rel=0.02)


def test_a_large_power_gives_all_to_the_winner():
    """At 0.3 % clicks, the two hundredth power of a CTR is too small for a float."""
    market = MARKET.model_copy(update={"days": 2, "base_ctr": 0.003, "early_winner": 200.0})
    planned, log_ctr = np.full((20, 2), 2e7), np.tile([1.0, 0.0], (20, 1))
    impressions, _ = deliver(planned, log_ctr, market, np.random.default_rng(0))
    assert (impressions[:, 1, 1] == 1).all()
    assert impressions[:, 0, 1] == pytest.approx(np.full(20, 2e7), rel=0.01)
