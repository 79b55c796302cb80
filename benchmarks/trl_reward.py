"""trl's RewardTrainer on the same ads, for `bench_reward.py`: the pairs as chosen and rejected texts, hard labels.

Tuned means: gradient checkpointing off, texts grouped by length. What the defaults would spoil is set in both: a score
head that trains (task_type), and a pad token that is not the end of text.
"""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from datasets import Dataset, disable_progress_bars
from peft import LoraConfig
from transformers import AutoModelForSequenceClassification
from trl import RewardConfig, RewardTrainer

from rlpf_pipeline.models.adapters import TARGETS
from rlpf_pipeline.models.base import compute_dtype, load_tokenizer, resolve
from rlpf_pipeline.models.tokens import token_ids
from rlpf_pipeline.settings import BaseModelSettings, RewardSettings
from rlpf_pipeline.training.snapshot import Ad


def run_trl(
    tuned: bool, settings: RewardSettings, train: list[Ad], validation: list[Ad], base: BaseModelSettings, cache: Path
) -> dict[str, Any]:
    """Train, then score the validation ads: seconds, padding, and `scores` (texts,) per ad."""

    disable_progress_bars()
    tokenizer = load_tokenizer(base, cache)
    ids = token_ids(tokenizer, [t for ad in (*train, *validation) for t in (ad.context or "", *ad.texts)])

    def sequence(ad: Ad, text: str) -> list[int]:
        start = [tokenizer.bos_token_id, *ids[ad.context or ""][: settings.max_context_tokens]]
        return [*start, *ids[text][: settings.max_text_tokens], tokenizer.eos_token_id]

    rows = []
    for ad in train:
        for left, right, p in zip(ad.left, ad.right, ad.p_left_better, strict=True):
            better, worse = (left, right) if p > 0.5 else (right, left)
            rows.append({"chosen_ids": sequence(ad, ad.texts[better]), "rejected_ids": sequence(ad, ad.texts[worse])})
    for row in rows:
        row["length"] = max(len(row["chosen_ids"]), len(row["rejected_ids"]))
    tokens_of_pair = np.mean([len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in rows])

    torch.manual_seed(1)
    folder = resolve(base, cache)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, dtype=compute_dtype(base))
    model.config.pad_token_id = tokenizer.pad_token_id
    depth = model.config.num_hidden_layers
    lora = LoraConfig(
        task_type="SEQ_CLS",
        r=settings.lora.rank,
        lora_alpha=settings.lora.alpha,
        target_modules=TARGETS,
        layers_to_transform=list(range(depth - (settings.lora.top_layers or depth), depth)),
    )
    better_defaults: dict[str, Any] = {
        "gradient_checkpointing": False,
        "train_sampling_strategy": "group_by_length",
        "remove_unused_columns": False,
    }
    with TemporaryDirectory() as scratch:
        arguments = RewardConfig(
            output_dir=scratch,
            per_device_train_batch_size=max(1, round(settings.tokens_per_batch / tokens_of_pair)),
            num_train_epochs=settings.epochs,
            learning_rate=settings.learning_rate,
            use_cpu=not torch.cuda.is_available(),
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            seed=1,
            **(better_defaults if tuned else {}),
        )
        trainer = RewardTrainer(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            peft_config=lora,
        )
        places = used = 0
        collate = trainer.data_collator

        def counting(examples: list[dict[str, Any]]) -> dict[str, Any]:
            nonlocal places, used
            batch = collate(examples)
            places, used = places + batch["attention_mask"].numel(), used + int(batch["attention_mask"].sum())
            return batch

        trainer.data_collator = counting
        started = time.monotonic()
        trainer.train()
        seconds = time.monotonic() - started
    trained = trainer.model.eval()
    scores = []
    with torch.inference_mode():
        for ad in validation:
            texts = [sequence(ad, text) for text in ad.texts]
            longest = max(len(text) for text in texts)
            padded = torch.tensor([text + [tokenizer.pad_token_id] * (longest - len(text)) for text in texts])
            mask = torch.tensor([[1] * len(text) + [0] * (longest - len(text)) for text in texts])
            logits = trained(input_ids=padded.to(trained.device), attention_mask=mask.to(trained.device)).logits
            scores.append(logits[:, 0].float().cpu().numpy())
    return {
        "seconds": seconds,
        "first_epoch_seconds": seconds / settings.epochs,
        "texts": 2 * len(rows) * settings.epochs,
        "padding": 1 - used / places,
        "scores": scores,
    }
