"""Train a reward model on one split of the snapshot.

    accelerate launch -m rlpf_pipeline.training.jobs.reward --config run.json

inputs: preference_snapshot. options: split (train for the reward model, evaluation for the disjoint one).
"""

from __future__ import annotations

from pathlib import Path

from rlpf_pipeline.models.reward_model import new_reward_model, save_reward_model
from rlpf_pipeline.training.job import Metrics, run_job
from rlpf_pipeline.training.reporter import Reporter
from rlpf_pipeline.training.reward_trainer import train_reward_model
from rlpf_pipeline.training.run_config import RunConfig
from rlpf_pipeline.training.snapshot import read_ads


def work(config: RunConfig, folder: Path, reporter: Reporter) -> Metrics:
    settings = config.settings
    ads = read_ads(config.inputs["preference_snapshot"], config.options["split"])
    pairs = sum(len(ad.left) for ad in ads)
    reporter.say(f"{len(ads)} ads, {pairs} pairs of split '{config.options['split']}', base {settings.base.name}")
    model = new_reward_model(settings.base, settings.reward, settings.reward.lora, config.recipe.stage, settings.cache)
    metrics = train_reward_model(model, ads, settings.reward, settings.seed, reporter)
    save_reward_model(model, folder)
    return {"ads": len(ads), "pairs": pairs, **metrics}


if __name__ == "__main__":
    run_job(work)
