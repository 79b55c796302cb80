"""Ads as the batches of the reward trainer: each variant once, and all pairs of its ad from it.

A batch is what one optimiser step sees, whatever the number of ranks; a part of it is what is encoded at once. Both
depend on the ads alone, in an order drawn from their ids, so that the frozen layers' states of a part hold for every
epoch, seed and resumed run; only the order of the batches changes from epoch to epoch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.models.packing import Packed, batches_by_tokens
from rlpf_pipeline.models.reward_model import RewardModel
from rlpf_pipeline.settings import RewardSettings
from rlpf_pipeline.training.bootstrap import bootstrap_counts
from rlpf_pipeline.training.snapshot import Ad


class Part(NamedTuple):
    """What is encoded at once, or one ad that is too large for that. Pairs point at texts by their number in the part.

    pieces: its texts in order, packed; one piece but for such an ad. left, right, p, weight: (pairs,). counts: (pairs,
    heads), how often each head sees a pair. log_ctr, exposure: (texts,) and text_counts: (texts, heads), for the
    pointwise objective.
    """

    pieces: list[Packed]
    left: Tensor
    right: Tensor
    p: Tensor
    weight: Tensor
    counts: Tensor
    log_ctr: Tensor
    exposure: Tensor
    text_counts: Tensor

    @property
    def lengths(self) -> Tensor:
        """Tokens of each text: (texts,)."""
        return torch.cat([piece.lengths for piece in self.pieces])

    def once(self) -> Part:
        """As the mean over heads is judged on it: every pair and text once."""
        return self._replace(
            counts=torch.ones_like(self.counts[:, :1]), text_counts=torch.ones_like(self.text_counts[:, :1])
        )


class RewardBatches:
    """The ads of one split; `batches` lists their part numbers, `mass` what a batch's loss is divided by.

    Raises UserError for labels that are no numbers, and for a split of which no pair counts.
    """

    def __init__(self, model: RewardModel, ads: Sequence[Ad], settings: RewardSettings, seed: int) -> None:
        self.model, self.tokens_per_forward = model, settings.tokens_per_forward
        ads = sorted(ads, key=lambda ad: hashlib.sha256(ad.ad_id.encode()).digest())
        refuse_unusable(ads)
        tokenized = model.tokenize([(ad.context, ad.texts) for ad in ads])
        self.groups = [model.pieces(group, settings.tokens_per_forward) for group in tokenized]
        self.left, self.right = (_joined(ads, side, np.int64) for side in ("left", "right"))
        self.p, self.weight = pair_labels(ads, settings)
        self.log_ctr, self.exposure = text_labels(ads)
        self.pairs_until = np.cumsum([0, *(len(ad.left) for ad in ads)])
        self.texts_until = np.cumsum([0, *(len(ad.texts) for ad in ads)])
        self.counts = bootstrap_counts([ad.ad_id for ad in ads], settings.heads, seed)

        lengths = [sum(group.length for group in own) for own in self.groups]
        self.parts: list[list[int]] = []
        self.batches: list[list[int]] = []
        for batch in batches_by_tokens(lengths, settings.tokens_per_batch):
            cut = batches_by_tokens([lengths[i] for i in batch], settings.tokens_per_forward)
            self.batches.append(list(range(len(self.parts), len(self.parts) + len(cut))))
            self.parts += [[batch[i] for i in part] for part in cut]
        of_text = settings.objective == "pointwise"
        until, amounts = (self.texts_until, self.exposure) if of_text else (self.pairs_until, self.weight)
        self.part_mass = [float(sum(amounts[until[i] : until[i + 1]].sum() for i in part)) for part in self.parts]
        if not sum(self.part_mass):
            raise UserError(
                f"Of the {len(self.p):,} pairs of a split with {len(ads):,} ads none counts: each has weight 0 or a "
                f"p_value above reward.max_p_value ({settings.max_p_value}). Raise reward.max_p_value or add ads."
            )
        self.mass = [sum(self.part_mass[part] for part in batch) or 1.0 for batch in self.batches]

    def part(self, number: int) -> Part:
        """Packed tokens and labels of a part, on the model's device."""
        ads = self.parts[number]
        pairs, texts = _spans(self.pairs_until, ads), _spans(self.texts_until, ads)
        of_pair = np.repeat(np.arange(len(ads)), np.diff(self.pairs_until)[ads])
        of_text = np.repeat(np.arange(len(ads)), np.diff(self.texts_until)[ads])
        first = np.searchsorted(of_text, np.arange(len(ads)))[of_pair]
        counts = self.counts[ads]
        groups = [group for i in ads for group in self.groups[i]]
        pieces = batches_by_tokens([group.length for group in groups], self.tokens_per_forward)
        head = self.model.head.weight
        return Part(
            [self.model.pack([groups[i] for i in piece]) for piece in pieces],
            *(torch.from_numpy(side[pairs] + first).to(head.device) for side in (self.left, self.right)),
            *(torch.from_numpy(values[pairs]).to(head) for values in (self.p, self.weight)),
            torch.from_numpy(counts[of_pair]).to(head),
            *(torch.from_numpy(values[texts]).to(head) for values in (self.log_ctr, self.exposure)),
            torch.from_numpy(counts[of_text]).to(head),
        )


def refuse_unusable(ads: Sequence[Ad]) -> None:
    """Raises UserError for an ad whose labels or weights are not numbers: one of them would spoil every weight."""
    for ad in ads:
        if not (np.isfinite(ad.p_left_better).all() and np.isfinite(ad.weight).all()):
            raise UserError(
                f"Ad {ad.ad_id} has pairs whose p_left_better or weight is no finite number. Build the pairs again "
                "(`rlpf pairs`), or leave the ad out."
            )


def pair_labels(ads: Sequence[Ad], settings: RewardSettings) -> tuple[np.ndarray, np.ndarray]:
    """Label and weight of every pair, as the settings have them. Ties stay one half under hard labels."""
    p, weight, p_value = (_joined(ads, name, np.float64) for name in ("p_left_better", "weight", "p_value"))
    if settings.hard_labels:
        p = (np.sign(p - 0.5) + 1) / 2
    if settings.uniform_weights:
        weight = np.ones_like(weight)
    if settings.max_p_value is not None:
        weight = np.where(p_value <= settings.max_p_value, weight, 0.0)
    return p, weight


def text_labels(ads: Sequence[Ad]) -> tuple[np.ndarray, np.ndarray]:
    """log CTR of every text less its mean weighted by impressions, and impressions, which weigh alike in every split.

    Half a click and half an impression without one are added (Haldane 1956, Anscombe 1956): no CTR is 0.
    """
    impressions, clicks = (_joined(ads, name, np.float64) for name in ("impressions", "clicks"))
    log_ctr = np.log((clicks + 0.5) / (impressions + 1.0))
    return log_ctr - np.average(log_ctr, weights=impressions), impressions


def _joined(ads: Sequence[Ad], name: str, dtype: type) -> np.ndarray:
    return np.concatenate([np.asarray(getattr(ad, name), dtype) for ad in ads])


def _spans(until: np.ndarray, numbers: Sequence[int]) -> np.ndarray:
    return np.concatenate([np.arange(until[i], until[i + 1]) for i in numbers])
