"""Experiments to test with: one with a planted relative risk as in the study, its days, and small ones that are odd all
over."""

from __future__ import annotations

import numpy as np
import pandas as pd

from rlpf_pipeline.abtest import ExperimentSpec
from rlpf_pipeline.abtest.design import Design, build_design
from rlpf_pipeline.abtest.frames import with_exposure
from rlpf_pipeline.abtest.panel import load_experiment


def experiment(number: int, seed: int, relative_risk: float = 1.067) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    treated = rng.random(number) < 0.5
    new = rng.random(number) < 0.15
    effect = rng.normal(-0.06, 0.35, number)
    impressions = np.ceil(np.exp(rng.normal(8.0, 1.3, number))).astype(int)
    ctr = 0.031 * np.exp(effect + np.log(relative_risk) * treated)
    ads = 1 + rng.poisson(3.0, number)
    return pd.DataFrame(
        {
            "advertiser_id": [f"adv-{i:06d}" for i in range(number)],
            "arm": np.where(treated, "treatment", "control"),
            "impressions": impressions,
            "clicks": rng.binomial(impressions, np.minimum(ctr, 0.9)),
            "ads": ads,
            "variations": 3 * ads + rng.poisson(np.where(treated, 7.5, 4.0)),
            "lifetime_ctr": np.where(new, 0.0, 0.031 * np.exp(effect + rng.normal(0, 0.25, number))),
            "new_advertiser": new,
            "ads_before": np.where(new, 0, 1 + rng.poisson(8.0, number)),
            "industry": rng.choice(["retail", "travel", "food", "games"], number),
            "expertise": rng.choice(["novice", "intermediate", "expert"], number),
            "budget": rng.choice(["low", "medium", "high"], number),
            "business_account": rng.random(number) < 0.4,
            "account_age_years": rng.gamma(2.0, 1.6, number),
        }
    )


COUNTS = {"successes": "clicks", "trials": "impressions"}
"""As `log_binomial` is told of them."""


def with_treatment(frame: pd.DataFrame) -> pd.DataFrame:
    """The arm as a number, 0 or 1, as regressions take it."""
    return frame.assign(treatment=(frame["arm"] == "treatment").astype(float))


def panel_of(data: pd.DataFrame, days: int = 30) -> pd.DataFrame:
    """One row per advertiser and day; impressions and clicks are dealt out, the rest repeats."""
    rng = np.random.default_rng(3)
    parts = []
    left_n, left_k = data["impressions"].to_numpy(), data["clicks"].to_numpy()
    for day in range(days):
        n = left_n if day == days - 1 else rng.binomial(left_n, 1 / (days - day))
        k = rng.hypergeometric(left_k, left_n - left_k, n)
        left_n, left_k = left_n - n, left_k - k
        first = int(day == 0)
        parts.append(
            data.assign(
                impressions=n,
                clicks=k,
                day=pd.Timestamp("2024-02-16") + pd.Timedelta(days=day),
                ads=data["ads"] * first,
                variations=data["variations"] * first,
                lifetime_ctr=data["lifetime_ctr"] * (1 + day),
            )
        )
    return pd.concat(parts).sample(frac=1, random_state=1)


def odd_experiment(seed: int) -> pd.DataFrame:
    """4 to 80 advertisers in one to 25 days (column `day` where there are several), some of which may be missing.

    Arms may be lopsided, impressions zero, one or a million, CTRs 0 or 1, covariates constant, missing or far apart.
    """
    rng = np.random.default_rng(seed)
    number, days = int(rng.integers(4, 80)), int(rng.choice([1, 1, 2, 5, 25]))
    lifetime = np.where(rng.random(number) < 0.2, np.nan, rng.beta(2, 60, number))
    covariates = {
        "lifetime_ctr": lifetime,
        "new_advertiser": np.isnan(lifetime),
        "industry": rng.choice(["travel", "food", None] if rng.random() < 0.5 else ["food"], number),
        "expertise": rng.choice(["novice", "intermediate", "expert"], number),
        "budget": rng.choice(["low", "high"], number, p=[0.95, 0.05]),
        "account_age_years": rng.choice([0.0, 0.0, 1e12, 3.5], number),
        "ads_before": rng.integers(0, 5, number) * int(rng.random() < 0.7),
    }
    advertisers = pd.DataFrame(
        {
            "advertiser_id": [f"adv-{i:02d}" for i in range(number)],
            "arm": rng.choice(["control", "treatment"], number, p=[0.5, 0.5] if rng.random() < 0.8 else [0.9, 0.1]),
            **{name: values for name, values in covariates.items() if rng.random() < 0.5},
        }
    )
    rows = advertisers.loc[advertisers.index.repeat(days)].reset_index(drop=True)
    if days > 1:
        rows["day"] = pd.Timestamp("2026-01-05") + pd.to_timedelta(np.tile(np.arange(days), number), "D")
        rows = rows[rng.random(len(rows)) < rng.choice([0.3, 0.7, 1.0])].reset_index(drop=True)
    few_or_many = rng.choice([0, 1, 10, 1000, 10**6], len(rows))
    alike = rng.geometric(1 / rng.choice([2, 50, 3000]), len(rows))
    impressions = few_or_many if rng.random() < 0.4 else alike
    ads = rng.integers(0, 3, len(rows))
    outcomes = {
        "ads": ads,
        "variations": ads * rng.integers(0, 4, len(rows)),
        "spend": rng.choice([0, 1e-9, 12.5, 1e9], len(rows)),
    }
    clicks = rng.binomial(impressions, rng.choice([0, 0.001, 0.03, 0.5, 1.0], p=[0.1, 0.2, 0.4, 0.2, 0.1]))
    kept = {name: values for name, values in outcomes.items() if rng.random() < 0.5}
    return rows.assign(impressions=impressions, clicks=clicks, **kept)


def spec_of(rows: pd.DataFrame) -> ExperimentSpec:
    return ExperimentSpec(date="day" if "day" in rows else None)


def design_of(frame: pd.DataFrame) -> Design:
    loaded = load_experiment(frame)
    return build_design(with_exposure(loaded.advertisers), loaded.covariates)
