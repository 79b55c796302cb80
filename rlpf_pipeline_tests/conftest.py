"""Fixtures shared by the tests: the tiny base model, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rlpf_pipeline.settings import BaseModelSettings

TINY = BaseModelSettings(name="tiny", dtype="float32")


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder in which the tiny base model is made on first use."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """The tiny model's products are too small to share: a second thread only waits for the first."""
    torch.set_num_threads(1)
