"""Train AdLlama by PPO from imitation v2 against the reward model; the evaluation reward model picks the policy.

    accelerate launch -m rlpf_pipeline.training.jobs.policy --config run.json

inputs: preference_snapshot, imitation_v2, reward_model, evaluation_reward_model (judges on originals of the validation
split, never optimised against). A run that was killed goes on from its last checkpoint.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from rlpf_pipeline.artifacts import digest_of
from rlpf_pipeline.models.adapters import ModelCard, attach_lora, load_policy, save_model
from rlpf_pipeline.models.reward_folders import load_reward_model
from rlpf_pipeline.training.checkpoints import Checkpoints
from rlpf_pipeline.training.curves import plot_curve, plot_history
from rlpf_pipeline.training.job import Metrics, accelerator, run_job
from rlpf_pipeline.training.ppo_trainer import Judges, PPOTrainer
from rlpf_pipeline.training.prompts import make_prompt
from rlpf_pipeline.training.reporter import Reporter
from rlpf_pipeline.training.run_config import RunConfig
from rlpf_pipeline.training.snapshot import read_ads, shuffled


def work(config: RunConfig, folder: Path, reporter: Reporter) -> Metrics:
    settings, device = config.settings, accelerator().device
    start, snapshot = config.inputs["imitation_v2"], config.inputs["preference_snapshot"]
    reference, tokenizer = load_policy(start, settings.cache)
    policy = attach_lora(reference.to(device), settings.policy.lora)
    reward_model, evaluation_model = (
        load_reward_model(config.inputs[name], settings.cache).to(device)
        for name in ("reward_model", "evaluation_reward_model")
    )
    prompts = [make_prompt(tokenizer, ad) for ad in read_ads(snapshot, "train")]
    held_out = shuffled(read_ads(snapshot, "validation"), settings.seed)[: settings.policy.judge_prompts]
    reporter.say(f"{len(prompts)} prompts, {settings.policy.steps} steps, judged on {len(held_out)} other originals")
    judges = Judges(evaluation_model, [make_prompt(tokenizer, ad) for ad in held_out]) if held_out else None
    trainer = PPOTrainer(policy, tokenizer, reward_model, prompts, settings.policy, settings.seed, judges)
    checkpoints = Checkpoints(
        config.output.with_name(f".{config.output.name}.checkpoint"), digest_of(config.recipe.model_dump())
    )
    reporter.phase()
    trainer.train(reporter, checkpoints)

    card = ModelCard.read(start)
    card = card.model_copy(update={"adapters": [*card.adapters, config.recipe.stage]})
    save_model(folder, card, policy, tokenizer, below=start)
    pd.DataFrame(trainer.history).to_parquet(folder / "history.parquet", index=False)
    plot_history(trainer.history, folder / "history.svg")
    if trainer.curve:
        pd.DataFrame(trainer.curve).to_parquet(folder / "curve.parquet", index=False)
        plot_curve(trainer.curve, int(trainer.chosen()["step"]), folder / "curve.svg")
    return {"steps_done": trainer.step, **{f"chosen_{k}": v for k, v in trainer.chosen().items() if k in SHOWN}}


SHOWN = ("step", "reward", "evaluation_reward", "kl", "tokens", "finished", "distinct")


if __name__ == "__main__":
    run_job(work)
