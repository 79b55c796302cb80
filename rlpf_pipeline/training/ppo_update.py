"""The learning half of PPO: from sampled texts and their rewards to a better policy and critic.

What the update holds fixed (old log-probabilities, values, advantages, returns) is estimated once per rollout, in the
very batches of the update, so that the first ratio is 1 in any precision. A mini-batch is one optimiser step, however
many parts its memory is bounded to. Where the first one fits into one part, its step goes on from the estimate's pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from peft import PeftModel
from torch import Tensor

from rlpf_pipeline.models.adapters import trained_parameters
from rlpf_pipeline.models.packing import Group, Packed, batches_by_tokens, pack
from rlpf_pipeline.settings import PolicySettings
from rlpf_pipeline.training.actor_critic import ActorCritic, Told
from rlpf_pipeline.training.losses import (
    clipped_policy_loss,
    clipped_value_loss,
    generalized_advantages,
    kl_k1,
    kl_k3,
    masked_mean,
    shaped_rewards,
    whiten,
)
from rlpf_pipeline.training.master_weights import MasterWeights
from rlpf_pipeline.training.sharding import idle_passes, is_sharded

T = TypeVar("T")


class Part(NamedTuple):
    """Prompts of one mini-batch encoded at once, and what the update holds fixed; tensors are (texts, longest text).

    share: of the mini-batch's tokens, on all ranks. below: states under the lowest adapter. told: the pass that gave
    the estimates, with its graph, for one step to go on from; None where that would hold several graphs. prior: what
    the value head's word is added to.
    """

    minibatch: int
    share: float
    packed: Packed
    below: Tensor | None
    told: Told | None
    mask: Tensor
    log_probs: Tensor
    reference: Tensor
    prior: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor


class PPOUpdate:
    """Policy, critic and their optimiser."""

    def __init__(self, policy: PeftModel, settings: PolicySettings, pad_id: int, accelerate: Accelerator) -> None:
        self.settings, self.pad_id, self.accelerate = settings, pad_id, accelerate
        self.with_entropy, self.sharded = settings.entropy_coefficient > 0, is_sharded(policy)
        self.actor = ActorCritic(policy, settings.temperature, own_critic=settings.critic_states == "own")
        self.actor.eval()  # no dropout: what learns is what was sampled from
        head = list(self.actor.value_head.parameters())
        rates = [(self.actor.adapter, settings.learning_rate), (head, settings.value_learning_rate)]
        if self.actor.critic:
            rates.append((trained_parameters(self.actor.critic), settings.learning_rate))
        self.masters = MasterWeights(rates, weight_decay=0.0)

    def learn(
        self, groups: Sequence[Group], scores: Tensor, kl_coefficient: float, prior: Tensor | None = None
    ) -> dict[str, float]:
        """`epochs` x `minibatches` optimiser steps on a rollout; returns its KL per text and the steps' mean figures.

        groups: every prompt with its texts, on all ranks. scores: (prompts, samples), what a text's last token earns.
        prior: (prompts, samples, places), where the critic starts from before each token; None: at 0.
        """
        parts, updates = self.estimate(groups, scores, kl_coefficient, prior), []
        for number in list(range(self.settings.minibatches)) * self.settings.epochs:
            updates.append(self.update([part for part in parts if part.minibatch == number]))
            parts = [part._replace(told=None) for part in parts]
        kl = sum((kl_k1(part.log_probs, part.reference) * part.mask).sum().item() for part in parts)
        figures = {name: float(np.mean([update[name] for update in updates])) for name in updates[0]}
        return {"kl": self.summed([kl])[0] / scores.numel(), "explained": self.explained(parts), **figures}

    def estimate(
        self, groups: Sequence[Group], scores: Tensor, kl_coefficient: float, prior: Tensor | None = None
    ) -> list[Part]:
        """This rank's parts of the rollout, their advantages whitened over the whole of it."""
        settings, rank, ranks = self.settings, self.accelerate.process_index, self.accelerate.num_processes
        tokens = np.array([sum(map(len, group.texts)) for group in groups])
        parts = []
        for number, minibatch in enumerate(np.array_split(np.arange(len(groups)), settings.minibatches)):
            mine = np.array_split(minibatch, ranks)[rank]
            batches = batches_by_tokens([groups[i].length for i in mine], settings.tokens_per_forward)
            passes = self.passes(batches)
            for places, counts in passes:
                chosen = mine[places]
                packed = self.pack([groups[i] for i in chosen])
                below, mask = self.actor.below(packed), packed.mask()
                first_step = number == 0 and len(passes) == 1
                with torch.set_grad_enabled(first_step):
                    told = self.actor(packed, below, with_entropy=first_step and self.with_entropy)
                known = torch.zeros_like(mask) if prior is None else rows_of(prior, chosen, mask)
                log_probs, values = told.log_probs.detach(), told.values.detach() + known
                with torch.no_grad(), self.actor.reference():
                    reference = self.actor.log_probs(packed, below)
                own = scores[torch.from_numpy(chosen)].flatten().to(values)
                rewards = shaped_rewards(own, kl_k1(log_probs, reference), mask, kl_coefficient)
                estimates = generalized_advantages(rewards, values, mask, settings.gamma, settings.lam)
                share = float(tokens[chosen].sum() / tokens[minibatch].sum())
                kept = told if first_step else None
                fixed = (mask, log_probs, reference, known, values, *estimates)
                if counts:
                    parts.append(Part(number, share, packed, below, kept, *fixed))
        return self.whitened(parts)

    def update(self, minibatch: Sequence[Part]) -> dict[str, float]:
        """One optimiser step on this rank's parts of a mini-batch, gradients summed over parts and ranks."""
        totals: dict[str, float] = {}
        for part, counts in self.passes(minibatch):
            loss, figures = self.loss(part)
            share = part.share if counts else 0.0
            (share * loss).backward()
            totals = {name: totals.get(name, 0.0) + share * figure.item() for name, figure in figures.items()}
        gradients = self.masters.collect_gradients()
        for gradient in gradients if self.accelerate.num_processes > 1 else ():
            gradient.copy_(self.accelerate.reduce(gradient, "sum"))
        norm = torch.stack([gradient.norm() for gradient in gradients]).norm().item()
        self.masters.step(1.0, self.settings.max_grad_norm)
        return dict(zip(totals, self.summed(list(totals.values())), strict=True)) | {"gradient_norm": norm}

    def loss(self, part: Part) -> tuple[Tensor, dict[str, Tensor]]:
        """PPO's objective on a part, negated, as a mean over its tokens; and what it is made of, detached."""
        settings, mask = self.settings, part.mask
        told = part.told or self.actor(part.packed, part.below, with_entropy=self.with_entropy)
        policy_loss, clipped = clipped_policy_loss(
            told.log_probs, part.log_probs, part.advantages, mask, settings.clip_ratio
        )
        value_loss = clipped_value_loss(told.values + part.prior, part.values, part.returns, mask, settings.clip_value)
        kl_loss = masked_mean(kl_k3(told.log_probs, part.reference), mask)
        loss = policy_loss + settings.value_coefficient * value_loss + settings.kl_loss_coefficient * kl_loss
        moved = masked_mean(part.log_probs - told.log_probs, mask)
        figures = {"policy_loss": policy_loss, "value_loss": value_loss, "clipped": clipped, "moved": moved}
        if told.entropy is not None:
            figures["entropy"] = masked_mean(told.entropy, mask)
            loss = loss - settings.entropy_coefficient * figures["entropy"]
        return loss, {name: figure.detach() for name, figure in (figures | {"kl_loss": kl_loss}).items()}

    def explained(self, parts: Sequence[Part]) -> float:
        """Share of the returns' variance over the rollout's tokens that the values explain; below 0 worse than none."""
        token = [part.mask.bool() for part in parts]
        returns = torch.cat([part.returns[own] for part, own in zip(parts, token, strict=True)]).double()
        missed = returns - torch.cat([part.values[own] for part, own in zip(parts, token, strict=True)]).double()
        moments = [(values**power).sum().item() for values in (returns, missed) for power in (1, 2)]
        count, *sums = self.summed([len(returns), *moments])
        variance, left = (square - total**2 / count for total, square in (sums[:2], sums[2:]))
        return 1 - left / variance if variance > 0 else 0.0

    @torch.no_grad()
    def mean_kl(self, groups: Sequence[Group]) -> float:
        """KL to the reference by k1 on the groups' texts, in nats per text; every rank does its share."""
        total = 0.0
        mine = groups[self.accelerate.process_index :: self.accelerate.num_processes]
        batches = batches_by_tokens([group.length for group in mine], self.settings.tokens_per_forward)
        for places, counts in self.passes(batches):
            packed = self.pack([mine[i] for i in places])
            below = self.actor.below(packed)
            log_probs = self.actor.log_probs(packed, below)
            with self.actor.reference():
                kl = kl_k1(log_probs, self.actor.log_probs(packed, below)).sum().item()
            total += kl if counts else 0.0
        return self.summed([total])[0] / sum(len(group.texts) for group in groups)

    @property
    def adapter(self) -> Tensor:
        """A copy of the policy's trained weights, flat."""
        return self.masters.flat[0].detach().clone()

    def take(self, adapter: Tensor) -> None:
        """Give the policy the weights of `adapter`."""
        self.masters.flat[0].data.copy_(adapter)
        self.masters.write_back()

    def pack(self, groups: Sequence[Group]) -> Packed:
        return pack(groups, self.pad_id, self.accelerate.device)

    def passes(self, own: Sequence[T]) -> list[tuple[T, bool]]:
        """What this rank passes through the model, and whether it counts: a sharded one wants as many from every rank,
        so the last is repeated for those that have more."""
        idle = idle_passes(len(own)) if self.sharded else 0
        return [(one, True) for one in own] + [(one, False) for one in own[-1:]] * idle

    def summed(self, values: Sequence[float]) -> list[float]:
        """Each value's sum over the ranks."""
        total = torch.tensor(values, dtype=torch.float64, device=self.accelerate.device)
        return self.accelerate.reduce(total, "sum").tolist()  # type: ignore[no-any-return]

    def whitened(self, parts: list[Part]) -> list[Part]:
        flat = torch.cat([part.advantages[part.mask.bool()] for part in parts])
        every = gather_object([flat.cpu()])
        before = sum(len(own) for own in every[: self.accelerate.process_index])
        joined = torch.cat(list(every)).to(flat)
        white = whiten(joined, torch.ones_like(joined))[before : before + len(flat)]
        split = white.split([int(part.mask.sum()) for part in parts])
        return [
            part._replace(advantages=torch.zeros_like(part.advantages).masked_scatter(part.mask.bool(), own))
            for part, own in zip(parts, split, strict=True)
        ]


def rows_of(prior: Tensor, chosen: np.ndarray, mask: Tensor) -> Tensor:
    """The prior of the chosen prompts' texts, in the shape of their mask: (texts, longest text), 0 behind the end."""
    return prior[torch.from_numpy(chosen)].flatten(0, 1)[:, : mask.shape[1]].to(mask) * mask
