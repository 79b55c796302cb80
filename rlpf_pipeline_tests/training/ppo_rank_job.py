"""Runs the tiny PPO on as many ranks as it was started with, for the test that compares what comes out.

ppo_rank_job CACHE OUTPUT [NAME=VALUE of the settings]
"""

import json
import sys
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor

from rlpf_pipeline.models.adapters import layers_of
from rlpf_pipeline.settings import LoraSettings
from rlpf_pipeline.training.reporter import Reporter
from rlpf_pipeline_tests.training.tiny_ppo import likes_letter, tiny_trainer


def held(policy: PeftModel) -> float:
    """Share of the layers' frozen weights that this rank holds."""
    frozen = [weights for weights in layers_of(policy).parameters() if not weights.requires_grad]
    own = [weights.to_local() if isinstance(weights, DTensor) else weights for weights in frozen]
    return sum(map(torch.numel, own)) / sum(map(torch.numel, frozen))


cache, output = Path(sys.argv[1]), Path(sys.argv[2])
chosen = {"minibatches": "2"} | dict(setting.split("=") for setting in sys.argv[3:])
torch.set_num_threads(1)
trainer = tiny_trainer(
    cache,
    judge=likes_letter("a"),
    lora=LoraSettings(top_layers=2),
    steps=4,
    epochs=2,
    tokens_per_forward=60,
    judge_every=2,
    patience=9,
    kl_target=0.05,
    normalize_rewards=True,
    critic="reward-model",
    beginning_tokens=2,
    entropy_coefficient=0.01,
    temperature=0.5,
    learning_rate=1e-3,
    **chosen,
)
start = trainer.learner.adapter
while not trainer.finished:
    trainer.advance(Reporter("test"))
if trainer.accelerate.is_main_process:
    _, *critics = (flat.detach() for flat in trainer.learner.masters.flat)
    moved = {"moved": trainer.learner.adapter - start}
    save_file(moved | {f"critic{number}": flat for number, flat in enumerate(critics)}, output)
    figures = [trainer.history, trainer.curve, trainer.kl_coefficient, trainer.moments, trainer.trust]
    told = {"ranks": trainer.accelerate.num_processes, "figures": figures, "held": held(trainer.learner.actor.policy)}
    output.with_suffix(".json").write_text(json.dumps(told))
