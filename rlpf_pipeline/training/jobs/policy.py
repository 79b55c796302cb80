"""Train AdLlama by PPO from imitation v2 against the reward model.

    accelerate launch -m rlpf_pipeline.training.jobs.policy --config run.json

inputs: preference_snapshot, imitation_v2, reward_model.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from rlpf_pipeline.models.adapters import ModelCard, attach_lora, load_policy, save_model
from rlpf_pipeline.models.reward_model import load_reward_model
from rlpf_pipeline.training.curves import plot_history
from rlpf_pipeline.training.job import Metrics, accelerator, run_job
from rlpf_pipeline.training.ppo_trainer import PPOTrainer
from rlpf_pipeline.training.prompts import make_prompt
from rlpf_pipeline.training.reporter import Reporter
from rlpf_pipeline.training.run_config import RunConfig
from rlpf_pipeline.training.snapshot import read_ads


def work(config: RunConfig, folder: Path, reporter: Reporter) -> Metrics:
    settings, device = config.settings, accelerator().device
    start = config.inputs["imitation_v2"]
    reference, tokenizer = load_policy(start, settings.cache)
    reward_model = load_reward_model(config.inputs["reward_model"], settings.cache).to(device)
    policy = attach_lora(reference.to(device), settings.policy.lora)
    prompts = [make_prompt(tokenizer, ad) for ad in read_ads(config.inputs["preference_snapshot"], "train")]
    reporter.say(f"{len(prompts)} prompts, {settings.policy.steps} steps")
    reporter.phase()
    trainer = PPOTrainer(policy, tokenizer, reward_model, settings.policy, settings.seed)
    history = trainer.train(prompts, reporter)

    card = ModelCard.read(start)
    card = card.model_copy(update={"adapters": [*card.adapters, config.recipe.stage]})
    save_model(folder, card, policy, tokenizer, below=start)
    pd.DataFrame(history).to_parquet(folder / "history.parquet", index=False)
    plot_history(history, folder / "history.svg")
    return {name: history[-1][name] for name in ("reward", "kl", "tokens", "finished", "distinct")}


if __name__ == "__main__":
    run_job(work)
