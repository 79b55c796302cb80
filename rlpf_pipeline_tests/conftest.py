"""Fixtures shared by the tests: the tiny base model, made once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from rlpf_pipeline import sentence_embeddings
from rlpf_pipeline.settings import BaseModelSettings
from rlpf_pipeline.training.job import be_deterministic

TINY = BaseModelSettings(name="tiny", dtype="float32")
THINKS_ALOUD = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}"
    "{% if message.role == 'assistant' %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ message.content + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{% endif %}"
)
"""A chat template that does as Qwen3's."""

needs_minilm = pytest.mark.skipif(
    not sentence_embeddings.is_installed(), reason="the weights of all-MiniLM-L6-v2 are not installed"
)


def pytest_configure() -> None:
    """The user's settings are not the tests'; nor is a GPU, unless ACCELERATE_USE_CPU=false asks for it."""
    for name in ("RLPF_ACCELERATE", "RLPF_DATA", "RLPF_HOME", "RLPF_PROFILE", "RLPF_SETTINGS"):
        os.environ.pop(name, None)
    os.environ.setdefault("ACCELERATE_USE_CPU", "true")


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder in which the tiny base model is made on first use."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def double_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    """RMSNorm in the precision of its input: transformers' own rounds to float32, which hides what a test in float64
    asks about."""

    def forward(self: LlamaRMSNorm, states: torch.Tensor) -> torch.Tensor:
        return self.weight * states * torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)

    monkeypatch.setattr(LlamaRMSNorm, "forward", forward)


@pytest.fixture
def deterministic() -> Iterator[None]:
    """As in a job."""
    be_deterministic()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """The tiny model's products are too small to share: a second thread only waits for the first."""
    torch.set_num_threads(1)
