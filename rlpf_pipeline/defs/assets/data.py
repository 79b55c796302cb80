"""Group `data`: from files or the simulated market to the snapshot that training reads."""

import dagster as dg

from rlpf_pipeline import contracts
from rlpf_pipeline.defs import steps
from rlpf_pipeline.defs.metadata import described, lineage, result_of
from rlpf_pipeline.defs.resources import PipelineSettings
from rlpf_pipeline.defs.stages import STAGES
from rlpf_pipeline.digests import source_digest

OWNERS = ["team:data"]


@dg.asset(
    group_name="data",
    owners=OWNERS,
    kinds={"parquet"},
    tags={"layer": "raw"},
    metadata=described(contracts.RAW_MULTITEXT_ADS),
    code_version=source_digest(*STAGES["raw_multitext_ads"].code),
)
def raw_multitext_ads(pipeline: PipelineSettings) -> dg.MaterializeResult:
    """Observed multitext ads: impressions and clicks of each text of an ad. From the user's files, or simulated.

    Refused rows lie beside it in rejects.parquet, each with its reason: read = accepted + rejected.
    """
    settings = pipeline.load()
    return result_of(steps.raw_multitext_ads(settings), settings)


@dg.asset(
    deps=[raw_multitext_ads],
    group_name="data",
    owners=OWNERS,
    kinds={"duckdb", "sql"},
    tags={"layer": "mart"},
    metadata=described(contracts.VARIANT_PERFORMANCE) | lineage("marts/variants"),
    code_version=source_digest(*STAGES["variant_performance"].code),
)
def variant_performance(pipeline: PipelineSettings) -> dg.MaterializeResult:
    """Impressions, clicks and CTR of each distinct text of an ad, and the split that its ad belongs to."""
    settings = pipeline.load()
    return result_of(steps.variant_performance(settings), settings)


@dg.asset(
    deps=[variant_performance],
    group_name="data",
    owners=OWNERS,
    kinds={"duckdb", "sql"},
    tags={"layer": "mart"},
    metadata=described(contracts.PREFERENCE_PAIRS) | lineage("marts/pairs"),
    code_version=source_digest(*STAGES["preference_pairs"].code),
)
def preference_pairs(pipeline: PipelineSettings) -> dg.MaterializeResult:
    """All pairs of texts of one ad, each with the posterior probability that the left one's CTR is the higher."""
    settings = pipeline.load()
    return result_of(steps.preference_pairs(settings), settings)


@dg.asset(
    deps=[preference_pairs],
    group_name="data",
    owners=OWNERS,
    kinds={"parquet"},
    tags={"layer": "snapshot"},
    code_version=source_digest(*STAGES["preference_snapshot"].code),
)
def preference_snapshot(pipeline: PipelineSettings) -> dg.MaterializeResult:
    """Ads, variants, pairs and their priors as Parquet, byte for byte reproducible: all that training reads."""
    settings = pipeline.load()
    return result_of(steps.preference_snapshot(settings), settings)
