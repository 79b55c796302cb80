"""Imitation models: supervised fine-tuning of the base chat model on curated examples, by trl's SFTTrainer.

v1 learns from synthetic rewrites, v2 from synthetic and human-written ones (the study, 2.2). The loss counts the
rewrite's tokens only.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Sequence

import torch
from datasets import Dataset, disable_progress_bars
from peft import PeftModel
from torch import Tensor
from transformers import (
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trl import SFTConfig, SFTTrainer

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.models import block_attention
from rlpf_pipeline.models.adapters import is_finite
from rlpf_pipeline.models.packing import Group, encode, pack
from rlpf_pipeline.settings import ImitationSettings
from rlpf_pipeline.training.losses import token_log_probs
from rlpf_pipeline.training.master_weights import MasterWeights
from rlpf_pipeline.training.prompts import CHAT_OPTIONS, messages, positions_of
from rlpf_pipeline.training.reporter import Reporter

IGNORED = -100
NOT_FINITE = (
    "{} not finite. Lower imitation.learning_rate; in float16 or on damaged base weights nothing helps but another "
    "base."
)


def train_imitation(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[tuple[str, str]],
    settings: ImitationSettings,
    seed: int,
    reporter: Reporter,
) -> dict[str, float]:
    """Train `model` in place on (original, rewrite) pairs; returns the mean training loss in nats per
    token, and how many pairs there were.

    On several ranks each does its share of every batch; the last one of an epoch is filled up from the first. Raises
    UserError where the ranks cannot share a batch equally, without examples, for one longer than the base reads, and
    for a loss or weights that are not finite.
    """
    if not examples:
        raise UserError("No example is left to learn from. Lower teacher.held_out, or raise teacher.examples.")
    disable_progress_bars()
    model.get_base_model().set_attn_implementation(block_attention.NAME)
    dataset = Dataset.from_list(
        [
            {
                "prompt": messages(original),
                "completion": [{"role": "assistant", "content": rewrite}],
                "chat_template_kwargs": CHAT_OPTIONS,
            }
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
        _require_room(model, [len(ids) for ids in trainer.train_dataset["input_ids"]], examples)
        trainer.remove_callback(PrinterCallback)
        reporter.phase()
        result = trainer.train()
    if not is_finite(model):
        raise UserError(NOT_FINITE.format("Weights after the last step are"))
    return {"train_loss": result.training_loss, "examples": len(examples)}


def _require_room(model: PeftModel, lengths: Sequence[int], examples: Sequence[tuple[str, str]]) -> None:
    positions, longest = positions_of(model), max(lengths)
    if longest > positions:
        original, rewrite = examples[lengths.index(longest)]
        raise UserError(
            f"The base model reads {positions:.0f} tokens, and an example has {longest}: {original[:60]!r}, rewritten "
            f"as {rewrite[:60]!r}. Leave out ads (and examples of teacher.examples_file) whose texts are so long, or "
            "choose another base (base.name)."
        )


def _arguments(settings: ImitationSettings, seed: int, scratch: str) -> SFTConfig:
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if settings.batch_size % ranks:
        raise UserError(f"imitation.batch_size is {settings.batch_size}, which {ranks} processes cannot share equally.")
    return SFTConfig(
        output_dir=scratch,
        per_device_train_batch_size=settings.batch_size // ranks,
        learning_rate=settings.learning_rate,
        num_train_epochs=settings.epochs,
        lr_scheduler_type="cosine",
        warmup_steps=0.1,
        # Half a rewrite is no example, so nothing is cut; and trl's own packing is only right with flash attention.
        max_length=None,
        packing=False,
        completion_only_loss=True,
        # trl turns both on by default; on a CPU without native bfloat16 they cost more than they save.
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=not torch.cuda.is_available(),
        seed=seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        log_level="error",
    )


class _CompletionTrainer(SFTTrainer):
    """SFTTrainer that packs a batch, examples blind to each other, and gives logits to the rewrites' tokens only. It
    trains float32 copies of the weights.

    The loss is the mean over the rewrites' tokens of all ranks. It calls the model below trl's distributed wrapper, so
    the ranks' gradients are summed here.
    """

    def create_optimizer(self, model=None):  # type: ignore[no-untyped-def]
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        masters = MasterWeights([(trained, self.args.learning_rate)], self.args.weight_decay)

        def before_step(*_):  # type: ignore[no-untyped-def]
            masters.collect_gradients()

        def after_step(*_):  # type: ignore[no-untyped-def]
            masters.write_back()

        masters.optimizer.register_step_pre_hook(before_step)
        masters.optimizer.register_step_post_hook(after_step)
        self.optimizer = masters.optimizer
        return self.optimizer

    def compute_loss(  # type: ignore[no-untyped-def]
        self, model, inputs, return_outputs=False, num_items_in_batch=None
    ):
        plain = self.accelerator.unwrap_model(model).get_base_model()
        packed = pack(
            groups_of(self.processing_class.eos_token_id, **inputs),
            self.processing_class.pad_token_id,
            self.accelerator.device,
        )
        hidden = encode(plain.model, packed)[packed.row, packed.predictor]
        log_probs = token_log_probs(hidden, plain.lm_head.weight, packed.targets, temperature=1.0)
        tokens = torch.tensor(float(len(log_probs)), device=log_probs.device)
        loss = -log_probs.sum() / self.accelerator.reduce(tokens, "sum")
        return (loss, {"loss": loss}) if return_outputs else loss

    def training_step(self, *values, **named):  # type: ignore[no-untyped-def]
        loss = super().training_step(*values, **named)
        if self.accelerator.num_processes == 1:
            return loss
        for parameter in self.model.parameters():
            if parameter.grad is not None:
                parameter.grad = self.accelerator.reduce(parameter.grad, "sum")
        return self.accelerator.reduce(loss, "sum")


def groups_of(eos_id: int, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, **_: object) -> list[Group]:
    """trl's batch, padded on the right, as prompts with their rewrites up to the end mark: templates write a line break
    behind it, which nobody draws."""
    ends = attention_mask.sum(1).tolist()
    starts = [end - count for end, count in zip(ends, (labels != IGNORED).sum(1).tolist(), strict=True)]
    groups = []
    for ids, start, end in zip(input_ids.tolist(), starts, ends, strict=True):
        rewrite = ids[start:end]
        groups.append(Group(ids[:start], [rewrite[: rewrite.index(eos_id) + 1] if eos_id in rewrite else rewrite]))
    return groups


class _Progress(TrainerCallback):
    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter

    def on_log(  # type: ignore[no-untyped-def]
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs=None, **_
    ) -> None:
        if logs and "loss" in logs:
            texts = state.global_step * args.per_device_train_batch_size * args.world_size
            if not math.isfinite(float(logs["loss"])):
                raise UserError(NOT_FINITE.format(f"The loss of step {state.global_step} is"))
            self.reporter.progress(state.global_step, state.max_steps, rate=(texts, "texts"), loss=float(logs["loss"]))
