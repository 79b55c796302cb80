"""A linear layer with LoRA in three matrix products and nothing else: W x, A x, and s B (A x) added to W x.

peft scales and adds in passes of their own over a tensor as wide as the layer, forward and backward. On a CPU they take
a sixth of a wide layer's time and 4 % of a step (docs/reward-model.md); on a GPU each is one more kernel to launch.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners import lora
from torch import Tensor, nn

ADAPTER = "default"
"""peft's name for the one adapter that a model is trained with."""


class LoraLinear(lora.Linear):
    """peft's layer with the same parameters and the same result up to rounding, which happens once instead of thrice.

    Where the adapter is switched off, merged or not alone, it is peft's to the letter.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if kwargs or args or self.disable_adapters or self.merged or list(self.active_adapters) != [ADAPTER]:
            return super().forward(x, *args, **kwargs)
        rows = x.reshape(-1, x.shape[-1])
        reduced = self.lora_A[ADAPTER](self.lora_dropout[ADAPTER](rows))
        expanded = self.lora_B[ADAPTER].weight.t()
        summed = torch.addmm(self.base_layer(rows), reduced, expanded, alpha=self.scaling[ADAPTER])
        return summed.view(*x.shape[:-1], -1)


def fuse_lora(model: nn.Module) -> None:
    """Make every linear layer that peft has adapted a `LoraLinear`, in place."""
    for module in model.modules():
        if type(module) is lora.Linear:
            module.__class__ = LoraLinear
