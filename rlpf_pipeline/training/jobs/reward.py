"""Train a reward model on one split of the snapshot.

    accelerate launch -m rlpf_pipeline.training.jobs.reward --config run.json

inputs: preference_snapshot.
options: split (train for the reward model, evaluation for the disjoint one),
objective where it is not that of the settings (the pointwise ablation). The validation split picks the epoch and, where
that is solved heads, is learned from too (reward.refit), but not by the evaluation reward model. With several adapters
(reward.adapters) each is trained as a member of its own and kept until all are there. A run that was killed goes on
from its last checkpoint.
"""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
from accelerate.utils import set_seed

from rlpf_pipeline.artifacts import Metrics, is_current, publish, read_manifest
from rlpf_pipeline.digests import digest_of
from rlpf_pipeline.models.frozen_layers import StateFile
from rlpf_pipeline.models.reward_folders import average_members, join_members, require_same_scores, save_reward_model
from rlpf_pipeline.models.reward_model import new_reward_model
from rlpf_pipeline.settings import MOST_SEED
from rlpf_pipeline.training.checkpoints import Checkpoints
from rlpf_pipeline.training.job import run_job
from rlpf_pipeline.training.reporter import Reporter
from rlpf_pipeline.training.reward_trainer import train_reward_model
from rlpf_pipeline.training.run_config import RunConfig
from rlpf_pipeline.training.snapshot import read_ads, read_needed_ads

CHECKED_ADS = 16


def work(config: RunConfig, folder: Path, reporter: Reporter) -> Metrics:
    settings, snapshot = config.settings, config.inputs["preference_snapshot"]
    ads, validation = read_needed_ads(snapshot, config.options["split"]), read_ads(snapshot, "validation")
    objective = config.options.get("objective", settings.reward.objective)
    refit = settings.reward.refit and config.options["split"] != "evaluation"
    reward = settings.reward.model_copy(update={"objective": objective, "refit": refit})
    pairs = sum(len(ad.left) for ad in ads)
    reporter.say(f"{len(ads)} ads, {pairs} pairs of split '{config.options['split']}', base {settings.base.name}")
    beside, is_main = config.output.with_name, os.environ.get("RANK", "0") == "0"
    members = [beside(f".{config.output.name}.member-{number + 1}") for number in range(reward.adapters)]
    checkpoints = beside(f".{config.output.name}.checkpoint")
    scratch = beside(f".{config.output.name}.states-{os.environ.get('RANK', '0')}")
    with StateFile(scratch, int(reward.frozen_states_gb * 1e9)) as states:
        for number, member in enumerate(members):
            if is_current(member, config.recipe):
                continue
            if len(members) > 1:
                reporter.say(f"adapter {number + 1} of {len(members)}")
            seed = seed_of(settings.seed, config.recipe.stage, number)
            set_seed(seed)
            model = new_reward_model(settings.base, reward, reward.lora, config.recipe.stage, settings.cache)
            resumable = Checkpoints(checkpoints, digest_of([config.recipe.model_dump(), number]))
            figures = train_reward_model(model, ads, reward, seed, reporter, states, validation, resumable)
            if is_main:
                with publish(member, config.recipe) as (building, metrics):
                    save_reward_model(model, building)
                    checked = [(ad.context, ad.texts) for ad in ads[:CHECKED_ADS]]
                    require_same_scores(building, model, checked, settings.cache)
                    metrics |= figures
    if not is_main:
        return {}
    join = average_members if len(members) == 1 or reward.average_adapters else join_members
    join(members, folder)
    trained = [manifest.metrics for member in members if (manifest := read_manifest(member))]
    return {"ads": len(ads), "pairs": pairs, **pd.DataFrame(trained).mean().to_dict()}


def seed_of(seed: int, stage: str, member: int) -> int:
    """Of the run's seed, another for each model: heads drawn alike are of one mind where their ads say nothing, and the
    evaluation reward model would be sure of the same texts as the one that PPO is rewarded by."""
    return int(digest_of([seed, stage, member]), 16) % MOST_SEED


if __name__ == "__main__":
    run_job(work)
