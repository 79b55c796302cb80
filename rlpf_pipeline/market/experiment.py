"""The simulated A/B test: advertisers, randomised between two policies, run ads on the market with a planted truth.

Every advertiser creates ads. An ad's original is drawn from the distinct originals in `suggestions`, of the
advertiser's industry where there are any: many advertisers share one, as resellers of one product do, which bounds the
text to be generated. The advertiser is offered its arm's suggestions, selects some (selection.py) and delivers them
with the original. Treatment changes nothing but the texts offered; advertisers, ads and impressions do not depend on
it. Next in the flow: the A/B analysis, which sees the table and not the truth.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rlpf_pipeline.arrow_tables import arrow_table
from rlpf_pipeline.contracts import ARMS, EXPERIMENT_ADVERTISERS
from rlpf_pipeline.errors import UserError
from rlpf_pipeline.market.advertisers import Advertisers, Floats, Integers, draw_advertisers
from rlpf_pipeline.market.assignment import assign
from rlpf_pipeline.market.click_model import PlantedClickModel, capped_ctr, industry_of
from rlpf_pipeline.market.selection import select, selection_probabilities
from rlpf_pipeline.settings import ExperimentSettings, MarketSettings

Row = dict[str, Any]

POLICY_OF_ARM = {"control": "imitation_v2", "treatment": "adllama"}


class PlantedTruth(NamedTuple):
    """What the experiment should find, computed with every advertiser under both arms and without sampling noise.

    The advertisers, their ads, impressions and the draws by which they select are the same under both arms.
    """

    relative_risk: float
    """treatment_ctr / control_ctr; 1 where the policies offer the same texts"""
    control_ctr: float
    """CTR over all impressions if every advertiser had control's suggestions, clicks per impression"""
    treatment_ctr: float
    """the same with treatment's suggestions"""


class ExperimentResult(NamedTuple):
    advertisers: pa.Table
    """one row per advertiser, columns of contracts.EXPERIMENT_ADVERTISERS"""
    truth: PlantedTruth


class Pool(NamedTuple):
    """The originals that ads are drawn from, ordered by industry, with both arms' texts; slot 0 is the original.

    effects: log CTR effects, (arms, originals, slots); probabilities: of selection, (arms, originals, slots - 1), zero
    in unused slots; industries: (originals,).
    """

    effects: Floats
    probabilities: Floats
    industries: npt.NDArray[np.str_]


class CreatedAds(NamedTuple):
    """The ads of the experiment. owner, original: rows of advertiser and pool, (ads,); impressions: (ads,);
    draws: by which suggestions are selected, (ads, slots - 1); shares: relative traffic of a text, (ads, slots)."""

    owner: Integers
    original: Integers
    impressions: Integers
    draws: Floats
    shares: Floats


def simulate_experiment(
    experiment: ExperimentSettings, market: MarketSettings, suggestions: pa.Table
) -> ExperimentResult:
    """Run the A/B test. `suggestions` has the columns of contracts.SUGGESTIONS; equal inputs give equal results.

    Raises UserError when there are no suggestions, or a policy has none for some ad.
    """
    rng = np.random.default_rng([experiment.seed, market.seed])
    pool = build_pool(suggestions, PlantedClickModel.of(market))
    advertisers = draw_advertisers(experiment.advertisers, rng, market.advertiser_sigma)
    arms = assign(advertisers.advertiser_id, salt=f"experiment-{experiment.seed}")
    lifetime_ctr = past_ctr(advertisers, market, rng)
    ads = create_ads(advertisers, pool, market, rng)

    delivered_by_arm = [deliver(pool, ads, arm) for arm in range(len(ARMS))]
    ctr_by_arm = [
        capped_ctr(market.base_ctr, advertisers.effect[ads.owner, None] + pool.effects[arm, ads.original])
        for arm in range(len(ARMS))
    ]
    treated = (arms == "treatment")[ads.owner, None]
    delivered, ctr = np.where(treated, delivered_by_arm[1], delivered_by_arm[0]), np.where(treated, *ctr_by_arm[::-1])
    impressions = rng.multinomial(ads.impressions, traffic(ads, delivered))
    clicks = rng.binomial(impressions, ctr)

    table = advertiser_totals(advertisers, arms, ads, impressions, clicks, delivered, lifetime_ctr)
    return ExperimentResult(table, planted_truth(ads, delivered_by_arm, ctr_by_arm))


def build_pool(suggestions: pa.Table, click_model: PlantedClickModel) -> Pool:
    by_ad: dict[str, list[Row]] = {}
    rows = suggestions.to_pylist()
    for row in sorted(rows, key=lambda row: (industry_of(row["context"]), row["ad_id"], row["sample"])):
        by_ad.setdefault(row["ad_id"], []).append(row)
    if not by_ad:
        raise UserError("The experiment has no suggestions to offer. Generate suggestions of both policies first.")
    offers = [[offered(ad, arm) for ad in by_ad.values()] for arm in ARMS]

    most = max(len(offer) for arm in offers for offer in arm)
    effects = np.zeros((len(ARMS), len(by_ad), 1 + most))
    probabilities = np.zeros((len(ARMS), len(by_ad), most))
    for arm, position in np.ndindex(effects.shape[:2]):
        offer = offers[arm][position]
        original, texts = offer[0]["original"], [row["text"] for row in offer]
        everything = [original, *texts]
        effects[arm, position, : len(everything)] = click_model.log_effects(
            everything, [original] * len(everything), [industry_of(offer[0]["context"])] * len(everything)
        )
        finished = [row["finished"] for row in offer]
        probabilities[arm, position, : len(texts)] = selection_probabilities(original, texts, finished)
    industries = np.array([industry_of(ad[0]["context"]) for ad in by_ad.values()], dtype=np.str_)
    return Pool(effects, probabilities, industries)


