"""The maximum of the log-binomial likelihood, also where it lies on the boundary of the parameters' domain.

    l(b) = sum k_i x_i'b + (n_i - k_i) log(1 - exp(x_i'b)),    x_i'b <= 0

is concave. A row with a miss bounds the domain by itself: its likelihood falls to zero as its mean nears 1. Rows where
every trial succeeded do not, and their means may reach 1: then the maximum need not be a zero of the score. Damped
Newton steps find an inner maximum. Where they stall, a log barrier -t log(-x_i'b) on those rows is followed to t = 0
(Boyd and Vandenberghe 2004, ch. 11); the rows it leaves at mean 1 are then held there exactly and the likelihood is
maximised over the rest. The Karush-Kuhn-Tucker conditions decide: the score must be a sum of the held rows with
multipliers >= 0. Rows without misses have no curvature, so that there can be a segment of maxima, none of which is the
estimate. Columns are orthonormalised by the caller, so that scales do not matter.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

SCORE_TOLERANCE = 1e-8
"""Largest accepted |score| relative to the trials behind it, by column."""
NEGLIGIBLE_STEP = 1e-16
"""Squared length of a Newton step, in naive standard errors, after which there is none to take."""
QUADRATIC_ZONE = 1e-4
"""Squared length below which full steps are taken: rounding hides the gain that a line search would look for."""
FLAT = 1e-12
"""Curvature relative to the largest below which a direction has none."""
FARTHEST = 700.0
"""exp of it is a number still."""
INNER_STEPS = 60
BARRIER_STEPS = 40
SINGLE = 1e-6
"""Of the likelihood's value in single precision: gains below it cannot be told from rounding."""
MANY = 10_000
"""Rows from which single precision saves more than it costs."""
CHUNK = 1 << 12
"""Rows worked on at once: temporaries stay in the processor's cache."""


class Counts(NamedTuple):
    x: Array
    """(rows, columns), any full-rank design."""
    k: Array
    n: Array


class Local(NamedTuple):
    """The likelihood around a point: value, score (columns,) and observed information (columns, columns)."""

    value: float
    """Sum of k log mu + (n - k) log(1 - mu)."""
    score: Array
    information: Array


class Maximum(NamedTuple):
    beta: Array
    free: Array | None
    """(columns, directions): basis of the directions that keep every held row at mean 1; None for an inner maximum."""
    iterations: int
    local: Local
    """There, in the free directions."""


def maximise(counts: Counts) -> Maximum | None:
    """The maximum, or None where no point has all means below 1, none was found that passes its conditions, or others
    are as good."""
    start = inner_start(counts)
    if start is None:
        return None
    near, before = rough_maximum(counts, start)
    beta, steps, local = newton(counts, near)
    iterations = before + steps
    if is_stationary(counts, beta, local):
        found: Maximum | None = Maximum(beta, None, iterations, local)
    else:
        found = boundary_maximum(counts, beta, iterations)
    return found if found and is_strict(found.local.information) else None


def inner_start(counts: Counts) -> Array | None:
    """A point where every mean is below 1: the pooled rate everywhere, if the columns span a constant."""
    x, k, n = counts
    constant = np.zeros(x.shape[1])
    for _ in range(3):  # more than once for what the columns lack of being orthonormal
        missing = 1 - x @ constant
        if np.abs(missing).max() < 1e-8:
            return np.asarray(constant * np.log(min(k.sum() / n.sum(), 1 - 1e-6)))
        constant += missing @ x / len(x)
    from scipy import optimize  # heavy, and rarely needed

    columns = x.shape[1]
    slack = optimize.linprog(
        np.append(np.zeros(columns), -1.0),
        A_ub=np.column_stack([x, np.ones(len(x))]),
        b_ub=np.zeros(len(x)),
        bounds=[(-1e3, 1e3)] * columns + [(0.0, 1.0)],
    )
    found = np.asarray(slack.x, dtype=np.float64) if slack.success else np.zeros(columns + 1)
    return found[:columns] if found[columns] > 1e-9 else None


