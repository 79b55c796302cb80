"""A trunk cut below its lowest adapter: what lies beneath gives the same hidden states in every epoch.

With LoRA on the top N layers, the lower ones are run once per batch; their hidden states are kept in a file, and later
epochs start from them. The states are those that a full pass would hand upwards, so scores and gradients are the same.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from rlpf_pipeline.models.base import keep_layers
from rlpf_pipeline.models.packing import Packed, run_packed


class Cut(NamedTuple):
    """Two models that share the trunk's modules: `upper` starts from the states of `lower`, before the final norm."""

    lower: nn.Module
    upper: nn.Module

    @torch.no_grad()
    def below(self, packed: Packed) -> Tensor:
        """Hidden states that enter the lowest adapted layer: (rows, length, hidden)."""
        return run_packed(self.lower, packed, input_ids=packed.input_ids)

    def above(self, states: Tensor, packed: Packed) -> Tensor:
        """Hidden states at the top, from those of `below`: (rows, length, hidden)."""
        return run_packed(self.upper, packed, inputs_embeds=states)


def cut_trunk(trunk: nn.Module, probe: Packed) -> Cut | None:
    """Cut an adapted trunk below its lowest adapter.

    None where nothing lies below, or where the two parts, one after the other on the batch `probe`, do not give the
    trunk's own states: some architectures do more to their input than to look it up.
    """
    model = trunk.get_base_model() if isinstance(trunk, PeftModel) else trunk
    layers = getattr(model, "layers", None)
    if not isinstance(layers, nn.ModuleList) or not isinstance(getattr(model, "norm", None), nn.Module):
        return None
    adapted = [any(isinstance(module, LoraLayer) for module in layer.modules()) for layer in layers]
    lowest = adapted.index(True) if True in adapted else 0
    if lowest == 0:
        return None
    cut = Cut(_part(model, slice(lowest), nn.Identity()), _part(model, slice(lowest, None), model.norm))
    with torch.no_grad():
        whole, joined = run_packed(model, probe, input_ids=probe.input_ids), cut.above(cut.below(probe), probe)
    return cut if torch.equal(whole, joined) else None


def _part(model: nn.Module, kept: slice, norm: nn.Module) -> nn.Module:
    part = copy.copy(model)
    part._modules = {**model._modules, "norm": norm}
    part.config = copy.copy(model.config)
    return keep_layers(part, kept)


class StateFile:
    """Tensors by name in one file, computed when first asked for; use as a context manager, which closes it.

    The file loses its name once it is open, so that nothing of it is left however the process ends. Beyond `limit`
    bytes nothing more is kept: what does not fit is computed each time. Read, not mapped, so that it does not count as
    the process's memory.
    """

    def __init__(self, path: Path, limit: int) -> None:
        self.path, self.limit = path, limit
        self.bytes = 0
        self._places: dict[Hashable, tuple[int, torch.Size, torch.dtype]] = {}

    def __enter__(self) -> StateFile:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("w+b")
        self.path.unlink()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def get(self, name: Hashable, compute: Callable[[], Tensor], device: torch.device | str) -> Tensor:
        """The tensor kept under `name`; computed, and kept if it fits, the first time."""
        if name not in self._places:
            tensor = compute()
            size = tensor.numel() * tensor.element_size()
            if self.bytes + size <= self.limit:
                self._places[name] = self.bytes, tensor.shape, tensor.dtype
                self._file.seek(self.bytes)
                self._file.write(tensor.contiguous().cpu().view(torch.uint8).numpy().data)
                self.bytes += size
            return tensor
        start, shape, dtype = self._places[name]
        tensor = torch.empty(shape, dtype=dtype)
        self._file.seek(start)
        self._file.readinto(tensor.view(torch.uint8).numpy().data)
        return tensor.to(device)
