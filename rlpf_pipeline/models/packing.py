"""Groups that share a prefix, packed so that the prefix is encoded once: [prefix, text 1, …, text k] in one row.

Every text attends to the prefix and to itself, never to its siblings, and its positions continue the prefix's, so
each text is computed exactly as if it stood alone behind the prefix. Several groups share a row, blind to each other,
so that hardly a token is padding. The reward model packs the variants of an ad behind its context; PPO packs the
samples of a prompt behind the prompt. Bidirectional encoders take groups of one text: a prefix that sees the text
cannot be shared. So do trunks with an attention of their own, which take no mask but that of padding: a row a text.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from rlpf_pipeline.models.block_attention import NAME, Blocks
from rlpf_pipeline.models.read_places import Read, places_read, reading
from rlpf_pipeline.models.run_attention import has_flash_attention, runs_of

PADDING = 0.04
ROW_STEP, SHAPE_STEP = 64, 8


class Group(NamedTuple):
    """Token ids of one shared prefix (at least one token) and of the texts behind it (at least one token each).

    features: (texts, width), what is known of each text without encoding it.
    """

    prefix: Sequence[int]
    texts: Sequence[Sequence[int]]
    features: np.ndarray | None = None

    @property
    def length(self) -> int:
        return len(self.prefix) + sum(len(text) for text in self.texts)

    def within(self, tokens: int) -> list[Group]:
        """The group cut into runs of texts of at most `tokens` tokens (one text at least), each behind the prefix."""
        runs = batches_by_tokens([len(text) for text in self.texts], tokens - len(self.prefix))
        features = [None if self.features is None else self.features[run] for run in runs]
        return [Group(self.prefix, [self.texts[i] for i in run], own) for run, own in zip(runs, features, strict=True)]

    def apart(self) -> list[Group]:
        """Each text in a group of its own."""
        features = [None] * len(self.texts) if self.features is None else self.features[:, None]
        return [Group(self.prefix, [text], own) for text, own in zip(self.texts, features, strict=True)]


class Packed(NamedTuple):
    """A batch of groups. Text tokens are also listed flat, in the order of groups, texts and positions.

    input_ids, position_ids: (rows, length). segment: (2, rows, length), number of the group (-1: padding) and of the
    text (-1: prefix) at each place. blocks: where they stand, for attention text by text; None for bidirectional use.
    row, position, predictor, text: (tokens,): where each text token stands, where its predecessor stands (the last
    prefix token for the first one), and the number of its text in the batch. lengths: (texts,). used: tokens of the
    groups, prefixes included; the rest of (rows, length) is padding. features: (texts, width), as the groups have them.
    read: where states at the top are read; None: everywhere.
    """

    input_ids: Tensor
    position_ids: Tensor
    segment: Tensor
    blocks: Blocks | None
    row: Tensor
    position: Tensor
    predictor: Tensor
    text: Tensor
    lengths: Tensor
    used: int
    features: Tensor | None
    read: Read | None = None

    @property
    def attention(self) -> Tensor:
        """(rows, 1, length, length), True where a token sees another: its prefix and its own text, as far as it.

        Padding sees padding, itself at least: a row without any key would turn into NaN.
        """
        group, text = self.segment
        visible = group[:, :, None] == group[:, None, :]
        if self.blocks is not None:
            visible &= (text[:, None, :] < 0) | (text[:, :, None] == text[:, None, :])
            visible = visible.tril_()
        return visible.unsqueeze(1)

    @property
    def targets(self) -> Tensor:
        """Ids of the text tokens: (tokens,)."""
        return self.input_ids[self.row, self.position]

    def last(self) -> tuple[Tensor, Tensor]:
        """Row and position of every text's last token, both (texts,)."""
        end = self.lengths.cumsum(0) - 1
        return self.row[end], self.position[end]

    def reading_last(self) -> Packed:
        """The same batch, of which only the states of the texts' last tokens will be read."""
        rows, length = self.input_ids.shape
        return self._replace(read=places_read(*self.last(), (rows, length), _up(len(self.lengths), SHAPE_STEP)))

    def by_text(self, values: Tensor) -> Tensor:
        """Arrange flat token values (tokens,) as (texts, longest text), zero behind each text's end."""
        start = self.lengths.cumsum(0) - self.lengths
        column = torch.arange(len(values), device=values.device) - start[self.text]
        return values.new_zeros(len(self.lengths), int(self.lengths.max())).index_put((self.text, column), values)

    def mask(self) -> Tensor:
        """(texts, longest text): 1.0 at tokens, 0.0 behind the end."""
        return (torch.arange(int(self.lengths.max()), device=self.lengths.device) < self.lengths[:, None]).float()


