"""An experiment with a planted relative risk: heavy-tailed impressions, advertisers whose CTRs differ."""

from __future__ import annotations

import numpy as np
import pandas as pd


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
