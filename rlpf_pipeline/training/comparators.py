"""What PPO is compared with, by trl's trainers: RLOO and GRPO on the same samples and reward, DPO on the clicks' pairs.

RLOO (Ahmadian et al. 2024) and GRPO (Shao et al. 2024) draw as many texts a step as PPO, for the same prompts, with the
same sampling and reward terms; DPO (Rafailov et al. 2023) needs neither samples nor a reward model. All start from
imitation v2, which stays the reference with the adapter off, and take as many optimiser steps as PPO does at most.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Literal

from datasets import Dataset, disable_progress_bars
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.models.adapters import lora_config
from rlpf_pipeline.models.reward_model import RewardModel
from rlpf_pipeline.settings import PolicySettings
from rlpf_pipeline.training.example_filter import is_copy
from rlpf_pipeline.training.prompts import CHAT_OPTIONS, Prompt, messages
from rlpf_pipeline.training.reporter import Reporter
from rlpf_pipeline.training.rewards import described, reward_terms, scored, weighted
from rlpf_pipeline.training.snapshot import Ad, original_of
from rlpf_pipeline.training.trl_runs import (
    History,
    Row,
    common_arguments,
    refuse_settings_of_ppo,
    texts_per_update,
    trained,
)

ONLINE = {"rloo": (RLOOTrainer, RLOOConfig), "grpo": (GRPOTrainer, GRPOConfig)}
OWN = "samples/"
"""Marks our own figures among those that trl logs."""


def train_on_samples(
    algorithm: Literal["rloo", "grpo"],
    reference: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    reward_model: RewardModel,
    prompts: Sequence[Prompt],
    settings: PolicySettings,
    seed: int,
    reporter: Reporter,
) -> tuple[PeftModel, list[Row]]:
    """`reference` with a trained adapter on it, and a row a step.

    Raises UserError for settings that only PPO knows, or that do not divide a step's texts evenly.
    """
    refuse_settings_of_ppo(settings)
    if settings.samples_per_prompt < 2:
        raise UserError(f"{algorithm} compares the texts of a prompt: set policy.samples_per_prompt to 2 or more.")
    trainer_class, config_class = ONLINE[algorithm]
    prompts_per_step = min(settings.prompts_per_step, len(prompts))
    reward = _Reward(tokenizer, reward_model, prompts, settings)
    disable_progress_bars()
    history = History(settings, reporter, sample_figures, ("reward", "kl", "tokens"))
    with tempfile.TemporaryDirectory() as scratch:
        trainer = trainer_class(
            model=reference,
            reward_funcs=reward.of,
            args=config_class(
                **common_arguments(settings, seed, scratch),
                per_device_train_batch_size=texts_per_update(prompts_per_step, settings),
                steps_per_generation=settings.minibatches,
                num_iterations=settings.epochs,
                num_generations=settings.samples_per_prompt,
                max_completion_length=settings.max_new_tokens,
                temperature=settings.temperature,
                epsilon=settings.clip_ratio,
                chat_template_kwargs=CHAT_OPTIONS,
            ),
            train_dataset=Dataset.from_list(
                [{"prompt": messages(prompt.original), "number": number} for number, prompt in enumerate(prompts)]
            ),
            processing_class=tokenizer,
            callbacks=[history],
            peft_config=lora_config(reference, settings.lora),
        )
        return trained(trainer), history.rows


def train_on_pairs(
    reference: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    ads: Sequence[Ad],
    settings: PolicySettings,
    seed: int,
    reporter: Reporter,
) -> tuple[PeftModel, list[Row]]:
    """`reference` with an adapter trained by DPO on it, and a row a step. Raises UserError where the ads have no pair
    that it can learn from, or for settings that only PPO knows."""
    refuse_settings_of_ppo(settings)
    pairs = preferred_rewrites(ads)
    if not pairs:
        raise UserError(
            "DPO learns from pairs of texts beside the original, and no ad has one that the clicks tell apart. "
            "It needs ads of three texts or more; choose another policy.algorithm for this data."
        )
    disable_progress_bars()
    history = History(settings, reporter, pair_figures, ("loss", "accuracy"))
    texts = texts_per_update(settings.prompts_per_step, settings)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = DPOTrainer(
            model=reference,
            args=DPOConfig(
                **common_arguments(settings, seed, scratch),
                per_device_train_batch_size=max(1, texts // 2),
                max_length=None,
            ),
            train_dataset=Dataset.from_list(
                [
                    {
                        "prompt": messages(original),
                        "chosen": _answer(chosen),
                        "rejected": _answer(rejected),
                        "chat_template_kwargs": CHAT_OPTIONS,
                    }
                    for original, chosen, rejected in pairs
                ]
            ),
            processing_class=tokenizer,
            callbacks=[history],
            peft_config=lora_config(reference, settings.lora),
        )
        return trained(trainer), history.rows


def preferred_rewrites(ads: Sequence[Ad]) -> list[tuple[str, str, str]]:
    """(original, the text more likely to have the higher CTR, the other one) of each pair.

    Left out are even pairs and those with the original on a side: a policy is asked for another text, so the original
    is no answer to prefer or to avoid.
    """
    rows = []
    for ad in ads:
        original = original_of(ad)
        for left, right, p in zip(ad.left, ad.right, ad.p_left_better, strict=True):
            better, worse = (ad.texts[left], ad.texts[right]) if p > 0.5 else (ad.texts[right], ad.texts[left])
            if p != 0.5 and not (is_copy(original, better) or is_copy(original, worse)):
                rows.append((original, better, worse))
    return rows


def sample_figures(logs: Mapping[str, float]) -> Row:
    """Of a step of RLOO or GRPO: our own figures, and the KL of its texts in nats per text."""
    own = {name.removeprefix(OWN): value for name, value in logs.items() if name.startswith(OWN)}
    if "kl" in logs:
        own["kl"] = logs["kl"] * own["tokens"]
    return own


def pair_figures(logs: Mapping[str, float]) -> Row:
    """Of a step of DPO: the share of pairs that the policy orders as the clicks do, and by how much, log odds."""
    return {"accuracy": logs["rewards/accuracies"], "margin": logs["rewards/margins"]}


def _answer(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


class _Reward:
    """The reward terms as trl asks for them: a number a text, and what it is made of to the log."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        model: RewardModel,
        prompts: Sequence[Prompt],
        settings: PolicySettings,
    ) -> None:
        self.tokenizer, self.model, self.prompts = tokenizer, model, prompts
        self.terms, self.samples = reward_terms(settings), settings.samples_per_prompt

    def of(
        self,
        completion_ids: Sequence[list[int]],
        number: Sequence[int],
        log_metric: Callable[[str, float], None],
        **_: object,
    ) -> list[float]:
        """number: of each text's prompt; the texts of a prompt come one after the other."""
        pairs = zip(number, completion_ids, strict=True)
        groups = [(prompt, [ids for _, ids in own]) for prompt, own in groupby(pairs, key=itemgetter(0))]
        prompts, responses = [self.prompts[prompt] for prompt, _ in groups], [own for _, own in groups]
        samples = scored(self.model, self.tokenizer, prompts, responses)
        terms = weighted(self.terms, samples)
        figures = described(samples, self.samples) | {f"term_{name}": float(v.mean()) for name, v in terms.items()}
        for name, value in figures.items():
            log_metric(OWN + name, value)
        return [float(value) for value in sum(terms.values())]
