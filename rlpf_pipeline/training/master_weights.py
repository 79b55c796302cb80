"""AdamW on float32 copies of the trained parameters.

bfloat16 holds eight bits: an update below 1/256 of a weight would be lost in it. The copies lie in one flat tensor
per group of parameters, so that an optimiser step, a sum over ranks and a checkpoint each touch two or three.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

Group = tuple[Sequence[nn.Parameter], float]


class MasterWeights:
    """Optimiser over groups of (parameters, learning rate); the parameters follow their copies after each step."""

    def __init__(self, groups: Sequence[Group], weight_decay: float) -> None:
        self.parameters = [list(parameters) for parameters, _ in groups]
        self.rates = [rate for _, rate in groups]
        self.flat = [nn.Parameter(torch.cat([p.detach().float().flatten() for p in own])) for own in self.parameters]
        groups_of_copies = [{"params": [flat], "lr": rate} for flat, rate in zip(self.flat, self.rates, strict=True)]
        self.optimizer = torch.optim.AdamW(groups_of_copies, weight_decay=weight_decay, fused=True)

    def collect_gradients(self) -> list[Tensor]:
        """Move the parameters' gradients to their copies; returns them, flat."""
        for flat, own in zip(self.flat, self.parameters, strict=True):
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in own]
            flat.grad = torch.cat([gradient.float().flatten() for gradient in gradients])
            for parameter in own:
                parameter.grad = None
        return [flat.grad for flat in self.flat]

    def step(self, schedule: float, max_norm: float) -> None:
        """One AdamW step at `schedule` times the learning rates, gradients clipped to a common norm."""
        nn.utils.clip_grad_norm_(self.flat, max_norm)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * schedule
        self.optimizer.step()
        self.write_back()

    @torch.no_grad()
    def write_back(self) -> None:
        """Bring the copies' values into the parameters."""
        for flat, own in zip(self.flat, self.parameters, strict=True):
            pieces = flat.split([p.numel() for p in own])
            for parameter, piece in zip(own, pieces, strict=True):
                parameter.copy_(piece.view_as(parameter))

    def state(self) -> dict[str, Tensor]:
        """All that a resumed run needs, as tensors by name."""
        tensors = {f"weights.{i}": flat.detach() for i, flat in enumerate(self.flat)}
        for i, flat in enumerate(self.flat):
            tensors |= {f"{name}.{i}": value for name, value in self.optimizer.state[flat].items()}
        return tensors

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go on from `state()`."""
        for i, flat in enumerate(self.flat):
            flat.copy_(tensors[f"weights.{i}"])
            self.optimizer.state[flat] = {
                name.rpartition(".")[0]: value.to(flat.device)
                for name, value in tensors.items()
                if name.endswith(f".{i}") and not name.startswith("weights.")
            }
        self.write_back()
