import math

import numpy as np
import pytest
import torch

from rlpf_pipeline.training import losses
from rlpf_pipeline.training.losses import (
    adapted_kl_coefficient,
    bradley_terry_loss,
    clipped_policy_loss,
    clipped_value_loss,
    generalized_advantages,
    kl_k1,
    kl_k3,
    leave_one_out,
    pointwise_loss,
    shaped_rewards,
    token_log_probs,
    token_log_probs_and_entropy,
    whiten,
)


def tensor(*values: object) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


ONCE = torch.ones(2, 1, dtype=torch.float64)


def test_equal_scores_cost_log_two_whatever_the_label() -> None:
    scores = tensor([0.3], [1.0])
    loss = bradley_terry_loss(scores, scores, tensor(0.9, 0.2), tensor(1.0, 5.0), ONCE)
    assert loss.item() == pytest.approx((1.0 + 5.0) * math.log(2))


def test_bradley_terry_gradient_is_weight_times_probability_less_label() -> None:
    left = tensor([1.0], [0.0]).requires_grad_()
    bradley_terry_loss(left, tensor([0.0], [0.0]), tensor(0.7, 0.5), tensor(2.0, 3.0), ONCE).backward()
    sigmoid_of_one = 1 / (1 + math.exp(-1))
    assert left.grad.flatten().tolist() == pytest.approx([(sigmoid_of_one - 0.7) * 2, 0.0])


def test_a_pair_of_weight_zero_does_not_count() -> None:
    left, right = tensor([2.0], [9.0]), tensor([0.0], [0.0])
    loss = bradley_terry_loss(left, right, tensor(1.0, 0.0), tensor(1.0, 0.0), ONCE)
    assert loss.item() == pytest.approx(math.log1p(math.exp(-2.0)))


def test_a_head_learns_from_a_pair_as_often_as_it_drew_it() -> None:
    left = tensor([0.0, 0.0, 0.0]).requires_grad_()
    bradley_terry_loss(left, tensor([0.0, 0.0, 0.0]), tensor(1.0), tensor(4.0), tensor([0.0, 1.0, 2.0])).backward()
    # (1/2 - 1) x count x weight, over 3 heads
    assert left.grad.tolist() == [pytest.approx([0.0, -2.0 / 3, -4.0 / 3])]


def test_a_margin_is_what_the_better_side_must_win_by() -> None:
    left, right = tensor([2.0], [0.0]), tensor([0.0], [2.0])
    loss = bradley_terry_loss(left, right, tensor(1.0, 0.0), tensor(1.0, 1.0), ONCE, margin=2.0)
    # each side wins by exactly the margin: log 2 twice
    assert loss.item() == pytest.approx(2 * math.log(2))


def test_pointwise_loss_by_hand() -> None:
    scores = tensor([-4.0, -3.0]).requires_grad_()
    loss = pointwise_loss(scores, tensor(-5.0), tensor(3.0), tensor([1.0, 2.0]))
    # 3 x (1 x 1^2 + 2 x 2^2) over 2 heads; gradient 2 x 3 x count x error over 2 heads
    loss.backward()
    assert loss.item() == pytest.approx(3 * (1 + 8) / 2)
    assert scores.grad.tolist() == [pytest.approx([3.0, 12.0])]


def test_advantages_by_hand() -> None:
    rewards, values, mask = tensor([0.0, 0.0, 1.0]), tensor([0.5, 0.2, 0.1]), tensor([1.0, 1.0, 1.0])
    # deltas: 0 + .9*.2 - .5 = -.32; 0 + .9*.1 - .2 = -.11; 1 - .1 = .9, discounted by .9*.5 = .45 each step back
    third = 0.9
    second = -0.11 + 0.45 * third
    first = -0.32 + 0.45 * second
    advantages, returns = generalized_advantages(rewards, values, mask, gamma=0.9, lam=0.5)
    assert advantages[0].tolist() == pytest.approx([first, second, third])
    assert returns[0].tolist() == pytest.approx([first + 0.5, second + 0.2, third + 0.1])


