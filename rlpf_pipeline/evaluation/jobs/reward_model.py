"""Evaluate the reward model and the evaluation reward model on the test split.

    accelerate launch -m rlpf_pipeline.evaluation.jobs.reward_model --config run.json

inputs: preference_snapshot, reward_model, evaluation_reward_model.
"""

from __future__ import annotations

import math
from pathlib import Path

from rlpf_pipeline.evaluation.reward_model import score_pairs, summarise
from rlpf_pipeline.models.reward_model import load_reward_model
from rlpf_pipeline.preferences.noise_ceiling import noise_ceiling
from rlpf_pipeline.training.job import Metrics, accelerator, run_job
from rlpf_pipeline.training.reporter import Reporter
from rlpf_pipeline.training.run_config import RunConfig
from rlpf_pipeline.training.snapshot import read_ads

MODELS = {"reward_model": "", "evaluation_reward_model": "evaluation_"}


def work(config: RunConfig, folder: Path, reporter: Reporter) -> Metrics:
    settings, device = config.settings, accelerator().device
    ads = read_ads(config.inputs["preference_snapshot"], "test")
    metrics: Metrics = {}
    for done, (name, prefix) in enumerate(MODELS.items(), start=1):
        model = load_reward_model(config.inputs[name], settings.cache).to(device)
        pairs = score_pairs(model, ads)
        pairs.to_parquet(folder / f"{name}.parquet", index=False)
        figures = summarise(pairs)
        metrics |= {prefix + key: value for key, value in figures.items() if math.isfinite(value)}
        reporter.progress(done, len(MODELS), "models", accuracy=figures["accuracy"])
    return metrics | {"ads": len(ads), "noise_ceiling": float(noise_ceiling(pairs.p_left_better.to_numpy()))}


if __name__ == "__main__":
    run_job(work)
