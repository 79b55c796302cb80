"""Attention text by text: what a packed batch needs, and no more.

A mask over rows of several ads computes every product of tokens that may not see each other, and then drops them. Here
each text's queries meet the keys of its prefix and its own, gathered from the packed row: the same sums over far fewer
products (for ads of four headlines about a fifteenth). Registered with transformers as an attention implementation;
where a model runs without `blocks`, it is plain scaled-dot-product attention. On an accelerator, in half precision, the
pieces are runs for flash attention (`run_attention.py`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from rlpf_pipeline.models.run_attention import KERNEL_DTYPES, Runs, run_attention

NAME = "rlpf_blocks"


class Blocks(NamedTuple):
    """Where the pieces (prefixes and texts) of a packed batch stand among its places (rows x length, flat).

    own: (pieces, longest piece) and prefix: (groups, longest prefix), the places of their tokens, -1 behind the end.
    of_own, of_prefix: (places,), their inverses: where a place stands in them, flat, or -1. group: (pieces,), a piece's
    group. is_text: (pieces,), False for prefixes. runs: the same for flash attention; None on a CPU.
    """

    own: Tensor
    prefix: Tensor
    of_own: Tensor
    of_prefix: Tensor
    group: Tensor
    is_text: Tensor
    runs: Runs | None

    def mask(self) -> Tensor:
        """True where a piece's token sees a key: (pieces, 1, longest piece, longest prefix + longest piece).

        What stands behind a piece's end sees the piece's first place: a row without any key would turn into NaN.
        """
        length = self.own.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=self.own.device).tril()
        kept = self.own >= 0
        kept[:, 0] = True
        own = causal & kept[:, None, :]
        prefix = ((self.prefix >= 0)[self.group] & self.is_text[:, None])[:, None, :]
        return torch.cat([prefix.expand(-1, length, -1), own], dim=2).unsqueeze(1)


class _Rearrange(torch.autograd.Function):
    """Rows `values[index]`, zero where index is -1. `back` is its inverse, so that the gradient is a gather too."""

    @staticmethod
    def forward(ctx, values: Tensor, index: Tensor, back: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(back)
        return _take(values, index)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[no-untyped-def]
        return _take(gradient, ctx.saved_tensors[0]), None, None


def _take(values: Tensor, index: Tensor) -> Tensor:
    # A row of zeros to take where there is none: filling them in afterwards takes five times as long on a CPU.
    rows = torch.cat([values, values.new_zeros(1, values.shape[1])])
    return rows.index_select(0, torch.where(index < 0, len(values), index))


def block_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    blocks: Blocks | None = None,
    **options: object,
) -> tuple[Tensor, None]:
    """query: (rows, heads, length, size), key, value: (rows, key heads, length, size), attention_mask: `Blocks.mask`.

    Returns (rows, length, heads, size), zero at padding.
    """
    if blocks is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)
    rows, heads, length, size = query.shape
    scale = size**-0.5 if scaling is None else scaling
    if blocks.runs is not None and query.dtype in KERNEL_DTYPES:
        return run_attention(query, key, value, blocks.runs, scale), None
    q = _by_piece(query, blocks.own, blocks.of_own)
    k, v = (
        torch.cat(
            [
                _by_piece(states, blocks.prefix, blocks.of_prefix).index_select(0, blocks.group),
                _by_piece(states, blocks.own, blocks.of_own),
            ],
            dim=1,
        )
        for states in (key, value)
    )
    flat = _attend(q, k, v, attention_mask, scale).reshape(-1, heads * size)
    return _Rearrange.apply(flat, blocks.of_own, blocks.own.flatten()).view(rows, length, heads, size), None


def _by_piece(states: Tensor, places: Tensor, of_places: Tensor) -> Tensor:
    """(rows, heads, length, size) as (pieces, longest piece, heads, size), zero behind a piece's end."""
    heads, size = states.shape[1], states.shape[3]
    flat = states.transpose(1, 2).reshape(-1, heads * size)
    return _Rearrange.apply(flat, places.flatten(), of_places).view(*places.shape, heads, size)


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
    """softmax(query key' x scale) value. All (pieces, length, heads, size), keys of fewer heads are shared by several.

    Two batched products: with pieces this short torch's own kernel takes four times as long on a CPU, and on an
    accelerator it knows no mask together with shared keys.
    """
    pieces, length, heads, size = query.shape
    keys, shared = key.shape[1], key.shape[2]
    q = (query * scale).view(pieces, length, shared, -1, size).permute(0, 2, 3, 1, 4).reshape(pieces * shared, -1, size)
    k, v = (states.transpose(1, 2).reshape(pieces * shared, keys, size) for states in (key, value))
    products = torch.bmm(q, k.transpose(1, 2)).view(pieces, heads, length, keys)
    precise = products.to(torch.promote_types(products.dtype, torch.float32))
    unseen = torch.zeros_like(mask, dtype=precise.dtype).masked_fill_(~mask, -torch.inf)
    chances = precise.add_(unseen).softmax(-1).to(value.dtype)
    mixed = torch.bmm(chances.view(pieces * shared, -1, keys), v).view(pieces, shared, -1, length, size)
    return mixed.permute(0, 3, 1, 2, 4).reshape(pieces, length, heads, size)


AttentionInterface.register(NAME, block_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