def test_nothing_behind_the_end_of_a_text_reaches_its_advantages() -> None:
    mask = tensor([1.0, 1.0, 0.0])
    quiet, _ = generalized_advantages(tensor([0.0, 1.0, 0.0]), tensor([0.1, 0.2, 0.0]), mask, 1.0, 0.95)
    noisy, _ = generalized_advantages(tensor([0.0, 1.0, 7.0]), tensor([0.1, 0.2, 9.0]), mask, 1.0, 0.95)
    assert quiet.tolist() == noisy.tolist()
    assert quiet[0, 2] == 0


def test_the_score_lands_on_the_last_token_and_the_kl_on_every_one() -> None:
    rewards = shaped_rewards(
        tensor(2.0, -1.0), tensor([0.1, 0.2, 0.3], [0.4, 0.0, 0.0]), tensor([1, 1, 1], [1, 0, 0]), kl_coefficient=0.5
    )
    assert rewards.flatten().tolist() == pytest.approx([-0.05, -0.1, 2 - 0.15, -1 - 0.2, 0, 0])


def test_leave_one_out_compares_samples_of_one_prompt_only() -> None:
    scores = torch.tensor([1.0, 2.0, 6.0, 10.0, 10.0, 13.0])
    assert leave_one_out(scores, 3).tolist() == [1 - 4, 2 - 3.5, 6 - 1.5, 10 - 11.5, 10 - 11.5, 13 - 10]


def test_a_lone_sample_keeps_its_score() -> None:
    scores = torch.tensor([1.0, 2.0])
    assert torch.equal(leave_one_out(scores, 1), scores)


def test_the_policy_loss_stops_paying_beyond_the_clip() -> None:
    old, mask = tensor([0.0, 0.0]), tensor([1.0, 1.0])
    new = tensor([math.log(1.5), math.log(0.5)])
    # advantage 1: min(1.5, 1.2) = 1.2; advantage -1: min(-0.5, -0.8) = -0.8
    loss, clipped = clipped_policy_loss(new, old, tensor([1.0, -1.0]), mask, clip=0.2)
    assert loss.item() == pytest.approx(-(1.2 - 0.8) / 2)
    assert clipped.item() == 1.0


