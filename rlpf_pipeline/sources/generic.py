"""Generic multitext ads: CSV, TSV, JSONL or Parquet whose columns are named like the raw table's.

Required: ad_id, text, impressions, clicks. Optional: variant_id, advertiser_id, context, period, source. Others are
ignored. What the columns mean is in `rlpf_pipeline.contracts.RAW_MULTITEXT_ADS`.
"""

from rlpf_pipeline.sources.source_format import SourceFormat

GENERIC = SourceFormat("generic", ("ad_id", "text", "impressions", "clicks"), "staging/stg_generic")
