"""The market's past, as an ads platform would export it: raw multitext ads with impressions and clicks.

Advertisers wrote several texts per ad and the platform showed them all, everything else being equal. Impressions are
log-normal times the advertiser's budget; clicks are binomial with the planted CTR. Next in the flow:
`raw_multitext_ads` in the warehouse.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rlpf_pipeline.contracts import RAW_MULTITEXT_ADS, Table
from rlpf_pipeline.market.advertisers import Advertisers, draw_advertisers
from rlpf_pipeline.market.catalogue import INDUSTRIES
from rlpf_pipeline.market.click_model import PlantedClickModel
from rlpf_pipeline.market.texts import draw_brief, write_variants
from rlpf_pipeline.settings import MarketSettings

AUDIENCE_SIGMA = 0.3
"""Standard deviation of an audience's effect on log CTR, where delivery is divergent."""
PULL = 4.0
"""Change of log impressions per unit of an audience's effect."""
ARROW_TYPES = {"VARCHAR": pa.string(), "BIGINT": pa.int64(), "DOUBLE": pa.float64(), "BOOLEAN": pa.bool_()}


class WrittenAd(NamedTuple):
    """One ad of the history; `advertiser` is the row of its advertiser, `texts[0]` the original."""

    advertiser: int
    texts: list[str]


def simulate_history(market: MarketSettings) -> pa.Table:
    """Raw multitext ads (contracts.RAW_MULTITEXT_ADS), ordered by ad and variant; the seed fixes every byte."""
    rng = np.random.default_rng([market.seed, 0])
    advertisers = draw_advertisers(market.advertisers, rng, market.advertiser_sigma)
    ads = write_ads(advertisers, market, rng)

    texts = [text for ad in ads for text in ad.texts]
    originals = [ad.texts[0] for ad in ads for _ in ad.texts]
    owner = np.repeat([ad.advertiser for ad in ads], market.variants)
    spread = np.exp(market.impressions_sigma * rng.standard_normal(len(texts)))
    audience = audience_effects(len(ads), market)
    pull = np.exp(PULL * audience)
    impressions = np.maximum(market.median_impressions * advertisers.budget_scale[owner] * spread * pull, 1).astype(
        np.int64
    )
    ctr = PlantedClickModel(market.seed).ctr(texts, originals, advertisers.effect[owner] + audience, market.base_ctr)
    return arrow_table(
        RAW_MULTITEXT_ADS,
        {
            "source": ["market"] * len(texts),
            "ad_id": [f"ad-{number:05d}" for number in range(1, len(ads) + 1) for _ in range(market.variants)],
            "advertiser_id": advertisers.advertiser_id[owner],
            "context": [f"Industry: {advertisers.industry[row]}" for row in owner],
            "variant_id": [f"v{number}" for _ in ads for number in range(market.variants)],
            "text": texts,
            "impressions": impressions,
            "clicks": rng.binomial(impressions, ctr),
            "period": [None] * len(texts),
        },
    )


def audience_effects(ads: int, market: MarketSettings) -> NDArray[np.float64]:
    """What the people that a text was shown to add to its log CTR, (ads x variants,), the variants of an ad together.

    Divergent delivery (Braun & Schwartz 2025): in `divergent_share` of the ads the platform finds each text an audience
    of its own, and shows it the more the more they click. Everywhere else all texts of an ad meet the same people.
    """
    rng = np.random.default_rng([market.seed, 1])
    divergent = rng.random(ads) < market.divergent_share
    effects = AUDIENCE_SIGMA * rng.standard_normal((ads, market.variants))
    return np.where(divergent[:, None], effects, 0.0).ravel()


def write_ads(advertisers: Advertisers, market: MarketSettings, rng: np.random.Generator) -> list[WrittenAd]:
    industries = {industry.name: industry for industry in INDUSTRIES}
    ads = []
    for row, count in enumerate(rng.geometric(1.0 / market.mean_ads, len(advertisers.effect))):
        industry, expertise = industries[str(advertisers.industry[row])], str(advertisers.expertise[row])
        for _ in range(count):
            brief = draw_brief(industry, str(advertisers.brand[row]), rng)
            ads.append(WrittenAd(row, write_variants(brief, expertise, market.variants, rng)))
    return ads


def arrow_table(table: Table, columns: dict[str, object]) -> pa.Table:
    """An Arrow table with the columns, order, types and nullability of a contract."""
    schema = pa.schema([pa.field(c.name, ARROW_TYPES[c.type], nullable=c.nullable) for c in table.columns])
    return pa.table({c.name: columns[c.name] for c in table.columns}, schema=schema)
