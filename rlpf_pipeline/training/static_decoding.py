"""Decoding for accelerators: tensors that stay where they are, and one step recorded as a CUDA graph, then replayed.

A small model's step takes the processor far longer to launch, kernel by kernel, than the accelerator to compute. A
replayed graph is one launch. Rows that have ended stay in the batch and say nothing more: a step takes as long without
them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import StaticLayer

from rlpf_pipeline.training.sampling import Sampling, draw


class StaticDecoder:
    """Draws `rows` texts behind prompts of up to `width` tokens, padded on the left."""

    def __init__(self, model: PreTrainedModel, rows: int, width: int, sampling: Sampling) -> None:
        self.model, self.rows, self.width, self.sampling = model, rows, width, sampling
        device, columns = model.device, width + sampling.max_new_tokens
        layers = range(model.config.num_hidden_layers)
        self.cache = Cache(layers=[StaticLayer(max_cache_len=columns) for _ in layers])
        self.seen = torch.zeros(rows, 1, 1, columns, dtype=torch.bool, device=device)
        self.uniform = torch.zeros(rows, sampling.max_new_tokens, device=device)
        self.ids = torch.zeros(rows, sampling.max_new_tokens, dtype=torch.long, device=device)
        self.token, self.position = (torch.zeros(rows, 1, dtype=torch.long, device=device) for _ in range(2))
        self.ended = torch.zeros(rows, dtype=torch.bool, device=device)
        self.place = torch.zeros(1, dtype=torch.long, device=device)
        self.graph: torch.cuda.CUDAGraph | None = None

    @torch.no_grad()
    def draw(self, logits: Tensor, prompts: DynamicCache, attention: Tensor, uniform: Tensor) -> Tensor:
        """Token ids (rows, max_new_tokens), the pad token behind a text's end mark.

        logits: (prompts, vocabulary), of each text's first token. prompts: the prompts' cache, `width` tokens wide.
        attention: (prompts, width), 1 at a prompt's tokens. uniform: (rows, max_new_tokens).
        """
        samples = self.rows // len(logits)
        self.begin(prompts, attention.repeat_interleave(samples, 0), uniform)
        self.take(logits.repeat_interleave(samples, 0))
        for _ in range(self.sampling.max_new_tokens - 1):
            if self.ended.all():
                break
            self.advance()
        return self.ids

    def begin(self, prompts: DynamicCache, attention: Tensor, uniform: Tensor) -> None:
        samples = self.rows // prompts.layers[0].keys.shape[0]
        for layer, prompt in zip(self.cache.layers, prompts.layers, strict=True):
            keys, values = (states.repeat_interleave(samples, 0) for states in (prompt.keys, prompt.values))
            if not layer.is_initialized:
                layer.lazy_initialization(keys, values)
            layer.keys[:, :, : self.width] = keys
            layer.values[:, :, : self.width] = values
            layer.cumulative_length.fill_(self.width)
        self.seen.zero_()
        self.seen[:, 0, 0, : self.width] = attention.bool()
        self.position.copy_(attention.sum(1, keepdim=True))
        self.uniform.copy_(uniform)
        self.ids.fill_(self.sampling.pad_id)
        self.ended.zero_()
        self.place.zero_()

    def take(self, logits: Tensor) -> None:
        """Draw the next token of every text that has not ended. logits: (rows, vocabulary)."""
        _, temperature, eos_id, pad_id = self.sampling
        drawn = draw(logits, temperature, self.uniform.index_select(1, self.place).squeeze(1))
        self.token.copy_(drawn.masked_fill(self.ended, pad_id)[:, None])
        self.ids.index_copy_(1, self.place, self.token)
        self.ended.logical_or_(drawn == eos_id)
        self.place += 1

    def step(self) -> None:
        """Every text's last token into the cache, its next one out."""
        self.seen.index_fill_(3, self.place + (self.width - 1), True)
        logits = self.model(
            input_ids=self.token,
            attention_mask=self.seen,
            position_ids=self.position,
            past_key_values=self.cache,
            use_cache=True,
        ).logits[:, -1]
        self.position += 1
        self.take(logits)

    def advance(self) -> None:
        """`step`: recorded the first time, replayed from then on."""
        if self.model.device.type != "cuda":
            self.step()
        elif self.graph is not None:
            self.graph.replay()
        else:
            # Recording runs nothing; what a first run sets up must not be recorded.
            beside, here = torch.cuda.Stream(), torch.cuda.current_stream()
            beside.wait_stream(here)
            with torch.cuda.stream(beside):
                self.step()
            here.wait_stream(beside)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.step()
