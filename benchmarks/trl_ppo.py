"""trl 1.12.0's PPO, the last there was, on the case of `bench_ppo.py`; it runs from a folder of its own.

Set as its users would tune it: no gradient checkpointing, no sample generations, as many texts at once as are fast.
Its critic is a second model all of whose weights are trained; its reference is the policy with the adapter off.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import torch
from datasets import Dataset
from peft import get_peft_model
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedTokenizerBase
from trl.experimental.ppo import PPOConfig, PPOTrainer

from benchmarks.ppo_case import Case, Clock, Timed
from benchmarks.trl_models import left_padding_tokenizer, policy_lora, random_scorer
from rlpf_pipeline.models.base import compute_dtype, load_causal_lm
from rlpf_pipeline.training.prompts import decode


class Taste(nn.Module):
    """Stands in for a reward model: every place of a row scores what `taste` says of the row's response."""

    base_model_prefix = "reader"

    def __init__(self, taste: Callable[[str], float], tokenizer: PreTrainedTokenizerBase, context: int) -> None:
        super().__init__()
        self.taste, self.tokenizer, self.context = taste, tokenizer, context
        self.score = nn.Identity()

    def reader(self, input_ids: Tensor, attention_mask: Tensor, **_: object) -> SimpleNamespace:
        responses = zip(input_ids[:, self.context :], attention_mask[:, self.context :], strict=True)
        worth = [self.taste(decode(self.tokenizer, ids[kept].tolist())) for ids, kept in responses]
        values = torch.tensor(worth, device=input_ids.device)[:, None, None].expand(-1, input_ids.shape[1], 1)
        return SimpleNamespace(hidden_states=(values,))


def time_trl_ppo(case: Case, cache: Path, frozen_critic: bool) -> Timed:
    """frozen_critic: train only the critic's head, a linear layer, as ours is."""
    tokenizer, clock = left_padding_tokenizer(case, cache), Clock()
    with TemporaryDirectory() as scratch:
        trainer = make_trainer(case, cache, tokenizer, random_scorer(case, cache, tokenizer), scratch, frozen_critic)
        clock.watch_generate(trainer.policy_model, tokenizer.eos_token_id)
        trainer.train()
        return clock.timed(case.texts)


def curve_of_trl_ppo(case: Case, cache: Path, taste: Callable[[str], float]) -> list[tuple[float, float]]:
    """KL (nats per text) and reward of each step's samples."""
    tokenizer = left_padding_tokenizer(case, cache)
    context = max(len(prompt.ids) for prompt in case.make_prompts(tokenizer))
    with TemporaryDirectory() as scratch:
        trainer = make_trainer(case, cache, tokenizer, Taste(taste, tokenizer, context), scratch, frozen_critic=False)
        trainer.train()
    return [(row["objective/kl"], row["objective/scores"]) for row in trainer.state.log_history]


def make_trainer(
    case: Case,
    cache: Path,
    tokenizer: PreTrainedTokenizerBase,
    reward_model: nn.Module,
    scratch: str,
    frozen_critic: bool,
) -> PPOTrainer:
    torch.manual_seed(case.seed)
    base = load_causal_lm(case.base, cache)
    base.generation_config.pad_token_id = tokenizer.pad_token_id
    policy = get_peft_model(base, policy_lora(base, case))
    critic = random_scorer(case, cache, tokenizer)
    critic.model.requires_grad_(not frozen_critic)
    rates = ((policy, case.learning_rate), (critic, case.critic_rate))
    optimizer = torch.optim.AdamW(
        [{"params": [p for p in model.parameters() if p.requires_grad], "lr": rate} for model, rate in rates],
        weight_decay=0.0,
        fused=True,
    )
    # Several optimiser steps an epoch and gradient accumulation exclude each other: either takes `texts` in one batch.
    accumulation = max(1, case.texts // case.micro) if case.minibatches == 1 else 1
    arguments = PPOConfig(
        output_dir=scratch,
        per_device_train_batch_size=case.texts // accumulation,
        gradient_accumulation_steps=accumulation,
        num_mini_batches=case.minibatches,
        num_ppo_epochs=case.epochs,
        total_episodes=case.texts * case.steps,
        local_rollout_forward_batch_size=case.texts,
        response_length=case.max_new_tokens,
        temperature=case.temperature,
        stop_token="eos",
        kl_coef=case.kl_coefficient,
        num_sample_generations=0,
        gradient_checkpointing=False,
        bf16=compute_dtype(case.base) == torch.bfloat16,
        use_cpu=not torch.cuda.is_available(),
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        seed=case.seed,
    )
    rows = [{"input_ids": prompt.ids} for prompt in case.make_prompts(tokenizer) for _ in range(case.samples)]
    return PPOTrainer(
        args=arguments,
        processing_class=tokenizer,
        model=policy,
        ref_model=None,
        reward_model=reward_model,
        value_model=critic,
        train_dataset=Dataset.from_list(rows),
        optimizers=(optimizer, LambdaLR(optimizer, lambda _: 1.0)),
    )
