"""Separately trained adapters on one base, side by side: an ensemble that says how sure it is.

Members differ by their seed alone: the adapter's random start, the order of batches, the bootstrap of the heads
(Lakshminarayanan et al. 2017). What lies below the adapters is encoded once for all of them.
"""

from __future__ import annotations

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rlpf_pipeline.models.adapters import ModelCard
from rlpf_pipeline.models.frozen_layers import cut_trunk
from rlpf_pipeline.models.packing import Group, Packed, encode
from rlpf_pipeline.models.reward_model import RewardModel


class RewardEnsemble(RewardModel):
    """Scores (texts, members x heads): the columns of each member's heads side by side."""

    def __init__(self, trunk: PeftModel, tokenizer: PreTrainedTokenizerBase, card: ModelCard) -> None:
        super().__init__(trunk, tokenizer, card)
        self.cut = cut_trunk(trunk, self.pack([Group([5, 6], [[7, 8], [9]])])) if self.shares_prefix else None

    def forward(self, packed: Packed) -> Tensor:
        below = self.cut.below(packed) if self.cut else None
        scores = []
        for adapter in self.card.adapters:
            self.trunk.set_adapter(adapter, inference_mode=True)
            hidden = encode(self.trunk, packed) if self.cut is None else self.cut.above(below, packed)
            scores.append(self.read_out(hidden, packed))
        heads = self.card.heads // len(scores)
        return torch.cat([every.split(heads, 1)[member] for member, every in enumerate(scores)], dim=1)
