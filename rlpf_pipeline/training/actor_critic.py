"""The adapted policy with a value head: log-probabilities, values and entropies of packed response tokens.

What lies below the lowest adapter is the same for the policy, for its reference and in every epoch: `below` computes
it once per rollout. The reference is the policy with its adapter off.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from peft import PeftModel
from torch import Tensor, nn

from rlpf_pipeline.models import block_attention
from rlpf_pipeline.models.adapters import sibling, trained_parameters
from rlpf_pipeline.models.base import require_plain_logits
from rlpf_pipeline.models.frozen_layers import Cut, cut_trunk
from rlpf_pipeline.models.packing import Group, Packed, encode, pack
from rlpf_pipeline.training.losses import token_log_probs, token_log_probs_and_entropy


class Told(NamedTuple):
    """What the actor says of a batch, each (texts, longest text): log pi(token), V(state before it), entropy."""

    log_probs: Tensor
    values: Tensor
    entropy: Tensor | None


class ActorCritic(nn.Module):
    """One frozen base, one adapter, a linear critic on the adapted hidden states, zero at the start.

    temperature: of the distribution that is sampled from, and so the one whose log-probabilities count. own_critic: the
    critic reads the states of an adapter of its own, of the policy's shape, instead of the policy's. Raises UserError
    for a model whose logits are more than states times output weights.
    """

    def __init__(self, policy: PeftModel, temperature: float, own_critic: bool) -> None:
        super().__init__()
        self.policy, self.temperature = policy, temperature
        self.model = policy.get_base_model()
        require_plain_logits(self.model)
        self.model.set_attn_implementation(block_attention.NAME)
        hidden = policy.config.hidden_size
        self.value_head = nn.Linear(hidden, 1, device=policy.device, dtype=torch.float32)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)
        probe = pack([Group([5, 6], [[7, 8, 9]])], 0, policy.device)
        self.cut = cut_trunk(self.model.model, probe)
        self.critic = sibling(policy) if own_critic else None
        self.critic_cut = cut_trunk(self.critic.get_base_model().model, probe) if self.critic else None

    @property
    def adapter(self) -> list[nn.Parameter]:
        return trained_parameters(self.policy)

    def reference(self) -> AbstractContextManager[None]:
        """Within it, the actor speaks as the reference policy."""
        return self.policy.disable_adapter()

    def below(self, packed: Packed) -> Tensor | None:
        """Hidden states that enter the lowest adapted layer, or None where every layer is adapted."""
        return self.cut.below(packed) if self.cut else None

    def forward(self, packed: Packed, below: Tensor | None, with_entropy: bool = False) -> Told:
        """`below`: what `below(packed)` gave."""
        hidden = predicting(self.model.model, self.cut, packed, below)
        entropy = None
        if with_entropy:
            log_probs, flat = token_log_probs_and_entropy(*self.logits_of(hidden, packed))
            entropy = packed.by_text(flat)
        else:
            log_probs = token_log_probs(*self.logits_of(hidden, packed))
        if self.critic:
            hidden = predicting(self.critic.get_base_model().model, self.critic_cut, packed, below)
        values = self.value_head(hidden.float()).squeeze(-1) * hidden.shape[-1] ** -0.5
        return Told(packed.by_text(log_probs), packed.by_text(values), entropy)

    def log_probs(self, packed: Packed, below: Tensor | None) -> Tensor:
        """`forward`'s log-probabilities alone."""
        hidden = predicting(self.model.model, self.cut, packed, below)
        return packed.by_text(token_log_probs(*self.logits_of(hidden, packed)))

    def logits_of(self, hidden: Tensor, packed: Packed) -> tuple[Tensor, Tensor, Tensor, float]:
        return hidden, self.model.lm_head.weight, packed.targets, self.temperature


def predicting(model: nn.Module, cut: Cut | None, packed: Packed, below: Tensor | None) -> Tensor:
    """The states before each response token: (tokens, hidden)."""
    states = encode(model, packed) if below is None else cut.above(below, packed)
    return states[packed.row, packed.predictor]
