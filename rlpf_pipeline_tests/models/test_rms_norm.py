"""The norm's gradient by hand against autograd's, and which norms are taken over."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from rlpf_pipeline.models.rms_norm import FrozenRMSNorm, fuse_norms

WIDTH = 7


def frozen(norm: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    nn.init.normal_(norm.weight)
    return norm.requires_grad_(False)


def state_and_gradient(norm: nn.Module, x: torch.Tensor, upstream: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    own = x.clone().requires_grad_()
    y = norm(own)
    y.backward(upstream)
    return y.detach(), own.grad


@pytest.mark.usefixtures("double_norm")
@pytest.mark.parametrize("shape", [(WIDTH,), (2, WIDTH), (2, 3, WIDTH)])
def test_state_and_gradient_are_those_of_autograd(shape: tuple[int, ...]) -> None:
    norm = frozen(LlamaRMSNorm(WIDTH, eps=0.03)).double()
    x, upstream = torch.randn(2, *shape, dtype=torch.float64)
    expected = state_and_gradient(norm, x, upstream)
    fuse_norms(norm)
    assert isinstance(norm, FrozenRMSNorm)
    for ours, theirs in zip(state_and_gradient(norm, x, upstream), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_by_hand_on_two_numbers() -> None:
    norm = LlamaRMSNorm(2, eps=0.0)
    fuse_norms(norm.requires_grad_(False))
    state, gradient = state_and_gradient(norm, torch.tensor([1.0, 7.0]), torch.tensor([1.0, 0.0]))
    # mean square 25, so r = .2; dL/dx = .2 (1, 0) - (1, 7) * .008 * 1/2
    torch.testing.assert_close(state, torch.tensor([0.2, 1.4]))
    torch.testing.assert_close(gradient, torch.tensor([0.196, -0.028]))


def test_in_bfloat16_it_is_as_near_to_float64_as_autograd_s() -> None:
    torch.manual_seed(1)
    x, upstream = torch.randn(2, 50, 64, dtype=torch.float64)
    exact = state_and_gradient(double(64), x, upstream)
    low = frozen(LlamaRMSNorm(64, eps=1e-5)).bfloat16()
    theirs = state_and_gradient(low, x.bfloat16(), upstream.bfloat16())
    fuse_norms(low)
    ours = state_and_gradient(low, x.bfloat16(), upstream.bfloat16())
    for own, their, true in zip(ours, theirs, exact, strict=True):
        assert own.dtype == torch.bfloat16
        assert (own - true).norm() <= 1.1 * (their - true).norm()


def double(width: int) -> nn.Module:
    norm = frozen(LlamaRMSNorm(width, eps=1e-5)).double()
    fuse_norms(norm)
    return norm


def test_a_norm_that_is_trained_or_of_another_kind_stays() -> None:
    trained, other = LlamaRMSNorm(WIDTH), GemmaRMSNorm(WIDTH).requires_grad_(False)
    other.variance_epsilon = other.eps  # as if it were a Llama's; but it multiplies by 1 + weight
    fuse_norms(nn.ModuleList([trained, other]))
    assert type(trained) is LlamaRMSNorm
    assert type(other) is GemmaRMSNorm