def rough_maximum(counts: Counts, start: Array) -> tuple[Array, int]:
    """A point near the maximum and the steps to it, by looks in single precision, which take half as long; `start`
    where there is little to gain, or means are too near to 1 for it."""
    if len(counts.k) < MANY:
        return start, 0
    single = Counts(*(numbers.astype("float32") for numbers in counts))
    if not is_inside(single, start):
        return start, 0
    beta, steps, local = newton(single, start, precision=SINGLE)
    near = beta + ascent(single, beta, local)
    return (near, steps + 1) if is_inside(counts, near) else (start, 0)


def is_inside(counts: Counts, beta: Array) -> bool:
    """Whether every mean is below 1."""
    return float((counts.x @ beta.astype(counts.x.dtype)).max()) < 0


def look(counts: Counts, beta: Array, barrier: float = 0.0) -> Local:
    """One pass over the rows. barrier: t, added as t log(-x'b) for each row without misses. Outside of the domain the
    value is not finite."""
    columns, scratch = len(beta), scratch_for(counts.x)
    value, score, information = 0.0, np.zeros(columns), np.zeros((columns, columns))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for x, k, misses in chunks(counts):
            eta = x @ beta.astype(x.dtype)
            if float(eta.max()) > 0:
                value = -np.inf
            odds = odds_of(eta, misses)
            expected = misses * odds
            residual, curvature = k - expected, expected * (1 + odds)
            value += float((k * eta - misses * np.log1p(odds)).sum())
            if barrier:
                held = misses == 0
                slack = np.where(held, barrier / -eta, 0.0)
                value += float(barrier * np.log(-eta[held]).sum())
                residual -= slack
                curvature += slack**2 / barrier
            score += x.T @ residual
            information += block_products(x, curvature, scratch)
    return Local(value, score, information)


def odds_of(eta: Array, misses: Array) -> Array:
    """mu / (1 - mu) of each row; 0 where there are no misses to weigh."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(misses > 0, 1 / np.expm1(-eta), 0.0)


def scale_of(counts: Counts, beta: Array) -> Array:
    """What the score is small or large against, (columns,): its terms without their signs."""
    scale, scratch = np.zeros(len(beta)), scratch_for(counts.x)
    for x, k, misses in chunks(counts):
        scale += np.abs(x, out=scratch[: len(x)]).T @ (k + misses * odds_of(x @ beta, misses))
    return scale


def products(x: Array, weight: Array) -> Array:
    """sum x_i x_i' w_i, (columns, columns); weights >= 0."""
    total, scratch = np.zeros((x.shape[1], x.shape[1])), scratch_for(x)
    for rows in blocks(len(x)):
        total += block_products(x[rows], weight[rows], scratch)
    return total


def block_products(x: Array, weight: Array, scratch: Array) -> Array:
    half = np.multiply(x, np.sqrt(weight)[:, None], out=scratch[: len(x)])
    return np.asarray(half.T @ half)


def scratch_for(x: Array) -> Array:
    """Memory for a block of rows, used for one after the other: what is touched first takes longer than its product."""
    return np.empty_like(x[:CHUNK])


def chunks(counts: Counts) -> list[tuple[Array, Array, Array]]:
    """Rows in turn: design, successes, misses."""
    x, k, n = counts
    return [(x[rows], k[rows], n[rows] - k[rows]) for rows in blocks(len(k))]


def blocks(rows: int, at_once: int = CHUNK) -> list[slice]:
    """All rows in turn."""
    return [slice(first, first + at_once) for first in range(0, rows, at_once)]


def is_stationary(counts: Counts, beta: Array, local: Local) -> bool:
    """Whether the score is zero, up to rounding."""
    return bool(np.isfinite(local.value)) and relative(local.score, scale_of(counts, beta)) <= SCORE_TOLERANCE


def is_strict(information: Array) -> bool:
    """Whether the likelihood bends in every direction; where no direction is free, it need not."""
    curvature = np.linalg.eigvalsh(information)
    return bool((curvature > FLAT * curvature.max(initial=0.0)).all())


def relative(score: Array, scale: Array) -> float:
    return float(np.max(np.abs(score) / np.where(scale > 0, scale, 1.0), initial=0.0))


