"""Models for trl's trainers in `bench_ppo.py`: the case's base with its own dtype, LoRA on the same layers."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import LoraConfig
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from benchmarks.ppo_case import Case
from rlpf_pipeline.models.adapters import lora_config
from rlpf_pipeline.models.base import compute_dtype, load_tokenizer, resolve


def policy_lora(model: PreTrainedModel, case: Case) -> LoraConfig:
    """As ours, for a model that generates."""
    config = lora_config(model, case.lora)
    config.task_type = "CAUSAL_LM"
    return config


def random_scorer(case: Case, cache: Path, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """A sequence classifier of one label on the base, its head random."""
    torch.manual_seed(case.seed)
    model = AutoModelForSequenceClassification.from_pretrained(
        resolve(case.base, cache), num_labels=1, dtype=compute_dtype(case.base)
    )
    model.config.pad_token_id = tokenizer.pad_token_id
    return model


def left_padding_tokenizer(case: Case, cache: Path) -> PreTrainedTokenizerBase:
    """As both trainers want it for decoding."""
    tokenizer = load_tokenizer(case.base, cache)
    tokenizer.padding_side = "left"
    return tokenizer
