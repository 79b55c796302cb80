"""Sampling k texts for each prompt: the prompt is computed once.

Every text has random numbers of its own, so that what it says depends neither on when its neighbours end nor on how
texts are divided among ranks. On a CPU finished rows leave the batch; an accelerator replays one recorded step
(`static_decoding.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from peft import PeftModel
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from rlpf_pipeline.models.adapters import MergedCopy
from rlpf_pipeline.training.sampling import Sampling, draw
from rlpf_pipeline.training.static_decoding import StaticDecoder

COMPACT_BELOW = 0.8
WIDTH_STEP = 32


class Prefill(NamedTuple):
    """Prompts padded on the left, so that every next token stands in the same column: logits of the next token
    (prompts, vocabulary), keys and values, and attention (prompts, width), 1 at a prompt's tokens."""

    logits: Tensor
    cache: DynamicCache
    attention: Tensor


class Sampler:
    """Draws texts from a model whose weights may change in place between calls."""

    def __init__(self, model: PreTrainedModel, sampling: Sampling) -> None:
        self.model, self.sampling = model, sampling
        self.records = model.device.type == "cuda"
        self.static: StaticDecoder | None = None

    def sample(self, prompts: Sequence[Sequence[int]], samples: int, uniform: Tensor) -> list[list[list[int]]]:
        """Draw `samples` texts for each prompt; returns token ids [prompt][sample], ending in the end mark if finished.

        uniform: (prompts x samples, max_new_tokens), random numbers in [0, 1), one for each token that may be drawn.
        """
        way = self.in_place if self.records else self.row_by_row
        drawn = way(prompts, samples, uniform.to(self.model.device))
        return [drawn[start : start + samples] for start in range(0, len(drawn), samples)]

    @torch.inference_mode()
    def row_by_row(self, prompts: Sequence[Sequence[int]], samples: int, uniform: Tensor) -> list[list[int]]:
        """Texts whose rows leave the batch once they have ended."""
        max_new_tokens, temperature, eos_id, _ = self.sampling
        logits, cache, attention = self.prefill(prompts, max(map(len, prompts)))
        cache.batch_repeat_interleave(samples)
        logits, attention = logits.repeat_interleave(samples, 0), attention.repeat_interleave(samples, 0)
        drawn: list[list[int]] = [[] for _ in range(len(logits))]
        alive = torch.arange(len(logits), device=logits.device)
        for place in range(max_new_tokens):
            token = draw(logits, temperature, uniform[alive, place])
            for row, value in zip(alive.tolist(), token.tolist(), strict=True):
                if not drawn[row] or drawn[row][-1] != eos_id:
                    drawn[row].append(value)
            going = torch.tensor([drawn[row][-1] != eos_id for row in alive.tolist()], device=logits.device)
            if place == max_new_tokens - 1 or not self.goes_on(going):
                break
            if 0 < going.float().mean() < COMPACT_BELOW:
                keep = going.nonzero().squeeze(1)
                cache.batch_select_indices(keep)
                alive, token, attention = alive[keep], token[keep], attention[keep]
            attention = torch.cat([attention, attention.new_ones(len(attention), 1)], dim=1)
            logits = self.model(
                input_ids=token[:, None],
                attention_mask=attention,
                position_ids=attention.sum(1, keepdim=True) - 1,
                past_key_values=cache,
                use_cache=True,
            ).logits[:, -1]
        return drawn

    def goes_on(self, going: Tensor) -> bool:
        """Whether another token is drawn; going: (rows,), whether a text has not ended."""
        return bool(going.any())

    @torch.no_grad()
    def in_place(self, prompts: Sequence[Sequence[int]], samples: int, uniform: Tensor) -> list[list[int]]:
        """Texts drawn by a static decoder, which is kept for calls of the same size."""
        longest, rows, eos_id = max(map(len, prompts)), len(prompts) * samples, self.sampling.eos_id
        if self.static is None or self.static.rows != rows or self.static.width < longest:
            width = -(-longest // WIDTH_STEP) * WIDTH_STEP
            self.static = StaticDecoder(self.model, rows, width, self.sampling)
        drawn = self.static.draw(*self.prefill(prompts, self.static.width), uniform).tolist()
        return [ids[: ids.index(eos_id) + 1] if eos_id in ids else ids for ids in drawn]

    def prefill(self, prompts: Sequence[Sequence[int]], width: int) -> Prefill:
        pad_id, device = self.sampling.pad_id, self.model.device
        ids = torch.tensor([[pad_id] * (width - len(p)) + list(p) for p in prompts], device=device)
        attention = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
        cache = DynamicCache()
        # As a number, it would leave a view whose product with the output weights copies these once a prompt.
        last = torch.tensor([width - 1], device=device)
        logits = self.model(
            input_ids=ids,
            attention_mask=attention,
            position_ids=(attention.cumsum(1) - 1).clamp(min=0),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=last,
        ).logits[:, -1]
        return Prefill(logits, cache, attention)


class MergedSampler(Sampler):
    """Draws from an adapted model as it is at each call, by a copy with the adapter merged."""

    def __init__(self, policy: PeftModel, sampling: Sampling) -> None:
        self.merged = MergedCopy(policy)
        super().__init__(self.merged.model, sampling)

    def sample(self, prompts: Sequence[Sequence[int]], samples: int, uniform: Tensor) -> list[list[list[int]]]:
        self.merged.refresh()
        return super().sample(prompts, samples, uniform)


def batches_of_samples(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    samples: int,
    sampling: Sampling,
    generator: torch.Generator,
    batch_size: int,
) -> Iterator[list[list[list[int]]]]:
    """`Sampler.sample` for many prompts in order, about `batch_size` texts at a time."""
    per_batch, sampler = max(1, batch_size // samples), Sampler(model, sampling)
    for start in range(0, len(prompts), per_batch):
        batch = prompts[start : start + per_batch]
        uniform = torch.rand(len(batch) * samples, sampling.max_new_tokens, generator=generator)
        yield sampler.sample(batch, samples, uniform)


def gathered(batches: Iterable[list[list[list[int]]]], on_batch: Callable[[int], None]) -> list[list[list[int]]]:
    """All that `batches_of_samples` yields; `on_batch` hears how many prompts are done."""
    drawn: list[list[list[int]]] = []
    for batch in batches:
        drawn += batch
        on_batch(len(drawn))
    return drawn
