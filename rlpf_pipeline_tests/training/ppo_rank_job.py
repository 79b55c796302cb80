"""Runs the tiny PPO on as many ranks as it was started with, for the test that compares what comes out."""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from rlpf_pipeline.settings import LoraSettings
from rlpf_pipeline.training.reporter import Reporter
from rlpf_pipeline_tests.training.tiny_ppo import likes_letter, tiny_trainer

cache, output = Path(sys.argv[1]), Path(sys.argv[2])
torch.set_num_threads(1)
trainer = tiny_trainer(
    cache,
    judge=likes_letter("a"),
    lora=LoraSettings(top_layers=2),
    steps=4,
    epochs=2,
    minibatches=2,
    tokens_per_forward=60,
    judge_every=2,
    patience=9,
    kl_target=0.05,
    normalize_rewards=True,
    critic="reward-model",
    critic_states="own",
    beginning_tokens=2,
    entropy_coefficient=0.01,
    temperature=0.5,
    learning_rate=1e-3,
)
start = trainer.learner.adapter
while not trainer.finished:
    trainer.advance(Reporter("test"))
if trainer.accelerate.is_main_process:
    _, head, critic = (flat.detach() for flat in trainer.learner.masters.flat)
    save_file({"moved": trainer.learner.adapter - start, "head": head, "critic": critic}, output)
    ranks = trainer.accelerate.num_processes
    figures = [trainer.history, trainer.curve, trainer.kl_coefficient, trainer.moments, trainer.trust]
    output.with_suffix(".json").write_text(json.dumps({"ranks": ranks, "figures": figures}))
