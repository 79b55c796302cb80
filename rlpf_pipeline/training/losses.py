"""Losses, advantages and KL estimators as pure functions of tensors; trainers only arrange them.

Shapes: (pairs,) for preferences; (responses, length) with a mask of ones at tokens for PPO.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def bradley_terry_loss(
    left: Tensor, right: Tensor, p_left_better: Tensor, weight: Tensor, counts: Tensor, margin: float = 0.0
) -> Tensor:
    """Weighted cross-entropy of sigmoid(left - right) against the soft label (Bradley & Terry 1952).

    left, right: (pairs, heads). p_left_better, weight: (pairs,). counts: (pairs, heads), how often each head sees the
    pair. margin: log odds taken from whichever side is held to be better (Touvron et al. 2023, eq. 2, for soft labels).
    Returns the sum over pairs of count x weight x cross-entropy, as the mean over heads: a scalar in nats.
    """
    difference, p = left - right, p_left_better[:, None]
    losses = p * F.softplus(margin - difference) + (1 - p) * F.softplus(margin + difference)
    return (counts * weight[:, None] * losses).sum() / left.shape[1]


def pointwise_loss(scores: Tensor, log_ctr: Tensor, exposure: Tensor, counts: Tensor) -> Tensor:
    """Squared error of a score against log CTR, weighted by exposure.

    scores, counts: (texts, heads). log_ctr, exposure: (texts,). Returns the sum over texts, as the mean over heads.
    """
    return (counts * exposure[:, None] * (scores - log_ctr[:, None]) ** 2).sum() / scores.shape[1]


def squared_correlation(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """Squared correlation of two differences over pairs, which have mean zero by symmetry: all (pairs,); a scalar."""
    product, square = (weight * x * y).sum(), (weight * x * x).sum() * (weight * y * y).sum()
    return product**2 / square.clamp(min=1e-12)


def token_log_probs(hidden: Tensor, output_weight: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """log softmax(hidden @ output_weight.T / temperature) at `targets`, in float32.

    hidden: (tokens, hidden), output_weight: (vocabulary, hidden), targets: (tokens,). Only the listed tokens get
    logits, so no (batch, length, vocabulary) tensor exists.
    """
    logits = (hidden @ output_weight.T).float() / temperature
    return -F.cross_entropy(logits, targets, reduction="none")


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` where mask is 1."""
    return (values * mask).sum() / mask.sum()


def whiten(values: Tensor, mask: Tensor) -> Tensor:
    """Shift and scale to mean 0 and variance 1 over the mask; zero outside it."""
    mean = masked_mean(values, mask)
    variance = masked_mean((values - mean) ** 2, mask)
    return (values - mean) * torch.rsqrt(variance + 1e-8) * mask


def leave_one_out(scores: Tensor, samples: int) -> Tensor:
    """Each score less the mean of its prompt's other samples (Kool et al. 2019); unchanged where it is the only one.

    scores: (prompts x samples,), the samples of a prompt together. A baseline free of the sample's own luck: how hard
    a prompt is no longer passes for how good its text is.
    """
    if samples == 1:
        return scores
    own = scores.view(-1, samples)
    return ((own - own.mean(1, keepdim=True)) * samples / (samples - 1)).flatten()


def shaped_rewards(scores: Tensor, log_ratio: Tensor, mask: Tensor, kl_coefficient: float) -> Tensor:
    """Per-token rewards: -beta (log policy - log reference) everywhere, plus the text's score at its last token.

    scores: (responses,). log_ratio, mask: (responses, length). The k1 estimator of the KL (Schulman 2020) in the
    reward, as in Ziegler et al. 2019, eq. 2.
    """
    rewards = -kl_coefficient * log_ratio * mask
    last = mask.sum(1).long() - 1
    return rewards.index_put((torch.arange(len(scores), device=scores.device), last), scores, accumulate=True)


def generalized_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """GAE (Schulman et al. 2016, eq. 16) over the response tokens.

    rewards, values, mask: (responses, length). Returns advantages and returns, both (responses, length), zero where
    mask is 0. The value behind a text's last token is 0.
    """
    values = values * mask
    following = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
    deltas = (rewards + gamma * following - values) * mask
    advantages = torch.zeros_like(deltas)
    running = torch.zeros_like(deltas[:, 0])
    for t in reversed(range(deltas.shape[1])):
        running = deltas[:, t] + gamma * lam * running
        advantages[:, t] = running
    advantages = advantages * mask
    return advantages, (advantages + values) * mask


def clipped_policy_loss(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, mask: Tensor, clip: float
) -> tuple[Tensor, Tensor]:
    """PPO's clipped surrogate (Schulman et al. 2017, eq. 7), negated, and the share of tokens where it is clipped."""
    ratio = torch.exp(log_probs - old_log_probs)
    free, clipped = ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages
    loss = -masked_mean(torch.minimum(free, clipped), mask)
    return loss, masked_mean((clipped < free).float(), mask).detach()


def clipped_value_loss(values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, clip: float) -> Tensor:
    """Half the squared error, with values held within `clip` of the old ones where that is the larger error."""
    held = old_values + (values - old_values).clamp(-clip, clip)
    return 0.5 * masked_mean(torch.maximum((values - returns) ** 2, (held - returns) ** 2), mask)
