"""How a text is drawn: token by token at a temperature, until its end mark or a limit.

Samples come from softmax(logits / temperature) without truncation, so that the log-probability computed later is
that of the distribution sampled from.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from rlpf_pipeline.settings import PolicySettings, TeacherSettings

BLOCK = 256
BELOW_ONE = 1 - 2**-24


class Sampling(NamedTuple):
    max_new_tokens: int
    temperature: float
    eos_id: int
    pad_id: int

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, settings: PolicySettings | TeacherSettings) -> Sampling:
        return cls(settings.max_new_tokens, settings.temperature, tokenizer.eos_token_id, tokenizer.pad_token_id)


def draw(logits: Tensor, temperature: float, uniform: Tensor) -> Tensor:
    """One token per row from softmax(logits / temperature), by inverting the cumulative distribution at `uniform`.

    In two steps, first among blocks of tokens, then within one: a sum over a whole vocabulary, running from token to
    token, takes longer than all else here, and rounds more. logits: (rows, vocabulary). uniform, and what is returned:
    (rows,).
    """
    vocabulary = logits.shape[-1]
    chances = torch.softmax(logits.float() / temperature, dim=-1)
    blocks = F.pad(chances, (0, -vocabulary % BLOCK)).unflatten(-1, (-1, BLOCK))
    mass = blocks.sum(-1)
    until = mass.cumsum(-1)
    # Rounding leaves the last sum near 1, not at it: scaling by it keeps every draw inside the vocabulary.
    place = uniform[:, None] * until[:, -1:]
    block = torch.searchsorted(until, place, right=True).clamp(max=until.shape[-1] - 1)
    share = (place - until.gather(1, block)) / mass.gather(1, block) + 1
    within = blocks.take_along_dim(block[..., None], 1).squeeze(1).cumsum(-1)
    inside = torch.searchsorted(within, share.clamp(0, BELOW_ONE) * within[:, -1:], right=True).clamp(max=BLOCK - 1)
    return (block * BLOCK + inside).squeeze(1).clamp(max=vocabulary - 1)
