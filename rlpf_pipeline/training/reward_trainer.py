"""Training the reward model: each variant is encoded once, and all pairs of its ad come from that forward pass.

With K variants, trl's RewardTrainer encodes each of them K - 1 times; here each counts once, and the ad's context is
a shared prefix. Batches hold ads of similar length up to a token budget.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from rlpf_pipeline.models.packing import Packed, batches_by_tokens, pack
from rlpf_pipeline.models.reward_model import RewardModel
from rlpf_pipeline.settings import RewardSettings
from rlpf_pipeline.training.bootstrap import bootstrap_counts
from rlpf_pipeline.training.job import accelerator
from rlpf_pipeline.training.losses import bradley_terry_loss
from rlpf_pipeline.training.reporter import Reporter
from rlpf_pipeline.training.snapshot import Ad


def train_reward_model(
    model: RewardModel, ads: Sequence[Ad], settings: RewardSettings, seed: int, reporter: Reporter
) -> dict[str, float]:
    """Train `model` in place on the ads' pairs and centre its scores; returns the last epoch's loss and accuracy."""
    accelerate = accelerator()
    groups = model.tokenize([(ad.context, ad.texts) for ad in ads])
    batches = batches_by_tokens([group.length for group in groups], settings.tokens_per_batch)
    counts = bootstrap_counts([ad.ad_id for ad in ads], settings.heads, seed)
    total = settings.epochs * math.ceil(len(batches) / accelerate.num_processes)
    head = [*model.head.parameters()]
    adapter = [p for p in model.trunk.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        [{"params": adapter, "lr": settings.learning_rate}, {"params": head, "lr": settings.head_learning_rate}],
        weight_decay=settings.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _warmup_cosine(step, total, settings.warmup))
    trained, optimizer = accelerate.prepare(model, optimizer)

    step = texts = 0
    for epoch in range(settings.epochs):
        losses, correct, pairs = [], 0.0, 0
        trained.train()
        for batch in _share(batches, np.random.default_rng([seed, epoch]), accelerate):
            packed = pack([groups[i] for i in batch], model.tokenizer.pad_token_id, accelerate.device)
            left, right = _pair_scores(trained(packed), packed, [ads[i] for i in batch])
            p, weight = _labels([ads[i] for i in batch], left)
            seen = np.repeat(counts[batch], [len(ads[i].left) for i in batch], axis=0)
            loss = bradley_terry_loss(left, right, p, weight, torch.from_numpy(seen).to(left))
            accelerate.backward(loss)
            accelerate.clip_grad_norm_([*adapter, *head], 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            step += 1
            texts += len(packed.lengths)
            losses.append(loss.item())
            correct += ((left.mean(1) > right.mean(1)) == (p > 0.5)).sum().item()
            pairs += len(p)
            reporter.progress(step, total, rate=(texts, "texts"), loss=float(np.mean(losses)), accuracy=correct / pairs)
    _centre(model, ads)
    return {"train_loss": float(np.mean(losses)), "train_accuracy": correct / pairs}


def _share(batches: list[list[int]], rng: np.random.Generator, accelerate) -> Iterator[list[int]]:  # type: ignore[no-untyped-def]
    """This rank's batches of an epoch, in a fresh order; every rank gets as many (the last ones wrap around)."""
    order = rng.permutation(len(batches))
    ranks = accelerate.num_processes
    order = np.resize(order, math.ceil(len(order) / ranks) * ranks)
    return (batches[i] for i in order[accelerate.process_index :: ranks])


def _pair_scores(scores: Tensor, packed: Packed, ads: Sequence[Ad]) -> tuple[Tensor, Tensor]:
    starts = np.cumsum([0, *(len(ad.texts) for ad in ads[:-1])])
    left = np.concatenate([start + ad.left for start, ad in zip(starts, ads, strict=True)])
    right = np.concatenate([start + ad.right for start, ad in zip(starts, ads, strict=True)])
    return scores[torch.from_numpy(left).to(scores.device)], scores[torch.from_numpy(right).to(scores.device)]


def _labels(ads: Sequence[Ad], like: Tensor) -> tuple[Tensor, Tensor]:
    p = np.concatenate([ad.p_left_better for ad in ads])
    weight = np.concatenate([ad.weight for ad in ads])
    return torch.from_numpy(p).to(like), torch.from_numpy(weight).to(like)


def _warmup_cosine(step: int, total: int, warmup: float) -> float:
    start = max(1, round(warmup * total))
    if step < start:
        return (step + 1) / start
    return 0.5 * (1 + math.cos(math.pi * (step - start) / max(1, total - start)))


def _centre(model: RewardModel, ads: Sequence[Ad]) -> None:
    """Shift scores to mean 0 over a sample of training texts: a Bradley-Terry score is free up to a constant."""
    scores = model.score([(ad.context, ad.texts) for ad in ads[:64]])
    model.center += torch.from_numpy(np.concatenate(scores).mean(axis=0)).to(model.center)
