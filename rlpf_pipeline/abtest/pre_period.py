"""Planning from the past: what an experiment on advertisers like these would be able to see."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np

from rlpf_pipeline.abtest.panel import open_source
from rlpf_pipeline.abtest.power import expected_error
from rlpf_pipeline.abtest.spec import ExperimentSpec
from rlpf_pipeline.errors import UserError

PRE_PERIOD = """
SELECT sum(TRY_CAST(impressions AS DOUBLE)) AS impressions, sum(TRY_CAST(clicks AS DOUBLE)) AS clicks
FROM source GROUP BY advertiser_id ORDER BY advertiser_id
"""


def planned_from(path: Path, treatment_share: float = 0.5) -> tuple[float, int]:
    """Standard error of the log relative risk and number of advertisers, from advertiser_id, impressions, clicks.

    Raises UserError where a column is absent, a count is no number, or clicks exceed impressions.
    """
    if not 0 < treatment_share < 1:
        raise UserError("The treatment share lies between 0 and 1.")
    with duckdb.connect() as connection:
        columns = [name for name, _ in open_source(connection, path, ExperimentSpec(), None)]
        absent = [name for name in ("advertiser_id", "impressions", "clicks") if name not in columns]
        if absent:
            raise UserError(f"The table has no column {', '.join(absent)}. It has: {', '.join(columns)}.")
        totals = connection.sql(PRE_PERIOD).fetchnumpy()
    impressions, clicks = (np.ma.filled(totals[name].astype(float), np.nan) for name in ("impressions", "clicks"))
    if not (np.isfinite(impressions) & np.isfinite(clicks) & (clicks >= 0) & (clicks <= impressions)).all():
        raise UserError("Clicks or impressions are no numbers, negative, or more clicks than impressions.")
    return expected_error(clicks, impressions, treatment_share), int((impressions > 0).sum())
