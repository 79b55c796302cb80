"""The market's past, as an ads platform would export it: raw multitext ads with impressions and clicks.

Advertisers wrote several texts per ad and the platform showed them all, everything else being equal. Impressions are
log-normal times the advertiser's budget; clicks are binomial with the planted CTR. With several days, a text has a row
a day; it may be new to people on the first (novelty), and the platform may show more what was clicked more so far
(early_winner). The market is made in parts, each from its own seed, so that any size fits into memory. Next in the
flow: `ingest`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from datetime import date, timedelta
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Event, Thread
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rlpf_pipeline.arrow_tables import arrow_schema, arrow_table
from rlpf_pipeline.contracts import RAW_MULTITEXT_ADS
from rlpf_pipeline.market.advertisers import Advertisers, Floats, Integers, draw_advertisers
from rlpf_pipeline.market.catalogue import INDUSTRIES
from rlpf_pipeline.market.click_model import INDUSTRY, PlantedClickModel, capped_ctr
from rlpf_pipeline.market.draws import Draws, draws_from
from rlpf_pipeline.market.texts import draw_brief, write_variants
from rlpf_pipeline.settings import MarketSettings
from rlpf_pipeline.whole_files import written_whole

AUDIENCE_SIGMA = 0.3
"""Standard deviation of an audience's effect on log CTR, where delivery is divergent."""
PULL = 4.0
"""Change of log impressions per unit of an audience's effect."""
PRIOR_CLICKS = 10.0
"""Clicks at the ad's CTR that the platform adds to a text's own before it compares them."""
NOVELTY_HALF_LIFE = 2.0
"""Days."""
FIRST_DAY = date(2025, 1, 1)
PART = 20_000
"""Advertisers of a part; six rows each by default, hence a row group of 120,000."""
INTERRUPTED = Event()
"""Of a worker: whether it heard Ctrl-C."""


class WrittenAd(NamedTuple):
    """One ad of the history; `advertiser` is the row of its advertiser, `texts[0]` the original."""

    advertiser: int
    texts: list[str]


class Part(NamedTuple):
    """What one part is made from: its number, its advertisers with the ads of each, the number of its first ad."""

    market: MarketSettings
    number: int
    advertisers: Advertisers
    ads_of: Integers
    first_ad: int


def simulate_history(market: MarketSettings) -> pa.Table:
    """Raw multitext ads (contracts.RAW_MULTITEXT_ADS), ordered by ad, variant and day; the seed fixes every byte."""
    return pa.concat_tables([simulate_part(part) for part in parts_of(market)])


def write_history(market: MarketSettings, path: Path, workers: int, progress: Callable[[int, int], None]) -> int:
    """Write the rows of `simulate_history` as Parquet, part by part; whole or not at all. Returns their count.

    workers: processes. progress is called with advertisers done and in all.
    """
    parts = list(parts_of(market))
    rows = done = 0
    with (
        written_whole(path) as unfinished,
        pq.ParquetWriter(unfinished, arrow_schema(RAW_MULTITEXT_ADS), compression="zstd") as writer,
        ProcessPoolExecutor(workers, get_context("spawn"), begin_worker) as pool,
    ):
        with interrupts_held_back():
            tables = pool.map(simulate_next, parts)
        for part, table in zip(parts, tables, strict=True):
            writer.write_table(table)
            rows, done = rows + table.num_rows, done + len(part.ads_of)
            progress(done, market.advertisers)
    return rows