def offered(ad: list[Row], arm: str) -> list[Row]:
    """The suggestions that an arm offers for an ad, in the order of their sample numbers."""
    policy = POLICY_OF_ARM[arm]
    rows = [row for row in ad if row["policy"] == policy]
    if not rows:
        raise UserError(
            f"Suggestions for ad '{ad[0]['ad_id']}' hold no text of policy '{policy}', which the {arm} arm offers. "
            "Generate suggestions of both policies for the same originals."
        )
    return rows


def create_ads(advertisers: Advertisers, pool: Pool, market: MarketSettings, rng: np.random.Generator) -> CreatedAds:
    counts = rng.geometric(1.0 / market.mean_ads, len(advertisers.effect))
    owner = np.repeat(np.arange(len(counts)), counts)
    industry = advertisers.industry[owner]
    first = np.searchsorted(pool.industries, industry, side="left")
    number = np.searchsorted(pool.industries, industry, side="right") - first
    first, number = np.where(number == 0, 0, first), np.where(number == 0, len(pool.industries), number)
    heavy_tail = np.exp(market.impressions_sigma * rng.standard_normal(len(counts)))
    per_ad = market.median_impressions * market.variants * (advertisers.budget_scale * heavy_tail)[owner]
    slots = pool.effects.shape[2]
    return CreatedAds(
        owner=owner,
        original=first + (rng.random(len(owner)) * number).astype(np.int64),
        impressions=np.maximum(per_ad * rng.gamma(4.0, 0.25, len(owner)), 1).astype(np.int64),
        draws=rng.random((len(owner), slots - 1)),
        shares=rng.gamma(4.0, 0.25, (len(owner), slots)),
    )


def deliver(pool: Pool, ads: CreatedAds, arm: int) -> npt.NDArray[np.bool_]:
    """Which texts of each ad run if its advertiser were in `arm`, bool (ads, slots); the original always does."""
    selected = select(pool.probabilities[arm, ads.original], ads.draws)
    return np.hstack([np.ones((len(selected), 1), dtype=np.bool_), selected])


def traffic(ads: CreatedAds, delivered: npt.NDArray[np.bool_]) -> Floats:
    """Share of an ad's impressions that each text gets, (ads, slots), rows summing to 1."""
    shares = ads.shares * delivered
    return np.asarray(shares / shares.sum(axis=1, keepdims=True), dtype=np.float64)


def planted_truth(
    ads: CreatedAds, delivered_by_arm: list[npt.NDArray[np.bool_]], ctr_by_arm: list[Floats]
) -> PlantedTruth:
    control, treatment = (
        float((ads.impressions * (traffic(ads, delivered) * ctr).sum(axis=1)).sum() / ads.impressions.sum())
        for delivered, ctr in zip(delivered_by_arm, ctr_by_arm, strict=True)
    )
    return PlantedTruth(treatment / control, control, treatment)


def advertiser_totals(
    advertisers: Advertisers,
    arms: npt.NDArray[np.str_],
    ads: CreatedAds,
    impressions: Integers,
    clicks: Integers,
    delivered: npt.NDArray[np.bool_],
    lifetime_ctr: Floats,
) -> pa.Table:
    def total(per_ad: Integers) -> Integers:
        sums = np.zeros(len(arms), dtype=np.int64)
        np.add.at(sums, ads.owner, per_ad)
        return sums

    return arrow_table(
        EXPERIMENT_ADVERTISERS,
        {
            "arm": arms,
            "impressions": total(impressions.sum(axis=1)),
            "clicks": total(clicks.sum(axis=1)),
            "ads": total(np.ones_like(ads.owner)),
            "variations": total(delivered.sum(axis=1)),
            "lifetime_ctr": lifetime_ctr,
            **{
                name: getattr(advertisers, name)
                for name in EXPERIMENT_ADVERTISERS.column_names
                if name in Advertisers._fields
            },
        },
    )


def past_ctr(advertisers: Advertisers, market: MarketSettings, rng: np.random.Generator) -> Floats:
    """CTR before the experiment: clicks over impressions of earlier ads, around the advertiser's own level."""
    spread = np.exp(market.impressions_sigma * rng.standard_normal(len(advertisers.effect)))
    per_ad = market.median_impressions * advertisers.budget_scale * spread
    impressions = np.maximum(advertisers.ads_before * per_ad, 1).astype(np.int64)
    clicks = rng.binomial(impressions, capped_ctr(market.base_ctr, advertisers.effect))
    return np.where(advertisers.new_advertiser, 0.0, clicks / impressions)
