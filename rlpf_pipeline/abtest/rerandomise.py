"""The report's own estimator on the same advertisers, randomised again: an A/A certificate and a randomisation test.

Under a new assignment treatment has no effect, so 5 % of tests should reject and 95 % of intervals should hold 1. A
thousand full fits would take a minute; the covariates' fit without treatment is common to all, and from it each
assignment needs few cheap steps: Newton's with that fit's information (whose error shrinks by a factor of the effect's
size each time), all assignments side by side. Estimates are those of full fits to six digits, errors to a
percent or less: the covariates' part of the error keeps the common fit's weights.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import linalg, special

from rlpf_pipeline.abtest.design import TREATMENT, Design
from rlpf_pipeline.abtest.log_binomial import RelativeRisk, estimate, one_thread
from rlpf_pipeline.abtest.maximum import Array, Counts
from rlpf_pipeline.abtest.sandwich import OWN_LEVEL

ASSIGNMENTS = 1000
SEED = 20240216
STEPS = 1
"""Between the first, which is free, and that of the last look, which also takes the errors."""
LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99)
BLOCK = 100
"""Assignments worked on at once: (advertisers, BLOCK) numbers."""
ROWS = 256
LARGEST = 20.0
"""|log relative risk| beyond which an estimate is on its way to infinity."""
HIGHEST = -1e-9
"""Of a log mean: short of 1 where the fit lies on the boundary."""


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


def rerandomise(design: Design, assignments: int = ASSIGNMENTS, seed: int = SEED) -> Effects | None:
    """Effects under complete randomisations that treat as many advertisers as the experiment did.

    Assignments that leave an arm without clicks, and so without an estimate, are left out. None where most do, or where
    the covariates' fit has no inner maximum.
    """
    treated = design.treated > 0
    rng = np.random.default_rng(seed)
    prepare = Prepared(design)
    if prepare.status != "converged":
        return None
    blocks = []
    for first in range(0, assignments, BLOCK):
        number = min(BLOCK, assignments - first)
        drawn = np.stack([rng.permutation(treated) for _ in range(number)])
        blocks.append(prepare.effects(drawn.T.astype(np.float64, order="C")))
    log_risk, error = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    usable = np.isfinite(log_risk) & np.isfinite(error) & (np.abs(log_risk) < LARGEST) & (error > 0)
    return Effects(log_risk[usable], error[usable]) if usable.sum() > assignments / 2 else None


class Prepared:
    """The fit on the covariates alone, ready for any assignment."""

    def __init__(self, design: Design) -> None:
        counts = design.counts
        x = np.delete(counts.x, design.position, axis=1)
        fit = estimate(Counts(x, counts.k, counts.n), [name for name in design.names if name != TREATMENT])
        self.status = fit.status
        self.x, self.k, self.misses = x, counts.k, counts.n - counts.k
        self.eta = np.minimum(x @ fit.beta, HIGHEST)
        odds = 1 / np.expm1(-self.eta)
        self.score, self.weight = self.k - self.misses * odds, self.misses * odds * (1 + odds)
        self.information = linalg.cho_factor(x.T @ (x * self.weight[:, None]))
        self.expected = counts.n * odds
        naive = np.linalg.inv(x.T @ (x * self.expected[:, None]))
        self.leverage = self.expected * np.einsum("ij,ij->i", x @ naive, x)

    def effects(self, treated: Array) -> Effects:
        """treated: (advertisers, assignments) of 0 and 1."""
        with one_thread(), np.errstate(all="ignore"):
            weighted = treated.T @ (self.x * self.weight[:, None])
            slopes = linalg.cho_solve(self.information, weighted.T)
            inner = treated.T @ self.weight - np.einsum("aj,ja->a", weighted, slopes)
            log_risk = (treated.T @ self.score - slopes.T @ (self.x.T @ self.score)) / inner
            point = Point(slopes, inner, -slopes * log_risk, log_risk)
            for _ in range(STEPS):
                point = self.step(point, self.look(treated, point))
            last = self.look(treated, point, errors=True)
            return Effects(self.step(point, last).log_risk, np.sqrt(last.meat) / last.bread)

    def step(self, point: Point, looked: Looked) -> Point:
        step = (looked.score - np.einsum("ja,ja->a", point.slopes, looked.covariate_score)) / point.inner
        beta = point.beta + linalg.cho_solve(self.information, looked.covariate_score) - point.slopes * step
        return point._replace(beta=beta, log_risk=point.log_risk + step)

    def look(self, treated: Array, point: Point, errors: bool = False) -> Looked:
        """One pass over the advertisers, a few hundred at once so that they stay in the processor's cache."""
        score, covariate_score = np.zeros_like(point.log_risk), np.zeros_like(point.beta)
        bread, meat = np.zeros_like(score), np.zeros_like(score)
        for first in range(0, len(self.k), ROWS):
            rows = slice(first, first + ROWS)
            x, misses = self.x[rows], self.misses[rows, None]
            inverse_odds = treated[rows] * -point.log_risk
            inverse_odds -= x @ point.beta
            inverse_odds -= self.eta[rows, None]
            np.expm1(np.maximum(inverse_odds, -HIGHEST, out=inverse_odds), out=inverse_odds)
            expected = misses / inverse_odds
            residual = self.k[rows, None] - expected
            covariate_score += x.T @ residual
            score += np.einsum("ia,ia->a", treated[rows], residual)
            if errors:
                squared = np.square(treated[rows] - x @ point.slopes)
                bread += np.einsum("ia,ia,ia->a", squared, expected, 1 + 1 / inverse_odds)
                rest = 1 - self.leverage[rows, None] - self.expected[rows, None] * (squared / point.inner)
                residual /= np.maximum(rest, OWN_LEVEL)
                meat += np.einsum("ia,ia,ia->a", squared, residual, residual)
        return Looked(score, covariate_score, bread, meat)


class Point(NamedTuple):
    """By assignment: treatment's slopes on the covariates (columns, assignments) and its information net of them, and
    the coefficients so far, of the covariates (columns, assignments) and of treatment."""

    slopes: Array
    inner: Array
    beta: Array
    log_risk: Array


class Looked(NamedTuple):
    """By assignment: scores of treatment and of the covariates (columns, assignments), and bread and meat (HC3) of the
    sandwich."""

    score: Array
    covariate_score: Array
    bread: Array
    meat: Array


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


def wilson_interval(hits: int, number: int, level: float = 0.95) -> tuple[float, float]:
    """Of a share (Wilson 1927)."""
    z = float(special.ndtri(0.5 + level / 2))
    centre = (hits + z * z / 2) / (number + z * z)
    reach = z / (number + z * z) * math.sqrt(hits * (number - hits) / number + z * z / 4)
    return centre - reach, centre + reach


def randomisation_test(effects: Effects, observed: RelativeRisk) -> Randomisation:
    """Studentised, so that it also holds where only the mean effect is zero (Chung and Romano 2013)."""
    z = np.abs(effects.log_risk / effects.standard_error)
    as_large = int((z >= abs(observed.z)).sum())
    return Randomisation((1 + as_large) / (1 + len(z)), float(np.quantile(z, 0.95)))


def randomisation_interval(observed: RelativeRisk, test: Randomisation) -> RelativeRisk:
    """The observed estimate with the critical value of its randomisation distribution in place of 1.96."""
    centre, reach = math.log(observed.estimate), test.critical_value * observed.standard_error
    return observed._replace(low=math.exp(centre - reach), high=math.exp(centre + reach), p_value=test.p_value)