@contextmanager
def interrupts_held_back() -> Iterator[None]:
    """Ctrl-C waits for the end of the block; in workers that start there, for that of their imports."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def begin_worker() -> None:
    """Of Ctrl-C a worker says nothing; it ends with its parent, also where that is killed and can tell nobody."""

    def end_with_parent() -> None:
        if parent := parent_process():
            parent.join()
            os._exit(1)

    signal.signal(signal.SIGINT, lambda *_: INTERRUPTED.set())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    Thread(target=end_with_parent, daemon=True).start()


def simulate_next(part: Part) -> pa.Table:
    """`simulate_part` in a worker. Ctrl-C ends it, and those that would follow; but no part's way to the parent, who
    would wait for the rest of it."""

    def end(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        INTERRUPTED.set()
        raise KeyboardInterrupt

    outside = signal.signal(signal.SIGINT, end)
    try:
        if INTERRUPTED.is_set():
            raise KeyboardInterrupt
        return simulate_part(part)
    finally:
        signal.signal(signal.SIGINT, outside)


def parts_of(market: MarketSettings) -> Iterator[Part]:
    rng = np.random.default_rng([market.seed, 0])
    advertisers = draw_advertisers(market.advertisers, rng, market.advertiser_sigma)
    ads_of = rng.geometric(1.0 / market.mean_ads, market.advertisers)
    first_ads = np.concatenate([[1], 1 + np.cumsum(ads_of)])
    for number, start in enumerate(range(0, market.advertisers, PART)):
        rows = slice(start, start + PART)
        yield Part(
            market,
            number,
            Advertisers._make(column[rows] for column in advertisers),
            ads_of[rows],
            int(first_ads[start]),
        )


def simulate_part(part: Part) -> pa.Table:
    market, advertisers = part.market, part.advertisers
    rng = np.random.default_rng([market.seed, 1, part.number])
    with draws_from(rng) as draws:
        ads = write_ads(advertisers, part.ads_of, market.variants, draws)
    owner = np.array([ad.advertiser for ad in ads])
    industry = advertisers.industry[owner]

    texts = [text for ad in ads for text in ad.texts]
    originals = [ad.texts[0] for ad in ads for _ in ad.texts]
    shape = len(ads), market.variants
    audience = audience_effects(shape, market.divergent_share, rng)
    effects = PlantedClickModel.of(market).log_effects(texts, originals, np.repeat(industry, market.variants).tolist())
    spread = np.exp(market.impressions_sigma * rng.standard_normal(shape) + PULL * audience)
    planned = market.median_impressions * advertisers.budget_scale[owner, None] * spread
    log_ctr = advertisers.effect[owner, None] + audience + effects.reshape(shape)
    impressions, clicks = deliver(planned, log_ctr, market, rng)

    rows_of_ad = market.variants * market.days
    days = [str(FIRST_DAY + timedelta(days=day)) for day in range(market.days)] if market.days > 1 else [None]
    return arrow_table(
        RAW_MULTITEXT_ADS,
        {
            "source": ["market"] * impressions.size,
            "ad_id": np.repeat([f"ad-{part.first_ad + place:05d}" for place in range(len(ads))], rows_of_ad),
            "advertiser_id": np.repeat(advertisers.advertiser_id[owner], rows_of_ad),
            "context": np.repeat([INDUSTRY + name for name in industry], rows_of_ad),
            "variant_id": [f"v{v}" for v in range(market.variants) for _ in days] * len(ads),
            "text": [text for text in texts for _ in days],
            "impressions": impressions.ravel(),
            "clicks": clicks.ravel(),
            "period": days * len(texts),
        },
    )


def deliver(
    planned: Floats, log_ctr: Floats, market: MarketSettings, rng: np.random.Generator
) -> tuple[Integers, Integers]:
    """Impressions and clicks, both (ads, variants, days), of texts planned to be shown so often in all.

    planned, log_ctr (relative to the base): (ads, variants). Each day has the same share of the impressions, divided
    among its texts as planned, times (CTR so far) ** early_winner; what is shown is a Poisson draw around that.
    """
    ads, variants = planned.shape
    impressions = np.zeros((ads, variants, market.days), dtype=np.int64)
    clicks = np.zeros_like(impressions)
    a_day = planned.sum(axis=1, keepdims=True) / market.days
    for day in range(market.days):
        shown, clicked = impressions.sum(axis=2), clicks.sum(axis=2)
        level = (clicked.sum(axis=1, keepdims=True) + 1) / (shown.sum(axis=1, keepdims=True) + 1 / market.base_ctr)
        ctr_so_far = (clicked + PRIOR_CLICKS) / (shown + PRIOR_CLICKS / level)
        winning = ctr_so_far / ctr_so_far.max(axis=1, keepdims=True)  # its power is not 0 for all
        share = planned * winning**market.early_winner
        share /= share.sum(axis=1, keepdims=True)
        impressions[..., day] = np.maximum(rng.poisson(a_day * share), 1)
        new = market.novelty * 0.5 ** (day / NOVELTY_HALF_LIFE)
        clicks[..., day] = rng.binomial(impressions[..., day], capped_ctr(market.base_ctr, log_ctr + new))
    return impressions, clicks


def audience_effects(shape: tuple[int, int], divergent_share: float, rng: np.random.Generator) -> Floats:
    """What the people that a text was shown to add to its log CTR, (ads, variants).

    Divergent delivery (Braun & Schwartz 2025): in `divergent_share` of the ads the platform finds each text an audience
    of its own, and shows it the more the more they click. Everywhere else all texts of an ad meet the same people.
    """
    divergent = rng.random(shape[0]) < divergent_share
    return np.where(divergent[:, None], AUDIENCE_SIGMA * rng.standard_normal(shape), 0.0)


def write_ads(advertisers: Advertisers, ads_of: Integers, variants: int, draws: Draws) -> list[WrittenAd]:
    industries = {industry.name: industry for industry in INDUSTRIES}
    # As lists: NumPy loses a KeyboardInterrupt that comes while a word is taken from an array.
    columns = (column.tolist() for column in (ads_of, advertisers.industry, advertisers.expertise, advertisers.brand))
    ads = []
    for row, (count, industry, expertise, brand) in enumerate(zip(*columns, strict=True)):
        for _ in range(count):
            brief = draw_brief(industries[industry], brand, draws)
            ads.append(WrittenAd(row, write_variants(brief, expertise, variants, draws)))
    return ads
