"""Trains the tiny imitation model on as many ranks as it was started with, for the test that compares them."""

import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from rlpf_pipeline.models.adapters import attach_lora
from rlpf_pipeline.models.base import load_causal_lm, load_tokenizer
from rlpf_pipeline.settings import ImitationSettings
from rlpf_pipeline.training.imitation_trainer import train_imitation
from rlpf_pipeline.training.reporter import Reporter
from rlpf_pipeline_tests.conftest import TINY
from rlpf_pipeline_tests.training.reward_ads import make_ads

cache, output = Path(sys.argv[1]), Path(sys.argv[2])
torch.manual_seed(0)
torch.set_num_threads(1)
settings = ImitationSettings(batch_size=4, epochs=2, learning_rate=1e-3)
model = attach_lora(load_causal_lm(TINY, cache), settings.lora)
examples = [(ad.texts[0], ad.texts[1]) for ad in make_ads(16, seed=1)]
train_imitation(model, load_tokenizer(TINY, cache), examples, settings, 7, Reporter("test"))
if os.environ.get("RANK", "0") == "0":
    save_file({n: p.detach().contiguous() for n, p in model.named_parameters() if p.requires_grad}, output)
