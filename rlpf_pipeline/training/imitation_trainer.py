"""Imitation models: supervised fine-tuning of the base chat model on curated examples, by trl's SFTTrainer.

v1 learns from synthetic rewrites, v2 from synthetic and human-written ones (the study, 2.2). The loss counts the
rewrite's tokens only.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence

import torch
from datasets import Dataset, disable_progress_bars
from peft import PeftModel
from transformers import (
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trl import SFTConfig, SFTTrainer

from rlpf_pipeline.settings import ImitationSettings
from rlpf_pipeline.training.losses import token_log_probs
from rlpf_pipeline.training.prompts import messages
from rlpf_pipeline.training.reporter import Reporter

IGNORED = -100


def train_imitation(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[tuple[str, str]],
    settings: ImitationSettings,
    seed: int,
    reporter: Reporter,
) -> dict[str, float]:
    """Train `model` in place on (original, rewrite) pairs; returns the mean training loss in nats per token."""
    disable_progress_bars()
    dataset = Dataset.from_list(
        [
            {"prompt": messages(original), "completion": [{"role": "assistant", "content": rewrite}]}
            for original, rewrite in examples
        ]
    )
    with tempfile.TemporaryDirectory() as scratch:
        trainer = _CompletionTrainer(
            model=model,
            args=_arguments(settings, seed, scratch),
            train_dataset=dataset,
            processing_class=tokenizer,
            callbacks=[_Progress(reporter)],
        )
        trainer.remove_callback(PrinterCallback)
        result = trainer.train()
    return {"train_loss": result.training_loss, "examples": len(examples)}


def _arguments(settings: ImitationSettings, seed: int, scratch: str) -> SFTConfig:
    return SFTConfig(
        output_dir=scratch,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        num_train_epochs=settings.epochs,
        lr_scheduler_type="cosine",
        warmup_steps=0.1,
        max_length=256,
        completion_only_loss=True,
        # trl turns both on by default; on a CPU without native bfloat16 they cost more than they save.
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=not torch.cuda.is_available(),
        seed=seed,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        log_level="error",
    )


class _CompletionTrainer(SFTTrainer):
    """SFTTrainer whose loss gives logits to the rewrite's tokens only: with 49,152 words the rest is waste."""

    def compute_loss(  # type: ignore[no-untyped-def]
        self, model, inputs, return_outputs=False, num_items_in_batch=None
    ):
        plain = self.accelerator.unwrap_model(model).get_base_model()
        hidden = plain.model(inputs["input_ids"], attention_mask=inputs["attention_mask"]).last_hidden_state[:, :-1]
        targets = inputs["labels"][:, 1:]
        counted = targets != IGNORED
        loss = -token_log_probs(hidden[counted], plain.lm_head.weight, targets[counted], temperature=1.0).mean()
        return (loss, {"loss": loss}) if return_outputs else loss


class _Progress(TrainerCallback):
    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter

    def on_log(  # type: ignore[no-untyped-def]
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs=None, **_
    ) -> None:
        if logs and "loss" in logs:
            texts = state.global_step * args.per_device_train_batch_size * args.world_size
            self.reporter.progress(state.global_step, state.max_steps, rate=(texts, "texts"), loss=float(logs["loss"]))