def pack(
    groups: Sequence[Group],
    pad_id: int,
    device: torch.device | str = "cpu",
    bidirectional: bool = False,
    one_row: bool = False,
    own_rows: bool = False,
) -> Packed:
    """Pack `groups` into one batch. `bidirectional`: texts see all of their group, which must hold one text only.
    `own_rows`: each group stands in a row of its own, for trunks that know no mask but that of padding.

    `one_row`, for attention text by text, to which rows mean nothing: sizes are rounded up, so that batches of a token
    budget have a handful of shapes. Kernels are prepared and kept for every shape they meet, and memory grows with it.
    Always so on an accelerator, where texts attend in runs of the row.
    """
    in_runs = not bidirectional and has_flash_attention(device)
    one_row = one_row or in_runs
    if bidirectional and any(len(group.texts) > 1 for group in groups):
        raise ValueError("a bidirectional encoder takes groups of one text")
    lengths = [group.length for group in groups]
    place = in_one_row if one_row else in_own_rows if own_rows else arrange
    row_of, start_of, rows, length = place(lengths)
    # A piece is a prefix or a text; its tokens stand together.
    pieces = np.array([1 + len(group.texts) for group in groups])
    size = np.array([len(ids) for group in groups for ids in (group.prefix, *group.texts)])
    group = np.repeat(np.arange(len(groups)), pieces)
    head = np.repeat(pieces.cumsum() - pieces, pieces)
    begin = size.cumsum() - size
    piece = np.repeat(np.arange(len(size)), size)
    is_prefix = (head == np.arange(len(size)))[piece]
    inside = np.arange(len(piece)) - begin[piece]
    row, column = row_of[group][piece], (start_of[group] + begin - begin[head])[piece] + inside
    prefix_size = size[head][piece]

    grid = np.full((4, rows, length), -1)
    grid[:, row, column] = (
        list(chain.from_iterable(chain(g.prefix, *g.texts) for g in groups)),
        np.where(is_prefix, inside, prefix_size + inside),
        group[piece],
        np.where(is_prefix, -1, piece),
    )
    ids, positions, *segment = torch.from_numpy(grid).to(device)
    predictor = np.where(inside == 0, start_of[group][piece] + prefix_size - 1, column - 1)
    number = np.cumsum(head != np.arange(len(size))) - 1
    flat = (torch.from_numpy(values[~is_prefix]).to(device) for values in (row, column, predictor, number[piece]))
    blocks = None
    if not bidirectional:
        step = SHAPE_STEP if one_row else 1
        own, of_own = _grid(piece, inside, size, row * length + column, rows * length, step)
        of_group, at = group[piece][is_prefix], inside[is_prefix]
        prefixes = size[head == np.arange(len(size))]
        prefix, of_prefix = _grid(of_group, at, prefixes, (row * length + column)[is_prefix], rows * length)
        unused = (0, len(own) - len(size))
        arrays = (own, prefix, of_own, of_prefix, np.pad(group, unused), np.pad(head != np.arange(len(size)), unused))
        runs = runs_of(size, head, length, device) if in_runs else None
        blocks = Blocks(*(torch.from_numpy(values).to(device) for values in arrays), runs)
    return Packed(
        ids.masked_fill(segment[0] < 0, pad_id),
        positions.clamp(min=0),
        torch.stack(segment),
        blocks,
        *flat,
        torch.from_numpy(size[head != np.arange(len(size))]).to(device),
        len(piece),
        joined_features(groups, device),
    )


