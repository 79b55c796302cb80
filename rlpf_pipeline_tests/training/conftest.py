"""Fixtures shared by the tests of training."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from rlpf_pipeline.models.frozen_layers import StateFile


@pytest.fixture
def states(tmp_path: Path) -> Iterator[StateFile]:
    with StateFile(tmp_path / "states", 10**8) as file:
        yield file
