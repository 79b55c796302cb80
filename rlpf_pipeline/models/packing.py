"""Groups that share a prefix, packed so that the prefix is encoded once: [prefix, text 1, …, text k] in one row.

Every text attends to the prefix and to itself, never to its siblings, and its positions continue the prefix's, so
each text is computed exactly as if it stood alone behind the prefix. The reward model packs the variants of an ad
behind its context; PPO packs the samples of a prompt behind the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

PREFIX, PAD = -1, -2


class Group(NamedTuple):
    """Token ids of one shared prefix (at least one token) and of the texts behind it (at least one token each)."""

    prefix: Sequence[int]
    texts: Sequence[Sequence[int]]

    @property
    def length(self) -> int:
        return len(self.prefix) + sum(len(text) for text in self.texts)


class Packed(NamedTuple):
    """A batch of groups. Text tokens are also listed flat, in the order of groups, texts and positions.

    input_ids, position_ids: (rows, length). attention: (rows, 1, length, length), True where attention is allowed.
    row, position, predictor, text: (tokens,): where each text token stands, where its predecessor stands (the last
    prefix token for the first one), and the number of its text in the batch. lengths: (texts,).
    """

    input_ids: Tensor
    position_ids: Tensor
    attention: Tensor
    row: Tensor
    position: Tensor
    predictor: Tensor
    text: Tensor
    lengths: Tensor

    @property
    def targets(self) -> Tensor:
        """Ids of the text tokens: (tokens,)."""
        return self.input_ids[self.row, self.position]

    def last(self) -> tuple[Tensor, Tensor]:
        """Row and position of every text's last token, both (texts,)."""
        end = self.lengths.cumsum(0) - 1
        return self.row[end], self.position[end]

    def by_text(self, values: Tensor) -> Tensor:
        """Arrange flat token values (tokens,) as (texts, longest text), zero behind each text's end."""
        start = self.lengths.cumsum(0) - self.lengths
        column = torch.arange(len(values), device=values.device) - start[self.text]
        return values.new_zeros(len(self.lengths), int(self.lengths.max())).index_put((self.text, column), values)

    def mask(self) -> Tensor:
        """(texts, longest text): 1.0 at tokens, 0.0 behind the end."""
        return (torch.arange(int(self.lengths.max()), device=self.lengths.device) < self.lengths[:, None]).float()


def pack(groups: Sequence[Group], pad_id: int, device: torch.device | str = "cpu") -> Packed:
    """Pack `groups` into one batch, padded on the right to the longest."""
    rows, length = len(groups), max(group.length for group in groups)
    input_ids = torch.full((rows, length), pad_id)
    position_ids = torch.zeros((rows, length), dtype=torch.long)
    segment = torch.full((rows, length), PAD)
    row, position, predictor, text, lengths = [], [], [], [], []
    for r, group in enumerate(groups):
        at = len(group.prefix)
        input_ids[r, :at] = torch.tensor(group.prefix)
        position_ids[r, :at] = torch.arange(at)
        segment[r, :at] = PREFIX
        for number, ids in enumerate(group.texts):
            end = at + len(ids)
            input_ids[r, at:end] = torch.tensor(ids)
            position_ids[r, at:end] = len(group.prefix) + torch.arange(len(ids))
            segment[r, at:end] = number
            row += [r] * len(ids)
            position += range(at, end)
            predictor += [len(group.prefix) - 1, *range(at, end - 1)]
            text += [len(lengths)] * len(ids)
            lengths.append(len(ids))
            at = end
    flat = (torch.tensor(values, device=device) for values in (row, position, predictor, text, lengths))
    return Packed(input_ids.to(device), position_ids.to(device), _attention(segment).to(device), *flat)


def encode(trunk: nn.Module, packed: Packed) -> Tensor:
    """Hidden states of the packed groups: (rows, length, hidden)."""
    states: Tensor = trunk(
        input_ids=packed.input_ids, position_ids=packed.position_ids, attention_mask=packed.attention
    ).last_hidden_state
    return states


def _attention(segment: Tensor) -> Tensor:
    length = segment.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    query, key = segment[:, :, None], segment[:, None, :]
    visible = (key == PREFIX) | (key == query)
    # Padding attends to itself: a row without any key would turn into NaN.
    return ((causal & visible & (key != PAD)) | torch.eye(length, dtype=torch.bool)).unsqueeze(1)


def batches_by_tokens(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Indices of groups in batches of similar length, at most `tokens` padded tokens each (one group at least)."""
    batches: list[list[int]] = []
    longest = 0
    for index in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        longest = max(longest, lengths[index])
        if not batches or longest * (len(batches[-1]) + 1) > tokens:
            batches.append([])
            longest = lengths[index]
        batches[-1].append(index)
    return batches
