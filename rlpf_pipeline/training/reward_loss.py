"""The reward model's loss on a part of a batch: summed over the parts of a batch, over its mass, it is the batch's.

A batch is cut into parts where memory needs it, and no term may depend on the cut. The squared correlation of reward
and length differences (reward.length_decorrelation) is no sum over pairs, but with the batch's sums P of w x y, X of
w x x and Y of w y y it is the largest value over b of 2 b P - b b X Y, taken at b = P / (X Y). With b known beforehand
and held fast, that is a sum over parts, with the batch's value and gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from rlpf_pipeline.settings import RewardSettings
from rlpf_pipeline.training.losses import bradley_terry_loss, pointwise_loss
from rlpf_pipeline.training.reward_batches import Part


def part_loss(scores: Tensor, part: Part, settings: RewardSettings, pull: Tensor | None) -> Tensor:
    """Loss of a part, summed. scores: (texts, heads). pull: `length_pull` of all parts, where the settings want it."""
    if settings.objective == "pointwise":
        return pointwise_loss(scores, part.log_ctr, part.exposure, part.text_counts)
    left, right = scores[part.left], scores[part.right]
    loss = bradley_terry_loss(left, right, part.p, part.weight, part.counts, settings.margin)
    return loss if pull is None else loss + pull.to(scores) @ length_sums(scores, part)[:2]


def length_sums(scores: Tensor, part: Part) -> Tensor:
    """Sums over pairs of w x y, w x x, w y y and w: (4,). x: differences of the mean head's rewards, y: of lengths."""
    reward = (scores[part.left] - scores[part.right]).mean(1)
    length = (part.lengths[part.left] - part.lengths[part.right]).to(reward.dtype)
    weight = part.weight.to(reward.dtype)
    return torch.stack([weight @ (reward * length), weight @ reward**2, weight @ length**2, weight.sum()])


@torch.no_grad()
def length_pull(
    scored: Iterable[tuple[Tensor, Part]], settings: RewardSettings, over_ranks: Callable[[Tensor], Tensor]
) -> Tensor | None:
    """What a part's sums of w x y and w x x count for in the loss, float64 (2,); None where reward may go with length.

    scored: scores and parts of this rank that are one batch together with those of the other ranks.
    """
    if not settings.length_decorrelation or settings.objective == "pointwise":
        return None
    own = [length_sums(scores, part).double().cpu() for scores, part in scored]
    product, reward, length, mass = over_ranks(torch.stack(own or [torch.zeros(4, dtype=torch.float64)]).sum(0))
    slope = product / (reward * length).clamp(min=1e-12)
    return settings.length_decorrelation * mass * torch.stack([2 * slope, -(slope**2) * length])
