"""Advertisers of the simulated market: who they are and how well their ads do, whatever the text.

The advertiser effect on log CTR is normal with standard deviation `sigma`, mildly correlated with industry and
expertise, and shifted by -sigma^2/2 so that the mean of exp(effect) over advertisers is 1: the base CTR is then the
mean CTR of the market.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rlpf_pipeline.market.catalogue import INDUSTRIES, LEADS

EXPERTISE = {"novice": 0.5, "intermediate": 0.35, "expert": 0.15}
BUDGET = {"low": 0.5, "medium": 0.35, "high": 0.15}
BUDGET_SCALE = {"low": 0.7, "medium": 1.0, "high": 1.8}
NEW_SHARE = 0.15
EXPLAINED = 0.2
"""Share of the effect's variance that industry and expertise explain."""

Strings = npt.NDArray[np.str_]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class Advertisers(NamedTuple):
    """Arrays of one length, one entry an advertiser. Names as in contracts.EXPERIMENT_ADVERTISERS, and:

    brand is the business name (unique until an industry has used all its names); effect is on log CTR; budget_scale
    multiplies impressions.
    """

    advertiser_id: Strings
    brand: Strings
    industry: Strings
    expertise: Strings
    budget: Strings
    budget_scale: Floats
    business_account: npt.NDArray[np.bool_]
    account_age_years: Floats
    new_advertiser: npt.NDArray[np.bool_]
    ads_before: Integers
    effect: Floats


def draw_advertisers(number: int, rng: np.random.Generator, sigma: float) -> Advertisers:
    """`number` advertisers; `sigma` is the standard deviation of their effects on log CTR."""
    industries = rng.integers(len(INDUSTRIES), size=number)
    expertise = rng.choice(3, size=number, p=list(EXPERTISE.values()))
    budget = np.array(list(BUDGET))[rng.choice(3, size=number, p=list(BUDGET.values()))]
    new = rng.random(number) < NEW_SHARE
    age = np.where(new, rng.uniform(0.0, 0.5, number), 0.5 + rng.gamma(2.0, 1.6, number))
    ads_before = np.where(new, 0, 1 + rng.negative_binomial(1, 0.12, number))
    return Advertisers(
        advertiser_id=np.array([f"adv-{i:06d}" for i in range(1, number + 1)], dtype=np.str_),
        brand=draw_brands(industries, rng),
        industry=np.array([industry.name for industry in INDUSTRIES])[industries],
        expertise=np.array(list(EXPERTISE))[expertise],
        budget=budget,
        budget_scale=np.array([BUDGET_SCALE[level] for level in budget], dtype=np.float64),
        business_account=rng.random(number) < np.array([0.45, 0.7, 0.9])[expertise],
        account_age_years=np.round(age, 2).astype(np.float64),
        new_advertiser=new,
        ads_before=ads_before.astype(np.int64),
        effect=draw_effects(industries, expertise, rng, sigma),
    )


def draw_effects(industries: Integers, expertise: Integers, rng: np.random.Generator, sigma: float) -> Floats:
    by_industry = standardised(np.full(len(INDUSTRIES), 1 / len(INDUSTRIES)))
    by_expertise = standardised(np.array(list(EXPERTISE.values())))
    explained = (by_industry[industries] + by_expertise[expertise]) / np.sqrt(2)
    own = rng.standard_normal(len(industries))
    effect = sigma * (np.sqrt(EXPLAINED) * explained + np.sqrt(1 - EXPLAINED) * own) - sigma**2 / 2
    return np.asarray(effect, dtype=np.float64)


def standardised(probabilities: Floats) -> Floats:
    """Scores of categories with these probabilities: evenly rising, mean 0, variance 1."""
    scores = np.arange(len(probabilities), dtype=np.float64)
    centred = scores - probabilities @ scores
    return np.asarray(centred / np.sqrt(probabilities @ centred**2), dtype=np.float64)


def draw_brands(industries: Integers, rng: np.random.Generator) -> Strings:
    brands = np.empty(len(industries), dtype=object)
    for index, industry in enumerate(INDUSTRIES):
        names = [f"{lead} {suffix}" for lead in LEADS for suffix in industry.suffixes]
        members = np.flatnonzero(industries == index)
        order = rng.permutation(len(names))
        brands[members] = [names[order[i % len(names)]] for i in range(len(members))]
    return brands.astype(np.str_)
