"""Sampling k texts for each prompt: the prompt is computed once, finished rows leave the batch.

Samples come from softmax(logits / temperature) without truncation, so that the log-probability computed later is
that of the distribution sampled from. Every text has random numbers of its own, so that what it says depends neither
on when its neighbours end nor on how texts are divided among ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from rlpf_pipeline.settings import PolicySettings, TeacherSettings

COMPACT_BELOW = 0.8


class Sampling(NamedTuple):
    """How a text is drawn: token by token at a temperature, until its end mark or a limit."""

    max_new_tokens: int
    temperature: float
    eos_id: int
    pad_id: int

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, settings: PolicySettings | TeacherSettings) -> Sampling:
        return cls(settings.max_new_tokens, settings.temperature, tokenizer.eos_token_id, tokenizer.pad_token_id)


def sample(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], samples: int, sampling: Sampling, uniform: Tensor
) -> list[list[list[int]]]:
    """Draw `samples` texts for each prompt; returns token ids [prompt][sample], ending in the end mark where finished.

    uniform: (prompts x samples, max_new_tokens), random numbers in [0, 1), one for each token that may be drawn.
    """
    max_new_tokens, temperature, eos_id, pad_id = sampling
    rows = len(prompts) * samples
    drawn: list[list[int]] = [[] for _ in range(rows)]
    alive = torch.arange(rows, device=model.device)
    uniform = uniform.to(model.device)
    with torch.inference_mode():
        logits, cache, attention = _prefill(model, prompts, samples, pad_id)
        for place in range(max_new_tokens):
            token = draw(logits, temperature, uniform[alive, place])
            for row, value in zip(alive.tolist(), token.tolist(), strict=True):
                if not drawn[row] or drawn[row][-1] != eos_id:
                    drawn[row].append(value)
            going = torch.tensor([drawn[row][-1] != eos_id for row in alive.tolist()], device=model.device)
            if not going.any():
                break
            if going.float().mean() < COMPACT_BELOW:
                keep = going.nonzero().squeeze(1)
                cache.batch_select_indices(keep)
                alive, token, attention = alive[keep], token[keep], attention[keep]
            attention = torch.cat([attention, attention.new_ones(len(attention), 1)], dim=1)
            logits = model(
                input_ids=token[:, None],
                attention_mask=attention,
                position_ids=attention.sum(1, keepdim=True) - 1,
                past_key_values=cache,
                use_cache=True,
            ).logits[:, -1]
    return [drawn[start : start + samples] for start in range(0, rows, samples)]


def sample_in_batches(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    samples: int,
    sampling: Sampling,
    generator: torch.Generator,
    batch_size: int,
    on_batch: Callable[[int], None],
) -> list[list[list[int]]]:
    """`sample` for many prompts, about `batch_size` texts at a time; `on_batch` hears how many prompts are done."""
    per_batch = max(1, batch_size // samples)
    drawn: list[list[list[int]]] = []
    for start in range(0, len(prompts), per_batch):
        batch = prompts[start : start + per_batch]
        uniform = torch.rand(len(batch) * samples, sampling.max_new_tokens, generator=generator)
        drawn += sample(model, batch, samples, sampling, uniform)
        on_batch(len(drawn))
    return drawn


def draw(logits: Tensor, temperature: float, uniform: Tensor) -> Tensor:
    """One token per row from softmax(logits / temperature), by inverting the cumulative distribution at `uniform`.

    logits: (rows, vocabulary). uniform, and what is returned: (rows,).
    """
    cumulative = torch.softmax(logits.float() / temperature, dim=-1).cumsum(-1)
    # Rounding leaves the last sum near 1, not at it: scaling by it keeps every draw inside the vocabulary.
    place = uniform[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, place, right=True).squeeze(1).clamp(max=logits.shape[-1] - 1)


def _prefill(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], samples: int, pad_id: int
) -> tuple[Tensor, DynamicCache, Tensor]:
    longest = max(map(len, prompts))
    # Padded on the left, so that every row's next token stands in the same column.
    ids = torch.tensor([[pad_id] * (longest - len(p)) + list(p) for p in prompts], device=model.device)
    attention = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=model.device)
    cache = DynamicCache()
    # As a number, it would leave a view whose product with the output weights copies these once a prompt.
    last = torch.tensor([longest - 1], device=model.device)
    logits = model(
        input_ids=ids,
        attention_mask=attention,
        position_ids=(attention.cumsum(1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=last,
    ).logits[:, -1]
    cache.batch_repeat_interleave(samples)
    return logits.repeat_interleave(samples, 0), cache, attention.repeat_interleave(samples, 0)
