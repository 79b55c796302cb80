"""What all runs of trl's trainers as comparators share: arguments, a row of figures a step, the policy at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from peft import PeftModel
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.models.adapters import is_finite
from rlpf_pipeline.settings import PolicySettings
from rlpf_pipeline.training.job import accelerator
from rlpf_pipeline.training.reporter import Reporter

Row = dict[str, float]
PPO_ONLY = ("kl_target", "kl_loss_coefficient", "entropy_coefficient", "normalize_rewards", "clip_rewards")


def refuse_settings_of_ppo(settings: PolicySettings) -> None:
    defaults = PolicySettings()
    changed = [f"policy.{name}" for name in PPO_ONLY if getattr(settings, name) != getattr(defaults, name)]
    if changed:
        raise UserError(
            f"{', '.join(changed)} is PPO's alone, and policy.algorithm is {settings.algorithm}. "
            "Leave it at its default, or the comparison would be of two rewards."
        )


def texts_per_update(prompts: int, settings: PolicySettings) -> int:
    """Texts of one optimiser step on one rank. Raises UserError where they are no whole number."""
    texts, parts = prompts * settings.samples_per_prompt, settings.minibatches * accelerator().num_processes
    if texts % parts:
        raise UserError(
            f"{prompts} prompts x {settings.samples_per_prompt} texts a step cannot be divided evenly among "
            f"{settings.minibatches} mini-batches on {accelerator().num_processes} process(es). Change "
            "policy.prompts_per_step, policy.samples_per_prompt or policy.minibatches."
        )
    return texts // parts


def common_arguments(settings: PolicySettings, seed: int, scratch: str) -> dict[str, Any]:
    """Of all three configurations: PPO's optimiser and KL coefficient, one row of figures a step."""
    updates = settings.epochs * settings.minibatches
    return {
        "output_dir": scratch,
        "max_steps": settings.steps * updates,
        "logging_steps": updates,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "max_grad_norm": settings.max_grad_norm,
        "beta": settings.kl_coefficient,
        # trl turns both on by default; on a CPU without native bfloat16 they cost more than they save.
        "bf16": False,
        "gradient_checkpointing": False,
        "use_cpu": not torch.cuda.is_available(),
        "seed": seed,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "log_level": "error",
    }


def trained(trainer: Trainer) -> PeftModel:
    """Run the trainer to its end; the policy comes back as `attach_lora` makes one. Raises UserError for weights that
    are not finite."""
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    policy: PeftModel = trainer.accelerator.unwrap_model(trainer.model)
    if not is_finite(policy):
        raise UserError("Weights after the last step are not finite. Lower policy.learning_rate.")
    base = policy.get_base_model()
    # trl put a forward of its own on the model, which a copy of it would still share.
    vars(base).pop("forward")
    for parameter in policy.parameters():
        if parameter.requires_grad:
            # Trained in float32, judged and saved in the precision of the base.
            parameter.data = parameter.data.to(base.dtype)
    return policy


class History(TrainerCallback):
    """Turns what trl logs into a row a step. figures: of a log; shown: those that the progress line says."""

    def __init__(
        self,
        settings: PolicySettings,
        reporter: Reporter,
        figures: Callable[[Mapping[str, float]], Row],
        shown: Sequence[str],
    ) -> None:
        self.settings, self.reporter, self.figures, self.shown = settings, reporter, figures, shown
        self.rows: list[Row] = []

    def on_log(  # type: ignore[no-untyped-def]
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs=None, **_
    ) -> None:
        if not logs or "loss" not in logs:
            return
        row = self.figures(logs) | {"loss": float(logs["loss"]), "gradient_norm": float(logs["grad_norm"])}
        self.rows.append({"step": len(self.rows) + 1, **row})
        shown = {name: row.pop(name) for name in self.shown if name in row}
        self.reporter.progress(len(self.rows), self.settings.steps, **shown)
        self.reporter.metrics(row, len(self.rows))
