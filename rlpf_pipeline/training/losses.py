"""Losses, advantages and KL estimators as pure functions of tensors; trainers only arrange them.

Shapes: (pairs,) for preferences; (responses, length) with a mask of ones at tokens for PPO.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

LOGITS_AT_ONCE = 1024


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


def token_log_probs(hidden: Tensor, output_weight: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """log softmax(hidden @ output_weight.T / temperature) at `targets`, in float32: (tokens,).

    hidden: (tokens, hidden), output_weight: (vocabulary, hidden), targets: (tokens,). Only the listed tokens get
    logits, `LOGITS_AT_ONCE` of them at a time, so no (batch, length, vocabulary) tensor exists, forward or backward.
    """
    return _in_chunks(_log_probs, hidden, output_weight, targets, temperature)


def token_log_probs_and_entropy(
    hidden: Tensor, output_weight: Tensor, targets: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """The same, and the entropy of each token's distribution in nats, both (tokens,)."""
    both = _in_chunks(_log_probs_and_entropy, hidden, output_weight, targets, temperature)
    return both[:, 0], both[:, 1]


def _in_chunks(
    statistic: Callable[[Tensor, Tensor, Tensor, float], Tensor],
    hidden: Tensor,
    output_weight: Tensor,
    targets: Tensor,
    temperature: float,
) -> Tensor:
    if len(hidden) <= LOGITS_AT_ONCE:
        return statistic(hidden, output_weight, targets, temperature)
    chunks = zip(hidden.split(LOGITS_AT_ONCE), targets.split(LOGITS_AT_ONCE), strict=True)
    # Checkpointed: the backward pass computes a chunk's logits again instead of finding all of them kept.
    return torch.cat(
        [
            checkpoint(statistic, own, output_weight, ids, temperature, use_reentrant=False, preserve_rng_state=False)
            for own, ids in chunks
        ]
    )


def _log_probs(hidden: Tensor, output_weight: Tensor, targets: Tensor, temperature: float) -> Tensor:
    logits = (hidden @ output_weight.T).float() / temperature
    return -F.cross_entropy(logits, targets, reduction="none")


def _log_probs_and_entropy(hidden: Tensor, output_weight: Tensor, targets: Tensor, temperature: float) -> Tensor:
    log_probs = torch.log_softmax((hidden @ output_weight.T).float() / temperature, dim=-1)
    entropy = -(log_probs.exp() * log_probs).sum(-1)
    return torch.stack([log_probs.gather(1, targets[:, None]).squeeze(1), entropy], dim=1)


def kl_k1(log_probs: Tensor, reference: Tensor) -> Tensor:
    """log policy - log reference of the tokens drawn: unbiased for KL(policy || reference) (Schulman 2020)."""
    return log_probs - reference


def kl_k3(log_probs: Tensor, reference: Tensor) -> Tensor:
    """exp(-k1) - 1 + k1: unbiased too, of lower variance and never negative (Schulman 2020)."""
    k1 = log_probs - reference
    return torch.expm1(-k1) + k1


def adapted_kl_coefficient(coefficient: float, kl: float, target: float, gain: float) -> float:
    """The next coefficient of the KL, by a proportional controller in its logarithm (Ziegler et al. 2019, 2.2).

    kl, target: nats per text. The error is relative and held within 0.2 on either side.
    """
    error = min(max(kl / target - 1, -0.2), 0.2)
    return coefficient * (1 + gain * error)


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
