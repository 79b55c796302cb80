"""Simulated experiments of the study's shape: 34,849 advertisers, heavy-tailed impressions, a planted relative risk.

Impressions are log-normal with standard deviation 1.7 of the log and advertisers' CTRs differ by 0.8 of the log, which
gives the study's standard error of 0.03. Covariates tell part of an advertiser's CTR.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from rlpf_pipeline.warehouse import connect

ADVERTISERS = 34_849
RELATIVE_RISK = 1.067
BASE_CTR = 0.031
IMPRESSIONS_SIGMA = 1.7
CTR_SIGMA = 0.8
NOISE_OF_PAST = 0.8
FORMULA = (
    "~ treatment + log_lifetime_ctr + new_advertiser + log_ads_before + C(industry) + C(expertise) + C(budget)"
    " + business_account + account_age_years"
)
INDUSTRIES = np.array(["apparel", "beauty", "books", "finance", "fitness", "food", "games", "home", "retail", "travel"])

Floats = npt.NDArray[np.float64]


def advertisers(
    number: int,
    rng: np.random.Generator,
    relative_risk: float = RELATIVE_RISK,
    impressions_sigma: float = IMPRESSIONS_SIGMA,
) -> pd.DataFrame:
    """One row per advertiser, columns of contracts.EXPERIMENT_ADVERTISERS, and its true `ctr`."""
    treated = rng.permutation(number) % 2 == 1
    effect = rng.normal(-(CTR_SIGMA**2) / 2, CTR_SIGMA, number)
    new = rng.random(number) < 0.15
    past = np.where(new, 0.0, BASE_CTR * np.exp(effect + rng.normal(0, NOISE_OF_PAST, number)))
    impressions = np.ceil(np.exp(rng.normal(8.0, impressions_sigma, number)))
    ctr = np.minimum(BASE_CTR * np.exp(effect + np.log(relative_risk) * treated), 0.5)
    ads = 1 + rng.poisson(4.0, number)
    return pd.DataFrame(
        {
            "advertiser_id": np.char.add("adv-", np.arange(number).astype(str)),
            "arm": np.where(treated, "treatment", "control"),
            "treatment": treated.astype(float),
            "impressions": impressions,
            "clicks": rng.binomial(impressions.astype(np.int64), ctr).astype(float),
            "ads": ads,
            "variations": 3 * ads + rng.poisson(np.where(treated, 4.9, 1.8)),
            "spend": np.round(impressions * 0.012 * rng.gamma(8.0, 1 / 8, number), 2),
            "lifetime_ctr": past,
            "log_lifetime_ctr": np.log(past + 0.001),
            "new_advertiser": new,
            "ads_before": np.where(new, 0, 1 + rng.poisson(8.0, number)),
            "industry": rng.choice(INDUSTRIES, number),
            "expertise": rng.choice(["novice", "intermediate", "expert"], number, p=[0.5, 0.35, 0.15]),
            "budget": rng.choice(["low", "medium", "high"], number, p=[0.5, 0.35, 0.15]),
            "business_account": rng.random(number) < 0.6,
            "account_age_years": np.round(rng.gamma(2.0, 1.6, number), 2),
            "ctr": ctr,
        }
    ).assign(log_ads_before=lambda frame: np.log1p(frame["ads_before"]))


def write_panel(path: Path, number: int, days: int) -> int:
    """Parquet of one row per advertiser and day; returns the rows.

    An advertiser has busy and idle weeks, and weeks with a better and a worse CTR. Clicks of a row have the mean and
    the variance of a Poisson number.
    """
    frame = advertisers(number, np.random.default_rng(1))
    constant = "advertiser_id, arm, lifetime_ctr, new_advertiser, ads_before, industry, expertise, budget"
    with connect(config={"memory_limit": "2GB", "preserve_insertion_order": False}) as connection:
        connection.register("advertisers", frame)
        connection.execute(
            f"""COPY (
                SELECT {constant}, business_account, account_age_years, day, impressions,
                    least(impressions, greatest(0, round(mean + sqrt(mean) * noise)))::BIGINT AS clicks,
                    CASE WHEN day = $first::DATE THEN ads ELSE 0 END AS ads,
                    CASE WHEN day = $first::DATE THEN variations ELSE 0 END AS variations,
                    spend / $days AS spend
                FROM (
                    SELECT *, ($first::DATE + number::INTEGER) AS day,
                        ceil(total / $days * 2 * busy)::BIGINT AS impressions,
                        ceil(total / $days * 2 * busy) * least(ctr * exp(1.2 * (mood - 0.5)), 0.5) AS mean,
                        sqrt(12) * ((hash(advertiser_id, number) % 1000003) / 1000003 - 0.5) AS noise
                    FROM (
                        SELECT * RENAME (impressions AS total),
                            (hash(advertiser_id, number // 7, 'busy') % 1000003) / 1000003 AS busy,
                            (hash(advertiser_id, number // 7, 'mood') % 1000003) / 1000003 AS mood
                        FROM advertisers, range($days) AS days(number)
                    )
                )
            ) TO $path (FORMAT parquet)""",  # noqa: S608 (column names of our own)
            {"days": days, "path": str(path), "first": "2024-02-16"},
        )
    return number * days
