"""What a job is given: `run.json`, written by whoever starts it, read with `--config`."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from rlpf_pipeline.artifacts import Recipe
from rlpf_pipeline.errors import UserError
from rlpf_pipeline.settings import Settings


class RunConfig(BaseModel):
    """Settings, the recipe of the output, where inputs lie and where the output goes."""

    model_config = ConfigDict(extra="forbid")

    settings: Settings
    recipe: Recipe
    inputs: dict[str, Path]
    output: Path
    options: dict[str, str] = {}

    @classmethod
    def read(cls, path: Path) -> RunConfig:
        """Raises UserError where the file is missing or does not fit."""
        try:
            return cls.model_validate_json(path.read_text())
        except (OSError, ValidationError) as error:
            raise UserError(f"{path} is no run configuration: {error}") from error
