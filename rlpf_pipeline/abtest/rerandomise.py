"""The report's own estimator on the same advertisers, randomised again: an A/A certificate and a randomisation test.

Under a new assignment treatment has no effect, so 5 % of tests should reject and 95 % of intervals should hold 1. A
thousand full fits would take a minute. The covariates' fit without treatment is common to all; from it each assignment
takes Newton's steps with its own information, one or two as a rule, all assignments side by side, and its HC3 has its
own weights and leverages. Estimates are those of full fits to five digits, errors to about a thousandth, also where one
advertiser holds half of the impressions. An assignment whose steps do not settle is fitted in full.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

from rlpf_pipeline.abtest.design import TREATMENT, Design
from rlpf_pipeline.abtest.log_binomial import (
    SMALLEST_ERROR,
    RelativeRisk,
    estimate,
    one_thread,
    ratio_at,
    standard_errors,
)
from rlpf_pipeline.abtest.maximum import Array, Counts
from rlpf_pipeline.abtest.sandwich import HEADLINE, OWN_LEVEL
from rlpf_pipeline.errors import UserError

ASSIGNMENTS = 1000
SEED = 20240216
STEPS = 6
CLOSE = 3e-4
"""A step, of the log relative risk and of log means, after which none is needed: what is left is about its square."""
LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99)
BLOCK = 250
"""Assignments worked on at once: (advertisers, BLOCK) numbers."""
ROWS = 256
FARTHEST = 5.0
"""Of a log mean from that of the covariates' fit: steps beyond it are not trusted."""
HIGHEST = -1e-6
"""Of a log mean: short of 1."""

Arms = npt.NDArray[np.bool_]
"""Whether an advertiser is treated, (advertisers, assignments)."""


class Coverage(NamedTuple):
    level: float
    covered: float
    """Share of A/A intervals of that level that hold a relative risk of 1."""


class Certificate(NamedTuple):
    assignments: int
    false_positive_rate: float
    """Share of A/A tests with p < 0.05."""
    low: float
    high: float
    """Of that share, the 95 % interval of so many assignments (Wilson)."""
    coverage: tuple[Coverage, ...]
    standard_deviation: float
    """Of the A/A estimates of the log relative risk: what the mean standard error should be."""
    mean_standard_error: float


class Randomisation(NamedTuple):
    p_value: float
    """(1 + assignments whose |z| is at least the observed) / (1 + assignments)."""
    critical_value: float
    """95 % quantile of |z| over the assignments; 1.96 for a normal one."""


class Effects(NamedTuple):
    log_risk: Array
    """(assignments,)"""
    standard_error: Array
    """HC3, as in the headline."""
    observed_z: float
    """Of the experiment's own assignment, computed as the others are."""


def rerandomise(design: Design, assignments: int = ASSIGNMENTS) -> Effects | None:
    """Effects under complete randomisations that treat as many advertisers as the experiment did.

    Assignments that leave an arm without clicks, and so without an estimate, are left out. None where most do, or where
    the covariates' fit has no inner maximum.
    """
    treated = design.treated > 0
    prepare = Prepared(design)
    if prepare.status != "converged":
        return None
    sizes = [min(BLOCK, assignments - first) for first in range(0, assignments, BLOCK)]
    seeds = np.random.SeedSequence(SEED).spawn(len(sizes))

    def block(size: int, own_seed: np.random.SeedSequence) -> tuple[Array, Array]:
        return prepare.effects(draw(treated, size, own_seed))

    with one_thread(), ThreadPoolExecutor(os.cpu_count()) as pool:
        log_risk, error = (np.concatenate(parts) for parts in zip(*pool.map(block, sizes, seeds), strict=True))
    usable = error > SMALLEST_ERROR
    if usable.sum() <= assignments / 2:
        return None
    own, own_error = prepare.effects(treated[:, None])
    return Effects(log_risk[usable], error[usable], float(own[0] / own_error[0]))


def draw(treated: npt.NDArray[np.bool_], assignments: int, seed: np.random.SeedSequence) -> Arms:
    """Assignments that treat as many advertisers as `treated` does: those of the smallest of as many random numbers.

    A third of the time of permutations.
    """
    rng, number = np.random.default_rng(seed), int(treated.sum())
    keys = (rng.random(len(treated)) for _ in range(assignments))
    return np.stack([key < np.partition(key, number)[number] for key in keys], axis=1)