def newton(counts: Counts, beta: Array, barrier: float = 0.0, precision: float = 0.0) -> tuple[Array, int, Local]:
    """Damped Newton steps inside the domain, until none is better by more than that part of the value: their end, how
    many, the place around."""
    local = look(counts, beta, barrier)
    for iteration in range(INNER_STEPS):
        step = ascent(counts, beta, local)
        length = float(local.score @ step)
        if length <= max(NEGLIGIBLE_STEP, precision * abs(local.value)):
            return beta, iteration, local
        fraction = 1.0
        while True:
            candidate = beta + fraction * step
            seen = look(counts, candidate, barrier)
            gain = seen.value - local.value
            if np.isfinite(gain) and (gain >= 1e-4 * fraction * length or length < QUADRATIC_ZONE):
                break
            fraction = min(fraction / 2, 0.99 * distance_to_boundary(counts, beta, step))
            if fraction < 1e-12:
                return beta, iteration, local
        beta, local = candidate, seen
    return beta, INNER_STEPS, local


def ascent(counts: Counts, beta: Array, local: Local) -> Array:
    """Newton's step; by the expected information where the observed one is singular (hardly any misses)."""
    try:
        np.linalg.cholesky(local.information)  # raises where it is not positive definite
        return np.asarray(np.linalg.solve(local.information, local.score))
    except np.linalg.LinAlgError:
        expected = local.information + expected_information(counts, beta)
        return np.asarray(np.linalg.lstsq(expected, local.score)[0])


def expected_information(counts: Counts, beta: Array) -> Array:
    x, _, n = counts
    weight = n / np.expm1(np.clip(-(x @ beta), 1e-12, FARTHEST))
    return products(x, weight)


def distance_to_boundary(counts: Counts, beta: Array, step: Array) -> float:
    """How many steps until a mean reaches 1."""
    eta, change = counts.x @ beta, counts.x @ step
    rising = change > 1e-14
    return float(np.min(-eta[rising] / change[rising], initial=np.inf))


def boundary_maximum(counts: Counts, beta: Array, iterations: int) -> Maximum | None:
    """Follow the barrier; after each step try whether the rows it pushes against hold the maximum."""
    held = counts.k == counts.n
    if not held.any():
        return None
    barrier = max(1.0, float(counts.k.sum())) / float(held.sum())
    beta = inside(counts, beta)
    for _ in range(BARRIER_STEPS):
        beta, steps, _ = newton(counts, beta, barrier)
        iterations += steps
        if barrier < 1e-3:
            found = hold(counts, beta, held & (-(counts.x @ beta) < np.sqrt(barrier)))
            if found:
                return found._replace(iterations=iterations + found.iterations)
        barrier /= 10
        if barrier * held.sum() < 1e-13:
            break
    return None


def inside(counts: Counts, beta: Array) -> Array:
    """Back from where Newton's steps stalled, towards the start, so that the barrier is finite and not steep."""
    start = inner_start(counts)
    return beta if start is None else np.asarray(0.5 * (beta + start))


def hold(counts: Counts, beta: Array, active: npt.NDArray[np.bool_]) -> Maximum | None:
    """The maximum with the `active` rows at mean 1, if it passes the Karush-Kuhn-Tucker conditions."""
    from scipy import linalg, optimize  # heavy, and rarely needed

    rows = np.unique(counts.x[active], axis=0)
    free = linalg.null_space(rows, rcond=1e-9) if len(rows) else np.eye(len(beta))
    within = counts.x @ free
    within[np.abs(within).max(axis=1, initial=0.0) < 1e-9 * np.abs(counts.x).max(axis=1)] = 0.0
    moving = within.any(axis=1)
    if (counts.k < counts.n)[~moving].any():
        return None
    reduced = Counts(within[moving], counts.k[moving], counts.n[moving])
    start = free.T @ beta
    if free.shape[1] and (reduced.x @ start >= 0).any():
        return None
    inner, iterations, reached = newton(reduced, start)
    if not is_stationary(reduced, inner, reached):
        return None
    found = free @ inner
    loose = Counts(counts.x[moving], reduced.k, reduced.n)
    score = look(loose, found).score + counts.x[~moving].T @ counts.k[~moving]
    scale = scale_of(loose, found) + np.abs(counts.x[~moving]).T @ counts.k[~moving]
    if len(rows):
        score = score - rows.T @ optimize.nnls(rows.T, score)[0]
    if relative(score, scale) > SCORE_TOLERANCE:
        return None
    return Maximum(found, free if len(rows) else None, iterations, reached)
