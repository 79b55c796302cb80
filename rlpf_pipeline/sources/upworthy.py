"""The Upworthy Research Archive (Matias et al. 2021, Scientific Data 8:195): headline tests of 2013-2015, CC BY 4.0.

An ad is what a test's arms share beside the headline: test, image, lede and excerpt. Columns of the archive's CSV files
that are not required here are ignored.
"""

from rlpf_pipeline.sources.source_format import SourceFormat

UPWORTHY = SourceFormat(
    "upworthy",
    ("clickability_test_id", "eyecatcher_id", "headline", "lede", "excerpt", "impressions", "clicks", "test_week"),
    "staging/stg_upworthy",
)