class Prepared:
    """The fit on the covariates alone, ready for any assignment."""

    def __init__(self, design: Design) -> None:
        x, self.k, self.n = design.counts
        self.x = np.delete(x, design.position, axis=1)
        self.names = [name for name in design.names if name != TREATMENT]
        fit = estimate(Counts(self.x, self.k, self.n), self.names)
        self.status = fit.status
        self.eta = np.minimum(self.x @ fit.beta, HIGHEST)
        self.blocks = [slice(first, first + ROWS) for first in range(0, len(self.k), ROWS)]
        filled = (self.x != 0).astype(np.float64)
        self.pairs = np.nonzero(np.triu(filled.T @ filled))  # not those of two levels, whose product is zero everywhere

    def effects(self, treated: Arms) -> tuple[Array, Array]:
        """Log relative risks and their HC3, by assignment; NaN where there is no estimate."""
        log_risk, error = np.full((2, treated.shape[1]), np.nan)
        with np.errstate(divide="ignore", invalid="ignore"):
            point, clicks = self.start(treated)
            estimable = (clicks > 0) & (clicks < self.k.sum())
            left, point = np.flatnonzero(estimable), point.of(estimable)
            for _ in range(STEPS):
                if not left.size:
                    break
                looked = self.look(treated.take(left, axis=1), point)
                close = looked.inside & (np.maximum(np.abs(looked.step.log_risk), looked.length) <= CLOSE)
                after = Point(point.beta + looked.step.beta, point.log_risk + looked.step.log_risk)
                log_risk[left[close]] = after.log_risk[close]
                error[left[close]] = self.errors(treated.take(left[close], axis=1), point.of(close), looked.of(close))
                far = looked.inside & ~close
                left, point = left[far], after.of(far)
        for assignment in np.flatnonzero(estimable & np.isnan(error)):
            log_risk[assignment], error[assignment] = self.full_fit(treated[:, assignment])
        return log_risk, error

    def start(self, treated: Arms) -> tuple[Point, Array]:
        """One step from no effect, where the information of the covariates' fit is that of every assignment; and the
        clicks of the treated, (assignments,)."""
        odds = 1 / np.expm1(-self.eta)
        fitted = (self.n - self.k) * odds
        weight, score = fitted * (1 + odds), self.k - fitted
        weighted = self.x * weight[:, None]
        summed = np.column_stack([weighted, weight, score, self.k])
        *cross, inner, own, clicks = np.sum(
            [summed[rows].T @ treated[rows].astype(float) for rows in self.blocks], axis=0
        )
        slopes = np.linalg.solve(self.x.T @ weighted, cross)
        log_risk = (own - self.x.T @ score @ slopes) / (inner - (cross * slopes).sum(axis=0))
        return Point(-slopes * log_risk, log_risk), clicks

    def log_means(self, rows: slice, drawn: Array, point: Point) -> Array:
        """Of some rows, (rows, assignments), where `drawn` is 1 for the treated."""
        return np.asarray(self.eta[rows, None] + self.x[rows] @ point.beta + drawn * point.log_risk)

    def weights(self, rows: slice, log_mean: Array) -> tuple[Array, Array, Array]:
        """Score per unit of the design, weights of the expected and the observed information; (rows, assignments)."""
        mean = np.exp(log_mean)  # up to HIGHEST 1 - mean has digits enough, and expm1 takes twice as long
        odds = mean / (1 - mean)
        k, n = self.k[rows, None], self.n[rows, None]
        fitted = (n - k) * odds
        return k - fitted, n * odds, fitted * (1 + odds)

    def products(self, rows: slice) -> Array:
        """Of each pair of columns, (pairs, rows)."""
        first, second = self.pairs
        columns = self.x[rows].T.copy()
        return columns[first] * columns[second]

    def look(self, treated: Arms, point: Point) -> Looked:
        """Newton's step from a point, and treatment's regressions on the covariates there."""
        columns, number = point.beta.shape
        inside = np.ones(number, dtype=bool)
        score, covariate_score = np.zeros(number), np.zeros((columns, number))
        information = np.zeros((2, len(self.pairs[0]), number))
        cross, own = np.zeros((2, columns, number)), np.zeros((2, number))
        for rows in self.blocks:
            x, drawn, products = self.x[rows], treated[rows].astype(np.float64), self.products(rows)
            log_mean = self.log_means(rows, drawn, point)
            drift = np.abs(log_mean - self.eta[rows, None])
            inside &= (log_mean.max(axis=0) <= HIGHEST) & (drift.max(axis=0) < FARTHEST)
            residual, *weights = self.weights(rows, log_mean)
            score += (drawn * residual).sum(axis=0)
            covariate_score += x.T @ residual
            for kind, weight in enumerate(weights):
                information[kind] += products @ weight
                weight *= drawn
                cross[kind] += x.T @ weight
                own[kind] += weight.sum(axis=0)
        information[..., ~inside] = np.equal(*self.pairs)[:, None]  # identities, which can be inverted
        expected, observed = (self.regression(*sums) for sums in zip(information, cross, own, strict=True))
        log_risk = (score - (observed.slopes * covariate_score).sum(axis=0)) / observed.inner
        beta = np.einsum("ajl,la->ja", observed.inverse, covariate_score) - observed.slopes * log_risk
        gain = (covariate_score * beta).sum(axis=0) + score * log_risk
        length = np.sqrt(np.maximum(gain, 0.0) / self.k.sum())
        return Looked(inside, Point(beta, log_risk), length, expected, observed)

    def regression(self, information: Array, cross: Array, own: Array) -> Regression:
        """From sums of weights: by pair of columns, by column for the treated, of the treated; each by assignment."""
        first, second = self.pairs
        matrices = np.zeros((len(own), len(cross), len(cross)))
        matrices[:, first, second] = matrices[:, second, first] = information.T
        inverse = np.asarray(np.linalg.inv(matrices), dtype=np.float64)
        slopes = np.einsum("ajl,la->ja", inverse, cross)
        return Regression(inverse, slopes, own - (cross * slopes).sum(axis=0))

    def errors(self, treated: Arms, point: Point, looked: Looked) -> Array:
        """HC3 of the log relative risk, as in sandwich.py; (assignments,)."""
        expected, observed = looked.expected, looked.observed
        first, second = self.pairs
        form = expected.inverse[:, first, second].T * np.where(first == second, 1.0, 2.0)[:, None]
        meat = np.zeros(len(point.log_risk))
        for rows in self.blocks:
            x, drawn = self.x[rows], treated[rows].astype(np.float64)
            residual, weight, _ = self.weights(rows, self.log_means(rows, drawn, point))
            leverage = self.products(rows).T @ form + np.square(drawn - x @ expected.slopes) / expected.inner
            rest = 1 - weight * leverage
            influence = (drawn - x @ observed.slopes) * residual / np.where(rest > OWN_LEVEL, rest, np.inf)
            meat += np.square(influence).sum(axis=0)
        return np.asarray(np.sqrt(meat) / observed.inner)

    def full_fit(self, treated: Arms) -> tuple[float, float]:
        """Log relative risk and HC3 of one assignment (advertisers,); NaN where it has no estimate."""
        try:
            fit = estimate(Counts(np.column_stack([treated, self.x]), self.k, self.n), [TREATMENT, *self.names])
        except UserError:
            return math.nan, math.nan
        return float(fit.beta[0]), float(standard_errors(fit.covariances[HEADLINE])[0])