def test_the_policy_loss_has_the_gradient_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(3)
    old, advantages = (torch.randn(2, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    mask = tensor([1, 1, 1], [1, 1, 0])
    new = (old + 0.05).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: clipped_policy_loss(x, old, advantages, mask, 0.2)[0], (new,))


def test_a_value_far_from_its_old_one_is_held_back() -> None:
    # held at 0.2: error (0.2 - 1)^2 = .64, larger than (0.9 - 1)^2
    loss = clipped_value_loss(tensor([0.9]), tensor([0.0]), tensor([1.0]), tensor([1.0]), clip=0.2)
    assert loss.item() == pytest.approx(0.5 * 0.64)


def test_whitening_uses_the_masked_values_only() -> None:
    white = whiten(tensor(1.0, 3.0, 99.0), tensor(1.0, 1.0, 0.0))
    assert white.tolist() == pytest.approx([-1.0, 1.0, 0.0])


def test_token_log_probs_are_log_softmax_at_the_target() -> None:
    hidden, weight = torch.eye(2), torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    expected = [(1 / 0.5) - math.log(math.exp(2) + 2), 0.0 - math.log(math.exp(4) + 2)]
    assert token_log_probs(hidden, weight, torch.tensor([0, 2]), 0.5).tolist() == pytest.approx(expected)


def test_advantages_are_the_weighted_sum_of_the_temporal_differences() -> None:
    """GAE as Schulman et al. 2016 define it (eq. 16), summed term by term in float64."""
    rng, gamma, lam = np.random.default_rng(2), 0.97, 0.9
    rewards, values, lengths = rng.normal(size=(3, 5)), rng.normal(size=(3, 5)), (5, 3, 1)
    expected = np.zeros((3, 5))
    for row, length in enumerate(lengths):
        behind = [*values[row, 1:length], 0.0]
        deltas = [rewards[row, t] + gamma * behind[t] - values[row, t] for t in range(length)]
        for t in range(length):
            expected[row, t] = sum((gamma * lam) ** k * deltas[t + k] for k in range(length - t))
    mask = np.arange(5) < np.array(lengths)[:, None]
    inputs = (torch.from_numpy(a) for a in (rewards, values, mask.astype(float)))
    advantages, returns = generalized_advantages(*inputs, gamma, lam)
    np.testing.assert_allclose(advantages, expected, atol=1e-12)
    np.testing.assert_allclose(returns, expected + values * mask, atol=1e-12)


def test_kl_estimators_have_the_mean_of_the_exact_kl() -> None:
    policy, reference = np.array([0.5, 0.3, 0.2]), np.array([0.25, 0.25, 0.5])
    exact = float((policy * np.log(policy / reference)).sum())
    p, q = torch.from_numpy(np.log(policy)), torch.from_numpy(np.log(reference))
    for estimator in (kl_k1, kl_k3):
        assert (torch.from_numpy(policy) * estimator(p, q)).sum().item() == pytest.approx(exact)


def test_k3_by_hand_and_never_negative() -> None:
    # policy half as sure as the reference: k1 = -log 2, k3 = 2 - 1 - log 2
    assert kl_k3(tensor(math.log(0.2)), tensor(math.log(0.4))).item() == pytest.approx(1 - math.log(2))
    assert kl_k3(torch.linspace(-3, 0, 50), torch.linspace(0, -3, 50)).min() >= 0


def test_the_kl_coefficient_follows_the_relative_error_of_the_kl() -> None:
    # 10 % above the target, gain 0.5: 5 % more
    assert adapted_kl_coefficient(0.2, kl=1.1, target=1.0, gain=0.5) == pytest.approx(0.21)
    # the error is held within 0.2 on either side
    assert adapted_kl_coefficient(0.2, kl=9.0, target=1.0, gain=0.5) == pytest.approx(0.22)
    assert adapted_kl_coefficient(0.2, kl=0.0, target=1.0, gain=0.5) == pytest.approx(0.18)
    assert adapted_kl_coefficient(0.2, kl=1.0, target=1.0, gain=0.5) == 0.2


def test_clipped_losses_are_those_of_numpy() -> None:
    rng, clip = np.random.default_rng(5), 0.2
    new, old, advantages, returns = (rng.normal(scale=0.4, size=(4, 6)) for _ in range(4))
    mask = (rng.random((4, 6)) < 0.7).astype(float)
    ratio = np.exp(new - old)
    gained = np.minimum(ratio * advantages, np.clip(ratio, 0.8, 1.2) * advantages)
    held = old + np.clip(new - old, -clip, clip)
    errors = np.maximum((new - returns) ** 2, (held - returns) ** 2)
    tensors = [torch.from_numpy(a) for a in (new, old, advantages, returns, mask)]
    policy, _ = clipped_policy_loss(*tensors[:3], tensors[4], clip)
    value = clipped_value_loss(*tensors[:2], tensors[3], tensors[4], clip)
    assert policy.item() == pytest.approx(-(gained * mask).sum() / mask.sum())
    assert value.item() == pytest.approx(0.5 * (errors * mask).sum() / mask.sum())


def test_entropy_is_that_of_the_tempered_distribution() -> None:
    hidden, weight = torch.eye(2), torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    log_probs, entropy = token_log_probs_and_entropy(hidden, weight, torch.tensor([0, 2]), 0.5)
    p = np.array([math.exp(2), 1, 1]) / (math.exp(2) + 2)
    assert log_probs.tolist() == pytest.approx([math.log(p[0]), -math.log(3)])
    assert entropy.tolist() == pytest.approx([-(p * np.log(p)).sum(), math.log(3)])


@pytest.mark.parametrize("entropy", [False, True])
def test_logits_in_chunks_give_the_same_values_and_gradients(monkeypatch: pytest.MonkeyPatch, entropy: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    weight, targets = torch.randn(11, 4, generator=generator, dtype=torch.float64), torch.arange(7)
    start = torch.randn(7, 4, generator=generator, dtype=torch.float64)
    results, largest = [], []
    for at_once in (100, 3):
        monkeypatch.setattr(losses, "LOGITS_AT_ONCE", at_once)
        hidden = start.clone().requires_grad_()
        kept: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t.numel()) or t, lambda t: t):
            if entropy:
                total = sum(part.sum() for part in token_log_probs_and_entropy(hidden, weight, targets, 0.7))
            else:
                total = token_log_probs(hidden, weight, targets, 0.7).sum()
        total.backward()
        results.append((total.detach(), hidden.grad))
        largest.append(max(kept))
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-6)
    assert largest[0] >= 7 * 11
    assert largest[1] < 7 * 11
