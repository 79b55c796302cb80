"""Our LoRA layer against peft's, in float64: the same result, the same gradients, and peft's other modes."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from rlpf_pipeline.models.lora_linear import LoraLinear, fuse_lora

SHAPES = ((6,), (3, 6), (2, 3, 6))


@pytest.fixture
def pair() -> tuple[PeftModel, PeftModel]:
    """Equal adapted models: peft's, and ours."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 4, bias=False)).double()
    adapters = LoraConfig(r=2, lora_alpha=5, target_modules=["0", "2"], init_lora_weights=False)
    theirs = get_peft_model(model, adapters)  # type: ignore[arg-type]
    ours = copy.deepcopy(theirs)
    fuse_lora(ours)
    assert sum(isinstance(module, LoraLinear) for module in ours.modules()) == 2
    return theirs, ours


@pytest.mark.parametrize("shape", SHAPES)
def test_states_and_gradients_are_those_of_peft(pair: tuple[PeftModel, PeftModel], shape: tuple[int, ...]) -> None:
    x = torch.randn(*shape, dtype=torch.float64)
    found = []
    for model in pair:
        own = x.clone().requires_grad_()
        y = model(own)
        y.square().sum().backward()
        trained = [p.grad for p in model.parameters() if p.requires_grad]
        assert len(trained) == 4
        found.append([y, own.grad, *trained])
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_it_can_be_switched_off_and_merged(pair: tuple[PeftModel, PeftModel]) -> None:
    theirs, ours = pair
    x = torch.randn(3, 6, dtype=torch.float64)
    adapted = ours(x)
    with theirs.disable_adapter(), ours.disable_adapter():
        torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)
        assert not torch.allclose(ours(x), adapted)
    torch.testing.assert_close(ours.merge_and_unload()(x), adapted, rtol=0, atol=1e-12)


def test_a_second_adapter_is_peft_s_own(pair: tuple[PeftModel, PeftModel]) -> None:
    for model in pair:
        torch.manual_seed(1)
        model.add_adapter("other", LoraConfig(r=3, target_modules=["0"], init_lora_weights=False))
        model.set_adapter("other")
    x = torch.randn(3, 6, dtype=torch.float64)
    torch.testing.assert_close(pair[1](x), pair[0](x), rtol=0, atol=0)
