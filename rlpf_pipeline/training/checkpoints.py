"""Checkpoints of a training run: tensors (safetensors) and small state (JSON), written whole or not at all.

A run that finds a checkpoint of its own recipe goes on from it; one of another recipe is left behind by a change of
settings, data or code, and is not taken up.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rlpf_pipeline.artifacts import building_of, swap_into_place, whole
from rlpf_pipeline.errors import UserError
from rlpf_pipeline.whole_files import remove


class Checkpoint(NamedTuple):
    """tensors: by name. state: plain data that JSON holds exactly (floats keep every bit)."""

    tensors: dict[str, Tensor]
    state: dict[str, Any]


class Checkpoints:
    """The latest checkpoint of one run, in `folder`; `recipe` identifies the run."""

    def __init__(self, folder: Path, recipe: str) -> None:
        self.folder, self.recipe = folder, recipe

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace the former checkpoint; a kill on the way leaves that one, or the new one, whole."""
        building = building_of(self.folder)
        remove(building)
        building.mkdir(parents=True)
        save_file(
            {name: t.detach().contiguous().cpu() for name, t in checkpoint.tensors.items()},
            building / "tensors.safetensors",
        )
        (building / "state.json").write_text(json.dumps({"recipe": self.recipe, **checkpoint.state}))
        swap_into_place(building, self.folder)

    def load(self) -> Checkpoint | None:
        """The checkpoint of this very recipe, or None. Raises UserError where it is damaged (a power cut)."""
        folder = whole(self.folder)
        path = folder / "state.json"
        if not path.is_file():
            return None
        try:
            state = json.loads(path.read_bytes())
            if state.pop("recipe") != self.recipe:
                return None
            return Checkpoint(load_file(folder / "tensors.safetensors"), state)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise UserError(
                f"The checkpoint {folder} is damaged: {error}. Remove it to train from the start."
            ) from error