class Point(NamedTuple):
    """By assignment: how far the covariates' coefficients are from the common fit, and treatment's."""

    beta: Array
    """(columns, assignments)"""
    log_risk: Array

    def of(self, chosen: npt.NDArray[np.bool_]) -> Point:
        return Point(self.beta.compress(chosen, axis=1), self.log_risk[chosen])


class Regression(NamedTuple):
    """By assignment: treatment's weighted regression on the covariates."""

    inverse: Array
    """(assignments, columns, columns), of the covariates' information."""
    slopes: Array
    """(columns, assignments)"""
    inner: Array
    """(assignments,), treatment's information net of the covariates."""

    def of(self, chosen: npt.NDArray[np.bool_]) -> Regression:
        return Regression(self.inverse[chosen], self.slopes.compress(chosen, axis=1), self.inner[chosen])


class Looked(NamedTuple):
    inside: npt.NDArray[np.bool_]
    """Whether every mean is below 1 and not far from the covariates' fit; where not, nothing else here counts."""
    step: Point
    length: Array
    """Of the step: what it changes log means by, root mean square over clicks."""
    expected: Regression
    """Weighted by the expected information, as leverage is; `observed` as the sandwich's bread is."""
    observed: Regression

    def of(self, chosen: npt.NDArray[np.bool_]) -> Looked:
        parts = (self.step.of(chosen), self.length[chosen], self.expected.of(chosen), self.observed.of(chosen))
        return Looked(self.inside[chosen], *parts)


def certify(effects: Effects) -> Certificate:
    z = np.abs(effects.log_risk / effects.standard_error)
    rejected = int((z > special.ndtri(0.975)).sum())
    low, high = wilson_interval(rejected, len(z))
    return Certificate(
        assignments=len(z),
        false_positive_rate=rejected / len(z),
        low=low,
        high=high,
        coverage=tuple(Coverage(level, float((z <= special.ndtri(0.5 + level / 2)).mean())) for level in LEVELS),
        standard_deviation=float(effects.log_risk.std(ddof=1)),
        mean_standard_error=float(effects.standard_error.mean()),
    )


def wilson_interval(hits: int, number: int) -> tuple[float, float]:
    """Of a share, 95 % (Wilson 1927)."""
    z = float(special.ndtri(0.975))
    centre = (hits + z * z / 2) / (number + z * z)
    reach = z / (number + z * z) * math.sqrt(hits * (number - hits) / number + z * z / 4)
    return centre - reach, centre + reach


def randomisation_test(effects: Effects) -> Randomisation:
    """Studentised, so that it also holds where only the mean effect is zero (Chung and Romano 2013)."""
    z = np.abs(effects.log_risk / effects.standard_error)
    as_large = int((z >= abs(effects.observed_z)).sum())
    return Randomisation((1 + as_large) / (1 + len(z)), float(np.quantile(z, 0.95)))


def randomisation_interval(observed: RelativeRisk, test: Randomisation) -> RelativeRisk:
    """The observed estimate with the critical value of its randomisation distribution in place of 1.96."""
    centre, reach = math.log(observed.estimate), test.critical_value * observed.standard_error
    return observed._replace(low=ratio_at(centre - reach), high=ratio_at(centre + reach), p_value=test.p_value)
