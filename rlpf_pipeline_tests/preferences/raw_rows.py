"""Raw multitext ads made by code, for the tests of the warehouse and the preferences."""

import pyarrow as pa

from rlpf_pipeline.arrow_tables import arrow_schema
from rlpf_pipeline.contracts import RAW_MULTITEXT_ADS

SCHEMA = arrow_schema(RAW_MULTITEXT_ADS)


def raw_row(ad_id, variant_id, text, impressions, clicks, advertiser_id=None, period=None):
    return {
        "source": "test",
        "ad_id": ad_id,
        "advertiser_id": advertiser_id,
        "context": None,
        "variant_id": variant_id,
        "text": text,
        "impressions": impressions,
        "clicks": clicks,
        "period": period,
    }


def raw_table(ads, variants=2):
    """`ads` ads of one advertiser each, so that every ad is a cluster, each with `variants` texts."""
    rows = [
        raw_row(f"ad{ad}", f"v{v}", f"ad{ad} {v}", 1000 + 500 * v + ad, 10 + (ad + 3 * v) % 7, f"advertiser{ad}")
        for ad in range(ads)
        for v in range(variants)
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)