def joined_features(groups: Sequence[Group], device: torch.device | str) -> Tensor | None:
    """The groups' features one below the other; None where a group has none."""
    features = [group.features for group in groups if group.features is not None]
    return torch.from_numpy(np.concatenate(features)).to(device) if len(features) == len(groups) else None


def encode(trunk: nn.Module, packed: Packed) -> Tensor:
    """Hidden states of the packed groups: (rows, length, hidden)."""
    return run_packed(trunk, packed, input_ids=packed.input_ids)


def run_packed(trunk: nn.Module, packed: Packed, **inputs: Tensor) -> Tensor:
    """The same from `input_ids` or `inputs_embeds`, with the attention that the trunk was loaded for."""
    if packed.blocks is not None and trunk.config._attn_implementation == NAME:
        attention = {"attention_mask": packed.blocks.mask(), "blocks": packed.blocks}
    elif trunk.config._attn_implementation == "eager":
        attention = {"attention_mask": (packed.segment[0] >= 0).long()}
    else:
        attention = {"attention_mask": packed.attention}
    with reading(packed.read):
        states: Tensor = trunk(**inputs, position_ids=packed.position_ids, **attention).last_hidden_state
    return states


def _grid(
    line: np.ndarray, column: np.ndarray, sizes: np.ndarray, places: np.ndarray, total: int, step: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Places by line and column, -1 behind a line's end, and the inverse (total,), -1 where a place is in no line.

    Lines and columns are rounded up to multiples of `step`.
    """
    grid, inverse = np.full((_up(len(sizes), step), _up(int(sizes.max()), step)), -1), np.full(total, -1)
    grid[line, column] = places
    inverse[places] = line * grid.shape[1] + column
    return grid, inverse


def _up(size: int, step: int) -> int:
    return -(-size // step) * step


def in_one_row(lengths: Sequence[int]) -> tuple[np.ndarray, np.ndarray, int, int]:
    """As `arrange`, one behind the other; the row's length rounded up, by an eighth at most."""
    until = np.cumsum([0, *lengths])
    step = max(1, min(ROW_STEP, int(until[-1]) // 8))
    return np.zeros(len(lengths), int), until[:-1], 1, _up(int(until[-1]), step)


def in_own_rows(lengths: Sequence[int]) -> tuple[np.ndarray, np.ndarray, int, int]:
    """As `arrange`, one below the other."""
    return np.arange(len(lengths)), np.zeros(len(lengths), int), len(lengths), max(lengths)


def arrange(lengths: Sequence[int]) -> tuple[np.ndarray, np.ndarray, int, int]:
    """Row and first column of each group, number of rows and their length.

    As many rows as leave no more than `PADDING` of the places empty, since short rows make cheap attention; in each
    trial the longest groups go first, each into the emptiest row (Graham 1969).
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    total = sum(lengths)
    for rows in range(max(1, total // lengths[order[0]]), 0, -1):
        filled = [(0, row) for row in range(rows)]
        row_of, start_of = np.empty(len(lengths), int), np.empty(len(lengths), int)
        for i in order:
            start_of[i], row_of[i] = filled[0]
            heapq.heapreplace(filled, (filled[0][0] + lengths[i], filled[0][1]))
        length = max(filled)[0]
        if total >= (1 - PADDING) * rows * length:
            break
    return row_of, start_of, rows, length


def batches_by_tokens(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Indices in their order, cut into batches of at most `tokens` tokens (one group at least)."""
    batches: list[list[int]] = []
    filled = 0
    for index, length in enumerate(lengths):
        if not batches or filled + length > tokens:
            batches.append([])
            filled = 0
        batches[-1].append(index)
        filled += length
    return batches
