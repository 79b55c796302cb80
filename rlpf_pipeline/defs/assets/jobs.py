"""An asset whose work is a training or evaluation job: inputs, group, code and module come from the table of stages."""

from collections.abc import Mapping

import dagster as dg

from rlpf_pipeline.defs.metadata import result_of
from rlpf_pipeline.defs.resources import PipelineSettings, TrainingLauncher
from rlpf_pipeline.defs.stages import STAGES
from rlpf_pipeline.digests import source_digest


def job_asset(
    name: str, description: str, kinds: set[str], metadata: Mapping[str, object] | None = None
) -> dg.AssetsDefinition:
    """The asset of stage `name`."""
    stage = STAGES[name]

    @dg.asset(
        name=name,
        deps=list(stage.inputs),
        group_name=stage.group,
        description=description,
        owners=["team:ml"],
        kinds=kinds,
        tags={"layer": "model" if stage.folder.startswith("models/") else stage.group},
        metadata=metadata,
        code_version=source_digest(*stage.code),
    )
    def run_job(
        context: dg.AssetExecutionContext, pipeline: PipelineSettings, launcher: TrainingLauncher
    ) -> dg.MaterializeResult:
        settings = pipeline.load()
        return result_of(launcher.build(context, settings, name), settings)

    return run_job
