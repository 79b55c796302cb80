"""A home of the tiny profile, empty or with every stage's manifest."""

from pathlib import Path

import pytest

from rlpf_pipeline.artifacts import publish
from rlpf_pipeline.defs.stages import STAGES, folder_of, recipe_of
from rlpf_pipeline.profiles import load_settings
from rlpf_pipeline.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings("tiny", (), tmp_path)


@pytest.fixture
def everything_built(settings: Settings) -> Settings:
    for name in STAGES:
        with publish(folder_of(name, settings), recipe_of(name, settings)):
            pass
    return settings
