"""Attention text by text on an accelerator: flash attention over runs of tokens of any length, without padding.

In a packed row the pieces (prefixes and texts) stand one behind the other. Each piece's queries are a run of the row,
and its keys a run of their own: those of its prefix, gathered once more for every text, then the piece's own. Causal
attention counts from the runs' ends, so a text's first token sees the whole prefix and itself (Dao 2023).
"""

from __future__ import annotations

from inspect import signature
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

CAUSAL = (-1, 0)
KERNEL_DTYPES = (torch.bfloat16, torch.float16)
# torch 2.13 asks to be told of heads that share keys, torch 2.11 finds out.
SHARED_KEYS = {"enable_gqa": True} if "enable_gqa" in signature(varlen_attn).parameters else {}


class Runs(NamedTuple):
    """keys: (keys,), the place in the row of each key. query_ends, key_ends: (pieces + 1,) int32, where each piece's
    run ends, from 0. longest_query, longest_key: tokens."""

    keys: Tensor
    query_ends: Tensor
    key_ends: Tensor
    longest_query: int
    longest_key: int


def has_flash_attention(device: torch.device | str) -> bool:
    return torch.device(device).type == "cuda"


def runs_of(size: np.ndarray, head: np.ndarray, length: int, device: torch.device | str) -> Runs:
    """Runs of a row of `length` places. size: (pieces,), tokens of each piece, in the row's order. head: (pieces,), the
    number of each piece's prefix, its own for a prefix. Places behind the last piece are a piece that sees itself."""
    rest = length - int(size.sum())
    size, head = np.append(size, rest), np.append(head, len(size))
    begin = size.cumsum() - size
    shared = np.where(head == np.arange(len(size)), 0, size[head])
    keys = shared + size
    piece = np.repeat(np.arange(len(size)), keys)
    inside = np.arange(len(piece)) - (keys.cumsum() - keys)[piece]
    place = np.where(inside < shared[piece], begin[head][piece] + inside, (begin - shared)[piece] + inside)
    ends = (torch.from_numpy(np.append(0, sizes.cumsum()).astype(np.int32)).to(device) for sizes in (size, keys))
    return Runs(torch.from_numpy(place).to(device), *ends, int(size.max()), int(keys.max()))


def run_attention(query: Tensor, key: Tensor, value: Tensor, runs: Runs, scale: float) -> Tensor:
    """query: (1, heads, length, size), key, value: (1, key heads, length, size). Returns (1, length, heads, size)."""
    q, k, v = (states.squeeze(0).transpose(0, 1) for states in (query, key, value))
    k, v = (states.index_select(0, runs.keys) for states in (k, v))
    ends, longest = (runs.query_ends, runs.key_ends), (runs.longest_query, runs.longest_key)
    return varlen_attn(q, k, v, *ends, *longest, scale=scale, window_size=CAUSAL, **SHARED_KEYS).unsqueeze(0)
