"""Train a reward model on one split of the snapshot.

    accelerate launch -m rlpf_pipeline.training.jobs.reward --config run.json

inputs: preference_snapshot.
options: split (train for the reward model, evaluation for the disjoint one),
objective where it is not that of the settings (the pointwise ablation). The validation split picks the epoch. A run
that was killed goes on from its last checkpoint.
"""

from __future__ import annotations

import os
from pathlib import Path

from rlpf_pipeline.artifacts import digest_of
from rlpf_pipeline.models.frozen_layers import StateFile
from rlpf_pipeline.models.reward_model import new_reward_model, save_reward_model
from rlpf_pipeline.training.checkpoints import Checkpoints
from rlpf_pipeline.training.job import Metrics, run_job
from rlpf_pipeline.training.reporter import Reporter
from rlpf_pipeline.training.reward_trainer import train_reward_model
from rlpf_pipeline.training.run_config import RunConfig
from rlpf_pipeline.training.snapshot import read_ads


def work(config: RunConfig, folder: Path, reporter: Reporter) -> Metrics:
    settings = config.settings
    snapshot = config.inputs["preference_snapshot"]
    ads, validation = read_ads(snapshot, config.options["split"]), read_ads(snapshot, "validation")
    objective = config.options.get("objective", settings.reward.objective)
    reward = settings.reward.model_copy(update={"objective": objective})
    pairs = sum(len(ad.left) for ad in ads)
    reporter.say(f"{len(ads)} ads, {pairs} pairs of split '{config.options['split']}', base {settings.base.name}")
    model = new_reward_model(settings.base, reward, reward.lora, config.recipe.stage, settings.cache)
    beside = config.output.with_name
    checkpoints = Checkpoints(beside(f".{config.output.name}.checkpoint"), digest_of(config.recipe.model_dump()))
    scratch = beside(f".{config.output.name}.states-{os.environ.get('RANK', '0')}")
    with StateFile(scratch, int(reward.frozen_states_gb * 1e9)) as states:
        metrics = train_reward_model(model, ads, reward, settings.seed, reporter, states, validation, checkpoints)
    save_reward_model(model, folder)
    if os.environ.get("RANK", "0") == "0":
        checkpoints.remove()
    return {"ads": len(ads), "pairs": pairs, **metrics}


if __name__ == "__main__":
    run_job(work)
