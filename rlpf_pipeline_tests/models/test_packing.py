from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from rlpf_pipeline.models import block_attention, packing, run_attention
from rlpf_pipeline.models.base import load_trunk
from rlpf_pipeline.models.packing import Group, batches_by_tokens, encode, pack
from rlpf_pipeline_tests.conftest import TINY

GROUPS = [Group([1, 5, 6], [[7, 8, 2], [9, 2]]), Group([1], [[10, 11, 12, 13, 2], [14, 2], [2]])]


def hidden_one_by_one(trunk: torch.nn.Module) -> list[torch.Tensor]:
    singles = [torch.tensor([[*group.prefix, *text]]) for group in GROUPS for text in group.texts]
    return [trunk(input_ids=ids).last_hidden_state[0, -1] for ids in singles]


def require_states_and_gradients_of_texts_on_their_own(cache: Path, attention: str) -> None:
    trunk = load_trunk(TINY, cache).double()
    alone = torch.stack(hidden_one_by_one(trunk))
    trunk.set_attn_implementation(attention)
    packed = pack(GROUPS, pad_id=0, one_row=attention != "sdpa")
    together = encode(trunk, packed)[packed.last()]
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-10)

    for name in ("q_proj", "k_proj", "v_proj"):
        weight = getattr(trunk.layers[0].self_attn, name).weight
        by_packing, by_singles = (
            torch.autograd.grad(states.square().sum(), weight, retain_graph=True)[0] for states in (together, alone)
        )
        torch.testing.assert_close(by_packing, by_singles, rtol=0, atol=1e-10)


def attention_run_by_run(q, k, v, query_ends, key_ends, longest_query, longest_key, *, scale, window_size, **_):  # type: ignore[no-untyped-def]
    """What flash attention computes, one run at a time: causal, counted from the runs' ends."""
    assert window_size == (-1, 0)
    assert longest_query == query_ends.diff().max()
    assert longest_key == key_ends.diff().max()
    k, v = (states.repeat_interleave(q.shape[1] // k.shape[1], 1) for states in (k, v))
    mixed = []
    for (a, b), (c, d) in zip(pairwise(query_ends.tolist()), pairwise(key_ends.tolist()), strict=True):
        products = torch.einsum("qhd,khd->hqk", q[a:b], k[c:d]) * scale
        seen = torch.ones(b - a, d - c, dtype=torch.bool).tril(d - c - (b - a))
        mixed.append(torch.einsum("hqk,khd->qhd", products.masked_fill(~seen, -torch.inf).softmax(-1), v[c:d]))
    return torch.cat(mixed)


@pytest.mark.usefixtures("double_norm")
@pytest.mark.parametrize("attention", ["sdpa", block_attention.NAME])
def test_packed_texts_have_the_states_and_gradients_of_texts_on_their_own(cache: Path, attention: str) -> None:
    require_states_and_gradients_of_texts_on_their_own(cache, attention)


@pytest.mark.usefixtures("double_norm")
def test_runs_of_tokens_have_the_states_and_gradients_of_texts_on_their_own(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "has_flash_attention", lambda device: True)
    monkeypatch.setattr(block_attention, "KERNEL_DTYPES", (torch.float64,))
    monkeypatch.setattr(run_attention, "varlen_attn", attention_run_by_run)
    require_states_and_gradients_of_texts_on_their_own(cache, block_attention.NAME)


def test_every_text_token_knows_its_predecessor() -> None:
    packed = pack([Group([1, 5, 6], [[7, 8], [9]])], pad_id=0)
    assert packed.input_ids[packed.row, packed.position].tolist() == [7, 8, 9]
    assert packed.input_ids[packed.row, packed.predictor].tolist() == [6, 7, 6]
    assert packed.by_text(torch.tensor([1.0, 2.0, 3.0])).tolist() == [[1.0, 2.0], [3.0, 0.0]]
    assert packed.mask().tolist() == [[1.0, 1.0], [1.0, 0.0]]


def test_batches_hold_every_group_once_in_order_within_the_budget() -> None:
    lengths = [7, 3, 30, 3, 8, 12, 2]
    batches = batches_by_tokens(lengths, tokens=16)
    assert batches == [[0, 1], [2], [3, 4], [5, 2 + 4]]


@pytest.mark.parametrize("one_row", [False, True])
def test_hardly_a_token_is_padding(one_row: bool) -> None:
    # texts of 12 to 36 tokens, 2 to 8 of an ad: like Upworthy's headlines
    rng = np.random.default_rng(5)
    groups = [Group([1], [[7] * n for n in rng.integers(12, 36, rng.integers(2, 9))]) for _ in range(200)]
    batches = [[groups[i] for i in batch] for batch in batches_by_tokens([g.length for g in groups], 1024)]
    packed = [pack(batch, pad_id=0, one_row=one_row) for batch in batches]
    assert sum(p.used for p in packed) == sum(group.length for group in groups)
    assert 1 - sum(p.used for p in packed) / sum(p.input_ids.numel() for p in packed) <= 0.05


def test_several_groups_share_a_row_blind_to_each_other() -> None:
    packed = pack([Group([1], [[5, 9], [6]]), Group([1], [[7]]), Group([1], [[8]])], pad_id=0)
    assert packed.input_ids.tolist() == [[1, 5, 9, 6], [1, 7, 1, 8]]
    assert packed.position_ids.tolist() == [[0, 1, 2, 1], [0, 1, 0, 1]]
    seen = [[row.nonzero().flatten().tolist() for row in mask[0]] for mask in packed.attention]
    assert seen == [[[0], [0, 1], [0, 1, 2], [0, 3]], [[0], [0, 1], [2], [2, 3]]]


def test_padding_sees_itself_at_least() -> None:
    packed = pack([Group([1], [[5, 6, 7]]), Group([1], [[8]])] * 5, pad_id=0)
    assert packed.attention.any(-1).all()
