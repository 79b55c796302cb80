"""Planning from the past: what an experiment on advertisers like these would be able to see."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rlpf_pipeline.abtest.power import Past, past_of
from rlpf_pipeline.abtest.spec import ExperimentSpec
from rlpf_pipeline.abtest.tables import DATABASES, open_source, readable_to_its_end
from rlpf_pipeline.errors import UserError
from rlpf_pipeline.warehouse import connect

WRONG_ROWS = """
SELECT count(*) OVER (), advertiser_id, impressions, clicks
FROM source
WHERE (
    advertiser_id IS NOT NULL
    AND isfinite(TRY_CAST(impressions AS DOUBLE)) AND isfinite(TRY_CAST(clicks AS DOUBLE))
    AND TRY_CAST(clicks AS DOUBLE) BETWEEN 0 AND TRY_CAST(impressions AS DOUBLE)
) IS NOT TRUE
ORDER BY ALL
LIMIT 1
"""
PRE_PERIOD = """
SELECT sum(impressions::DOUBLE) AS impressions, sum(clicks::DOUBLE) AS clicks
FROM source GROUP BY advertiser_id ORDER BY advertiser_id
"""


def planned_from(path: Path, treatment_share: float = 0.5) -> Past:
    """What advertiser_id, impressions and clicks say of an experiment.

    path: a CSV or Parquet file. Raises UserError for another, where a column is absent, and for a row whose counts are
    no numbers, or which has more clicks than impressions.
    """
    if not 0 < treatment_share < 1:
        raise UserError("The treatment share lies between 0 and 1.")
    if path.suffix in DATABASES:
        raise UserError(
            f"{path} is a DuckDB file. A plan is made from CSV or Parquet: export the table to one of them."
        )
    with connect() as connection, readable_to_its_end():
        columns = [name for name, _ in open_source(connection, path, ExperimentSpec(), None)]
        absent = [name for name in ("advertiser_id", "impressions", "clicks") if name not in columns]
        if absent:
            raise UserError(f"The table has no column {', '.join(absent)}. It has: {', '.join(columns)}. Rename them.")
        wrong = connection.sql(WRONG_ROWS).fetchall()
        if wrong:
            number, advertiser, impressions, clicks = wrong[0]
            raise UserError(
                f"{number} row(s) without an advertiser_id, with counts that are no numbers or negative, or with more "
                f"clicks than impressions; for example advertiser {advertiser}: impressions {impressions}, clicks "
                f"{clicks}. Correct them or leave them out."
            )
        totals = connection.sql(PRE_PERIOD).fetchnumpy()
    clicks, impressions = (np.asarray(totals[name], dtype=np.float64) for name in ("clicks", "impressions"))
    return past_of(clicks, impressions, treatment_share)
