"""Raw multitext ads made by code, for the tests of the warehouse and the preferences."""

import pyarrow as pa

from rlpf_pipeline.contracts import RAW_MULTITEXT_ADS

TYPES = {"VARCHAR": pa.string(), "BIGINT": pa.int64()}
SCHEMA = pa.schema([(column.name, TYPES[column.type]) for column in RAW_MULTITEXT_ADS.columns])


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


def raw_table(ads):
    """`ads` ads of one advertiser each with two texts, so that every ad is a cluster and makes one pair."""
    rows = []
    for number in range(ads):
        ad_id, advertiser = f"ad{number}", f"advertiser{number}"
        rows.append(raw_row(ad_id, "v0", f"{ad_id} 0", 1000 + number, 10 + number % 7, advertiser))
        rows.append(raw_row(ad_id, "v1", f"{ad_id} 1", 1500 - number, 12 + number % 5, advertiser))
    return pa.Table.from_pylist(rows, schema=SCHEMA)
