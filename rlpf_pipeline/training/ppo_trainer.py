"""PPO from an imitation model to AdLlama: sample, score, estimate advantages, update; one frozen base, one adapter.

The reference is the same model with the adapter off: imitation v2, merged into the base before the adapter went on.
The critic is a linear value head on the policy's hidden states, on top of a baseline per prompt: the mean score of the
prompt's other samples. Samples of a prompt are packed behind it, so that scoring and updating encode the prompt once
(`models/packing.py`); only response tokens get logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from rlpf_pipeline.models.adapters import MergedCopy
from rlpf_pipeline.models.packing import Group, Packed, encode, pack
from rlpf_pipeline.models.reward_model import RewardModel
from rlpf_pipeline.settings import PolicySettings
from rlpf_pipeline.training.job import accelerator
from rlpf_pipeline.training.losses import (
    clipped_policy_loss,
    clipped_value_loss,
    generalized_advantages,
    leave_one_out,
    masked_mean,
    shaped_rewards,
    token_log_probs,
    whiten,
)
from rlpf_pipeline.training.prompts import Prompt, decode
from rlpf_pipeline.training.reporter import Reporter
from rlpf_pipeline.training.rewards import gains, length_penalty, missing_eos_penalty
from rlpf_pipeline.training.rollout import sample


class ActorCritic(nn.Module):
    """The adapted policy with a value head; gives log-probabilities and values of packed response tokens."""

    def __init__(self, policy: PeftModel, temperature: float) -> None:
        super().__init__()
        self.policy, self.temperature = policy, temperature
        hidden = policy.config.hidden_size
        self.value_head = nn.Linear(hidden, 1, device=policy.device, dtype=torch.float32)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)

    def forward(self, packed: Packed) -> tuple[Tensor, Tensor]:
        """log pi(token) and V(state before it), both (texts, longest text)."""
        model = self.policy.get_base_model()
        hidden = encode(model.model, packed)[packed.row, packed.predictor]
        log_probs = token_log_probs(hidden, model.lm_head.weight, packed.targets, self.temperature)
        values = self.value_head(hidden.float()).squeeze(-1) * hidden.shape[-1] ** -0.5
        return packed.by_text(log_probs), packed.by_text(values)


class Rollout(NamedTuple):
    """Samples of one step: token ids and texts [prompt][sample], rewards and their parts (texts,)."""

    prompts: Sequence[Prompt]
    responses: list[list[list[int]]]
    texts: list[list[str]]
    gains: np.ndarray
    scores: np.ndarray
    tokens: np.ndarray
    finished: np.ndarray


class Estimates(NamedTuple):
    """What the update holds fixed, for one minibatch of packed prompts; tensors are (texts, longest text)."""

    packed: Packed
    mask: Tensor
    log_probs: Tensor
    values: Tensor
    log_ratio: Tensor
    advantages: Tensor
    returns: Tensor


class PPOTrainer:
    """Arranges the pure functions of `losses.py` and `rewards.py` into PPO steps over one adapter."""

    def __init__(
        self,
        policy: PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        reward_model: RewardModel,
        settings: PolicySettings,
        seed: int,
    ) -> None:
        self.settings, self.tokenizer, self.reward_model = settings, tokenizer, reward_model
        self.accelerate = accelerator()
        actor = ActorCritic(policy, settings.temperature)
        self.sampler = MergedCopy(policy)
        adapter = [p for p in policy.parameters() if p.requires_grad]
        self.parameters = [*adapter, *actor.value_head.parameters()]
        optimizer = torch.optim.AdamW(
            [
                {"params": adapter, "lr": settings.learning_rate},
                {"params": actor.value_head.parameters(), "lr": settings.value_learning_rate},
            ],
            weight_decay=0.0,
        )
        self.policy = policy
        self.actor, self.optimizer = self.accelerate.prepare(actor, optimizer)
        rank = self.accelerate.process_index
        self.generator = torch.Generator(self.accelerate.device).manual_seed(seed + rank)
        self.rng = np.random.default_rng([seed, rank])

    def train(self, prompts: Sequence[Prompt], reporter: Reporter) -> list[dict[str, float]]:
        """Run all steps; returns their metrics, one dict a step."""
        history = []
        for step in range(self.settings.steps):
            metrics = self.step(self._next_prompts(prompts))
            history.append({"step": step + 1, **metrics})
            shown = ("reward", "kl", "tokens")
            reporter.progress(
                step + 1,
                self.settings.steps,
                rate=((step + 1) * self.settings.prompts_per_step * self.settings.samples_per_prompt, "samples"),
                **{name: metrics[name] for name in shown},
            )
            reporter.metrics({k: v for k, v in metrics.items() if k not in shown}, step + 1)
        return history

    def step(self, prompts: Sequence[Prompt]) -> dict[str, float]:
        """One PPO step on `prompts`: fresh samples, then `epochs` x `minibatches` optimiser steps."""
        self.sampler.refresh()
        rollout = self.roll_out(prompts)
        minibatches = self.estimate(rollout)
        updates = [self.update(batch) for _ in range(self.settings.epochs) for batch in minibatches]
        kl = np.concatenate([(batch.log_ratio * batch.mask).sum(1).cpu() for batch in minibatches])
        return {
            "reward": float(rollout.gains.mean()),
            "score": float(rollout.scores.mean()),
            "kl": float(kl.mean()),
            "tokens": float(rollout.tokens.mean()),
            "finished": float(rollout.finished.mean()),
            "distinct": float(np.mean([len(set(texts)) / len(texts) for texts in rollout.texts])),
            **{name: float(np.mean([update[name] for update in updates])) for name in updates[0]},
        }

    def roll_out(self, prompts: Sequence[Prompt]) -> Rollout:
        """Sample responses and score them."""
        settings = self.settings
        responses = sample(
            self.sampler.model,
            [prompt.ids for prompt in prompts],
            settings.samples_per_prompt,
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            eos_id=self.tokenizer.eos_token_id,
            pad_id=self.tokenizer.pad_token_id,
            generator=self.generator,
        )
        texts = [[decode(self.tokenizer, ids) for ids in own] for own in responses]
        flat = [ids for own in responses for ids in own]
        tokens = np.array([len(ids) for ids in flat])
        finished = np.array([ids[-1] == self.tokenizer.eos_token_id for ids in flat])
        original = np.repeat([prompt.original_tokens for prompt in prompts], settings.samples_per_prompt)
        gained = gains(self.reward_model, prompts, texts)
        scores = gained + length_penalty(tokens, original, settings) + missing_eos_penalty(finished, settings)
        return Rollout(prompts, responses, texts, gained, scores, tokens, finished)

    @torch.no_grad()
    def estimate(self, rollout: Rollout) -> list[Estimates]:
        """Log-probabilities, values, advantages and returns, with advantages whitened over the whole step."""
        settings, k = self.settings, self.settings.samples_per_prompt
        self.actor.eval()
        batches = []
        for part in np.array_split(np.arange(len(rollout.prompts)), settings.minibatches):
            groups = [Group(rollout.prompts[i].ids, rollout.responses[i]) for i in part]
            packed = pack(groups, self.tokenizer.pad_token_id, self.accelerate.device)
            log_probs, values = self.actor(packed)
            with self.policy.disable_adapter():
                reference, _ = self.actor(packed)
            mask = packed.mask()
            scores = torch.tensor(np.concatenate([rollout.scores[i * k : (i + 1) * k] for i in part])).to(values)
            rewards = shaped_rewards(leave_one_out(scores, k), log_probs - reference, mask, settings.kl_coefficient)
            advantages, returns = generalized_advantages(rewards, values, mask, settings.gamma, settings.lam)
            batches.append(Estimates(packed, mask, log_probs, values, log_probs - reference, advantages, returns))
        return _whitened(batches)

    def update(self, batch: Estimates) -> dict[str, float]:
        """One optimiser step on one minibatch."""
        settings = self.settings
        self.actor.train()
        log_probs, values = self.actor(batch.packed)
        policy_loss, clipped = clipped_policy_loss(
            log_probs, batch.log_probs, batch.advantages, batch.mask, settings.clip_ratio
        )
        value_loss = clipped_value_loss(values, batch.values, batch.returns, batch.mask, settings.clip_value)
        self.accelerate.backward(policy_loss + settings.value_coefficient * value_loss)
        norm = self.accelerate.clip_grad_norm_(self.parameters, settings.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        moved = masked_mean(batch.log_probs - log_probs.detach(), batch.mask)
        return {
            "policy_loss": policy_loss.item(),
            "value_loss": value_loss.item(),
            "clipped": clipped.item(),
            "gradient_norm": float(norm),
            "moved": moved.item(),
        }

    def _next_prompts(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        chosen = self.rng.choice(len(prompts), min(self.settings.prompts_per_step, len(prompts)), replace=False)
        return [prompts[i] for i in chosen]


def _whitened(batches: list[Estimates]) -> list[Estimates]:
    flat = torch.cat([batch.advantages[batch.mask.bool()] for batch in batches])
    white = whiten(flat, torch.ones_like(flat)).split([int(batch.mask.sum()) for batch in batches])
    return [
        batch._replace(advantages=torch.zeros_like(batch.advantages).masked_scatter(batch.mask.bool(), values))
        for batch, values in zip(batches, white, strict=True)
    ]
