"""Group `experiment`: the randomised comparison of AdLlama with imitation v2, and its report."""

from collections.abc import Iterator

import dagster as dg

from rlpf_pipeline import contracts
from rlpf_pipeline.defs import steps
from rlpf_pipeline.defs.assets.evaluation import policy_evaluation
from rlpf_pipeline.defs.metadata import described, result_of
from rlpf_pipeline.defs.resources import PipelineSettings
from rlpf_pipeline.defs.stages import STAGES
from rlpf_pipeline.digests import source_digest

OWNERS = ["team:analytics"]


@dg.asset(
    deps=[policy_evaluation],
    group_name="experiment",
    owners=OWNERS,
    kinds={"parquet"},
    tags={"layer": "experiment"},
    metadata=described(contracts.EXPERIMENT_ADVERTISERS),
    code_version=source_digest(*STAGES["ab_experiment"].code),
    output_required=False,
)
def ab_experiment(context: dg.AssetExecutionContext, pipeline: PipelineSettings) -> Iterator[dg.MaterializeResult]:
    """Advertisers randomised between imitation v2 and AdLlama on the simulated market, totals over the experiment.

    Skipped where the ads are real: no click truth is planted there, so an experiment cannot be simulated.
    """
    settings = pipeline.load()
    if not settings.has_planted_truth:
        context.log.warning(steps.NO_EXPERIMENT)
        return
    yield result_of(steps.ab_experiment(settings), settings)


@dg.asset(
    deps=[ab_experiment],
    group_name="experiment",
    owners=OWNERS,
    kinds={"python", "html"},
    tags={"layer": "report"},
    code_version=source_digest(*STAGES["ab_report"].code),
)
def ab_report(pipeline: PipelineSettings) -> dg.MaterializeResult:
    """The A/B report: relative risk of CTR with the advertiser-level sandwich, validity checks, robustness models."""
    settings = pipeline.load()
    return result_of(steps.ab_report(settings), settings)
