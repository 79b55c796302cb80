"""Trains the tiny reward model on as many ranks as it was started with, for the test that compares their numbers."""

import os
import sys
from pathlib import Path

import torch

from rlpf_pipeline.models.frozen_layers import StateFile
from rlpf_pipeline.models.reward_folders import save_reward_model
from rlpf_pipeline.models.reward_model import new_reward_model
from rlpf_pipeline.settings import LoraSettings, RewardSettings
from rlpf_pipeline.training.reporter import Reporter
from rlpf_pipeline.training.reward_trainer import train_reward_model
from rlpf_pipeline_tests.conftest import TINY
from rlpf_pipeline_tests.training.reward_ads import make_ads

cache, output, rank = Path(sys.argv[1]), Path(sys.argv[2]), os.environ["RANK"]
torch.manual_seed(0)
torch.set_num_threads(1)
settings = RewardSettings(
    tokens_per_batch=400,
    tokens_per_forward=80,
    epochs=2,
    lora=LoraSettings(top_layers=2),
    solve_heads=sys.argv[3] == "solved",
)
model = new_reward_model(TINY, settings, settings.lora, "reward_model", cache)
with StateFile(output / f"states-{rank}", 10**8) as states:
    train_reward_model(model, make_ads(30, seed=1), settings, 7, Reporter("test"), states, make_ads(10, seed=2))
if rank == "0":
    save_reward_model(model, output)
