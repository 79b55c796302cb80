"""Every definition of the pipeline, wired on one page.

    dagster definitions validate -m rlpf_pipeline.definitions

Loading it imports no torch, transformers, trl or mlflow: every Dagster process pays for what is imported here.
"""

import dagster as dg

from rlpf_pipeline.defs.assets import data, evaluation, experiment, models
from rlpf_pipeline.defs.automation import rlpf_job, weekly_retraining
from rlpf_pipeline.defs.checks import all_checks
from rlpf_pipeline.defs.resources import PipelineSettings, TrainingLauncher

defs = dg.Definitions(
    assets=[
        data.raw_multitext_ads,
        data.variant_performance,
        data.preference_pairs,
        data.preference_snapshot,
        models.curated_examples,
        models.imitation_v1,
        models.imitation_v2,
        models.reward_model,
        models.evaluation_reward_model,
        models.pointwise_reward_model,
        models.adllama,
        evaluation.imitation_evaluation,
        evaluation.reward_model_evaluation,
        evaluation.policy_evaluation,
        experiment.ab_experiment,
        experiment.ab_report,
    ],
    asset_checks=all_checks(),
    jobs=[rlpf_job],
    schedules=[weekly_retraining],
    resources={"pipeline": PipelineSettings(), "launcher": TrainingLauncher()},
    executor=dg.multiprocess_executor.configured({"max_concurrent": 1}),
)
