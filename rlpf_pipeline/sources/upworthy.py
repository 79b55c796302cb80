"""The Upworthy Research Archive (Matias et al. 2021, Scientific Data 8:195): headline tests of 2013-2015, CC BY 4.0.

An ad is what a test's arms share beside the headline: test, image, lede and excerpt. Columns of the archive's CSV files
that are not required here are ignored.
"""

from rlpf_pipeline.sources.source_format import SourceFormat, one_of

COLUMNS = ("clickability_test_id", "eyecatcher_id", "headline", "lede", "excerpt", "impressions", "clicks", "test_week")

UPWORTHY = SourceFormat(
    "upworthy",
    "staging/stg_upworthy",
    required=lambda settings: tuple(one_of(column) for column in COLUMNS),
    parameters=lambda settings: {"keep_broken_randomisation": settings.keep_broken_randomisation},
)
