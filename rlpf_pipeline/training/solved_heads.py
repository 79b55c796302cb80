"""Score heads at their optimum on states that no adapter has changed yet: where training may start.

There the loss is convex in the heads. States are divided by their standard deviation over the training texts, so that
an L2 penalty weighs them alike, and the minimum is found by L-BFGS (Liu & Nocedal 1989), from the strongest penalty to
weaker ones as long as the validation ads gain by it. With the penalty chosen, the heads are solved once more, on the
training and the validation ads. Adapters that start below heads of zero first follow noise, and distort states that
were good (Kumar et al. 2022).

The penalty is a Gaussian prior, and each head is drawn towards a sample of it instead of zero (Osband et al. 2018;
Pearce et al. 2020). Where ads say nothing about a direction of the states, heads keep their samples and disagree, so
that the spread of a text's scores grows as it leaves what the ads look like. The samples sum to zero: the mean has
nothing of them, to first order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from rlpf_pipeline.settings import RewardSettings
from rlpf_pipeline.training.reward_batches import Part
from rlpf_pipeline.training.reward_loss import length_pull, part_loss

PENALTIES = (3.0, 1.8, 1.0, 0.6, 0.3, 0.18, 0.1, 0.06, 0.03)
WITHOUT_VALIDATION = 0.3
ITERATIONS = 100
MOST_TEXTS = 50_000
"""Of the training texts: a start needs no more, and their states fit into memory."""


class Pooled(NamedTuple):
    """A part's texts as the heads see them: states (texts, width), whose products with a head are scores.

    mass: what the part adds to the sum that a loss is divided by. contrasts: its texts less its ads, the number of
    independent differences between texts of one ad, however many pairs they make.
    """

    states: Tensor
    part: Part
    mass: float
    contrasts: int


class Solved(NamedTuple):
    """Weights, float64 (heads, width). judged: learned from the training ads alone, so that validation ads can judge
    them; refitted: learned from both, where that was asked for.
    """

    judged: Tensor
    refitted: Tensor | None


Sum = Callable[[Tensor], Tensor]


def solved_heads(
    train: Sequence[Pooled],
    validation: Sequence[Pooled],
    draws: Tensor,
    prior: Tensor,
    settings: RewardSettings,
    over_ranks: Sum,
    refit: bool,
) -> Solved:
    """The heads' weights, with WITHOUT_VALIDATION as the penalty where there is no validation ad.

    train, validation: this rank's parts, maybe none. draws: (heads, width), `prior_draws`. prior: (width,), how large
    the weight of a state is thought to be beside those of the others, before any ad is seen. settings: of the loss.
    over_ranks: sums a tensor over the ranks. refit: whether to learn from the validation ads too, alike on all ranks.
    """
    scale = deviations(train, draws.shape[1], over_ranks).to(draws.device) / prior
    own_train, own_validation = (
        [own._replace(states=own.states / scale) for own in parts] for parts in (train, validation)
    )
    held_out = [own._replace(part=own.part.once()) for own in own_validation]
    weight = best = first_guess(draws, own_train, settings, over_ranks)
    least, chosen = math.inf, WITHOUT_VALIDATION
    for penalty in PENALTIES if over_ranks(torch.tensor(len(validation))) else (WITHOUT_VALIDATION,):
        weight = posterior(weight, penalty, draws, own_train, settings, over_ranks)
        judged = mean_loss(weight.mean(0, keepdim=True), held_out, settings, over_ranks)[0]
        if judged >= least:
            break
        best, least, chosen = weight, float(judged), penalty
    if not refit:
        return Solved(best / scale, None)
    refitted = posterior(best, chosen, draws, [*own_train, *own_validation], settings, over_ranks)
    return Solved(best / scale, refitted / scale)


def first_guess(draws: Tensor, pooled: Sequence[Pooled], settings: RewardSettings, over_ranks: Sum) -> Tensor:
    """Where the search starts: zeros, or heads of the loss without length_decorrelation, whose correlation jumps at
    zero and would hold the search there.
    """
    zeros = torch.zeros_like(draws)
    if not settings.length_decorrelation:
        return zeros
    without = settings.model_copy(update={"length_decorrelation": 0.0})
    return posterior(zeros, PENALTIES[0], draws, pooled, without, over_ranks)


def prior_draws(heads: int, width: int, seed: int) -> Tensor:
    """Standard normal, float64 (heads, width), with a mean over heads of 0 and a variance of 1; 0 for a single head."""
    drawn = torch.randn(heads, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return (drawn - drawn.mean(0)) * math.sqrt(heads / max(heads - 1, 1))


def posterior(
    start: Tensor, penalty: float, draws: Tensor, pooled: Sequence[Pooled], settings: RewardSettings, over_ranks: Sum
) -> Tensor:
    """Each head's optimum around its own draw of the prior, whose precision is the penalty times the contrasts."""
    contrasts = over_ranks(torch.tensor(float(sum(own.contrasts for own in pooled)))).item()
    around = draws / math.sqrt(penalty * contrasts)
    return minimised(start, penalty, around, lambda own: mean_loss(own, pooled, settings, over_ranks))


def deviations(pooled: Sequence[Pooled], width: int, over_ranks: Sum) -> Tensor:
    """Standard deviation of each state over all texts, float64 (width,); infinite where it does not vary."""
    sums = torch.zeros(3, width, dtype=torch.float64)
    for own in pooled:
        states = own.states.double().cpu()
        sums += torch.stack([states.sum(0), (states**2).sum(0), torch.full((width,), float(len(states)))])
    first, second, texts = over_ranks(sums)
    variance = second / texts - (first / texts) ** 2
    return torch.where(variance > 1e-12 * second / texts, variance.sqrt(), math.inf)


def minimised(
    start: Tensor, penalty: float, around: Tensor, loss_of: Callable[[Tensor], tuple[Tensor, Tensor]]
) -> Tensor:
    """Where loss + penalty / 2 |weight - around|^2, the mean over heads, is least. loss_of: loss and gradient."""
    weight = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weight], max_iter=ITERATIONS, history_size=20, tolerance_grad=1e-6, line_search_fn="strong_wolfe"
    )

    def penalised() -> Tensor:
        own = weight.detach()
        loss, gradient = loss_of(own)
        weight.grad = gradient + penalty / len(own) * (own - around)
        return loss + penalty / 2 * ((own - around) ** 2).sum() / len(own)

    optimizer.step(penalised)
    return weight.detach()


def mean_loss(
    weight: Tensor, pooled: Sequence[Pooled], settings: RewardSettings, over_ranks: Sum
) -> tuple[Tensor, Tensor]:
    """Loss over all ranks' parts, by their mass, and its gradient (heads, width)."""
    own = weight.clone().requires_grad_()
    total = torch.zeros(2, dtype=torch.float64, device=own.device)
    own.grad = torch.zeros_like(own)
    pull = length_pull(((states.double() @ weight.T, part) for states, part, *_ in pooled), settings, over_ranks)
    for states, part, mass, _ in pooled:
        value = part_loss(states.double() @ own.T, part, settings, pull)
        value.backward()
        total += torch.stack([value.detach().double(), total.new_tensor(mass)])
    value, mass = over_ranks(total)
    return value / mass, over_ranks(own.grad) / mass
