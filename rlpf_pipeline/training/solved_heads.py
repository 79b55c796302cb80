"""Score heads at their optimum on states that no adapter has changed yet: where training may start.

There the loss is convex in the heads. States are divided by their standard deviation over the training texts, so that
an L2 penalty weighs them alike, and the minimum is found by L-BFGS (Liu & Nocedal 1989), from the strongest penalty to
weaker ones as long as the validation ads gain by it. With the penalty chosen, the heads are solved once more, on the
training and the validation ads. Adapters that start below heads of zero first follow noise, and distort states that
were good (Kumar et al. 2022).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from rlpf_pipeline.training.reward_batches import Part

PENALTIES = (3.0, 1.8, 1.0, 0.6, 0.3, 0.18, 0.1, 0.06, 0.03)
WITHOUT_VALIDATION = 0.3
ITERATIONS = 100
MOST_TEXTS = 50_000
"""Of the training texts: a start needs no more, and their states fit into memory."""


class Pooled(NamedTuple):
    """A part's texts as the heads see them: states (texts, width), whose products with a head are scores.

    mass: what the part adds to the sum that a loss is divided by.
    """

    states: Tensor
    part: Part
    mass: float


class Solved(NamedTuple):
    """Weights, float64 (heads, width). judged: learned from the training ads alone, so that validation ads can judge
    them; refitted: learned from both.
    """

    judged: Tensor
    refitted: Tensor


Loss = Callable[[Tensor, Part], Tensor]
Sum = Callable[[Tensor], Tensor]


def solved_heads(
    train: Sequence[Pooled], validation: Sequence[Pooled], zero: Tensor, prior: Tensor, loss: Loss, over_ranks: Sum
) -> Solved:
    """The heads' weights, with WITHOUT_VALIDATION as the penalty where there is no validation ad.

    train, validation: this rank's parts, maybe none. zero: (heads, width), where the search starts. prior: (width,),
    how large the weight of a state is thought to be beside those of the others, before any ad is seen. loss: of scores
    (texts, heads) and their part, summed over the part. over_ranks: sums a tensor over the ranks.
    """
    scale = deviations(train, zero.shape[1], over_ranks).to(zero.device) / prior
    own_train, own_validation = (
        [own._replace(states=own.states / scale) for own in parts] for parts in (train, validation)
    )
    held_out = [own._replace(part=own.part.once()) for own in own_validation]
    weight = best = zero.double()
    least, chosen = math.inf, WITHOUT_VALIDATION
    for penalty in PENALTIES if over_ranks(torch.tensor(len(validation))) else (WITHOUT_VALIDATION,):
        weight = minimised(weight, penalty, lambda own: mean_loss(own, own_train, loss, over_ranks))
        judged = mean_loss(weight.mean(0, keepdim=True), held_out, loss, over_ranks)[0]
        if judged >= least:
            break
        best, least, chosen = weight, float(judged), penalty
    everything = [*own_train, *own_validation]
    refitted = minimised(best, chosen, lambda own: mean_loss(own, everything, loss, over_ranks))
    return Solved(best / scale, refitted / scale)


def deviations(pooled: Sequence[Pooled], width: int, over_ranks: Sum) -> Tensor:
    """Standard deviation of each state over all texts, float64 (width,); infinite where it does not vary."""
    sums = torch.zeros(3, width, dtype=torch.float64)
    for own in pooled:
        states = own.states.double().cpu()
        sums += torch.stack([states.sum(0), (states**2).sum(0), torch.full((width,), float(len(states)))])
    first, second, texts = over_ranks(sums)
    variance = second / texts - (first / texts) ** 2
    return torch.where(variance > 1e-12 * second / texts, variance.sqrt(), math.inf)


def minimised(start: Tensor, penalty: float, loss_of: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
    """Where loss + penalty / 2 |weight|^2, the mean over heads, is least. loss_of: gives the loss and its gradient."""
    weight = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weight], max_iter=ITERATIONS, history_size=20, tolerance_grad=1e-6, line_search_fn="strong_wolfe"
    )

    def penalised() -> Tensor:
        own = weight.detach()
        loss, gradient = loss_of(own)
        weight.grad = gradient + penalty / len(own) * own
        return loss + penalty / 2 * (own**2).sum() / len(own)

    optimizer.step(penalised)
    return weight.detach()


def mean_loss(weight: Tensor, pooled: Sequence[Pooled], loss: Loss, over_ranks: Sum) -> tuple[Tensor, Tensor]:
    """Loss over all ranks' parts, by their mass, and its gradient (heads, width)."""
    own = weight.clone().requires_grad_()
    total = torch.zeros(2, dtype=torch.float64, device=own.device)
    own.grad = torch.zeros_like(own)
    for states, part, mass in pooled:
        value = loss(states.double() @ own.T, part)
        value.backward()
        total += torch.stack([value.detach().double(), total.new_tensor(mass)])
    value, mass = over_ranks(total)
    return value / mass, over_ranks(own.grad) / mass
