"""The headline's estimate and error under many assignments of the same advertisers, side by side.

A thousand full fits would take a minute. The covariates' fit without treatment is common to all; from it each
assignment takes Newton's steps with its own information, one or two as a rule, and, where clicks are rare, in single
precision; its HC3 has its own weights and leverages. Log relative risks are those of full fits to 1e-6, errors to about
a thousandth, also where one advertiser holds half of the impressions. An assignment whose steps do not settle, or whose
effect one advertiser nearly decides, is fitted in full.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rlpf_pipeline.abtest.design import TREATMENT, Design
from rlpf_pipeline.abtest.log_binomial import estimate, standard_errors, triangle_of
from rlpf_pipeline.abtest.maximum import Array, Counts, blocks
from rlpf_pipeline.abtest.sandwich import HEADLINE, OWN_LEVEL
from rlpf_pipeline.errors import UserError

STEPS = 6
CLOSE = 2e-4
"""A step, of the log relative risk and of log means, after which none is needed: what is left is about its square."""
TURNED = 2e-2
"""A turn of what the covariates leave of treatment, relative to its length, after which none is needed: a few per cent
of it are left."""
ROWS = 512
FARTHEST = 5.0
"""Of a log mean from that of the covariates' fit: steps beyond it are not trusted."""
HIGHEST = -1e-6
"""Of a log mean: short of 1."""
LIKELY = -0.05
"""Of a log mean: beyond it single precision has too few digits for 1 - mean."""
DECISIVE = 10.0
"""An advertiser's leverage on treatment's effect over 1 - its whole leverage, beyond which an assignment is fitted in
full."""

Arms = npt.NDArray[np.bool_]
"""Whether an advertiser is treated, (advertisers, assignments)."""
Numbers = npt.NDArray[np.floating[Any]]
"""In single precision where clicks are rare."""


class Prepared:
    """The fit on the covariates alone, ready for any assignment.

    Columns are orthonormal under its information, so that no scale of a covariate matters. Treatment enters as what the
    covariates leave of it (Frisch and Waugh): log means are eta + x @ beta + (treated - x @ slopes) * log_risk.
    """

    def __init__(self, design: Design) -> None:
        x, k, n = design.counts
        self.counts = Counts(np.delete(x, design.position, axis=1), k, n)
        self.names = [name for name in design.names if name != TREATMENT]
        fit = estimate(self.counts, self.names)
        self.status = fit.status
        eta = np.minimum(self.counts.x @ fit.beta, HIGHEST)
        residual, _, weight = weights(k, n, eta)
        triangle = triangle_of(self.counts.x * np.sqrt(weight)[:, None])
        columns = np.linalg.solve(triangle.T, self.counts.x.T).T
        rare = bool(eta.max() < 2 * LIKELY)
        self.number = np.dtype(np.float32 if rare else np.float64)
        self.highest = LIKELY if rare else HIGHEST
        self.first = self.rounded(np.column_stack([columns * weight[:, None], weight, residual, k > 0]))
        self.x, self.eta, self.k, self.n = map(self.rounded, (columns, eta[:, None], k[:, None], n[:, None]))
        self.blocks = blocks(len(k), ROWS)
        self.pairs = np.triu_indices(columns.shape[1])

    def rounded(self, part: Numbers) -> Numbers:
        return np.ascontiguousarray(part, self.number)

    def effects(self, treated: Arms) -> tuple[Array, Array]:
        """Log relative risks and their HC3, by assignment; NaN where there is no estimate."""
        log_risk, error = np.full((2, treated.shape[1]), np.nan)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            point, with_clicks = self.start(treated)
            estimable = (with_clicks > 0) & (with_clicks < np.count_nonzero(self.k))
            left, point = np.flatnonzero(estimable), point.of(estimable)
            for _ in range(STEPS):
                if not left.size:
                    break
                drawn = treated.take(left, axis=1)
                looked = self.look(drawn, point)
                close = looked.inside & (looked.moved <= CLOSE) & (looked.turned <= TURNED)
                log_risk[left[close]] = looked.point.log_risk[close]
                there = drawn.compress(close, axis=1), looked.point.of(close), looked.leverage.of(close)
                error[left[close]] = self.errors(*there)
                far = looked.inside & ~close
                left, point = left[far], looked.point.of(far)
        for assignment in np.flatnonzero(estimable & np.isnan(error)):
            log_risk[assignment], error[assignment] = self.full_fit(treated[:, assignment])
        return log_risk, error

    def start(self, treated: Arms) -> tuple[Point, Array]:
        """One step from no effect, where the information of the covariates' fit is that of every assignment; and how
        many of the treated have clicks, (assignments,)."""
        sums = [self.first[rows].T @ treated[rows].astype(self.number) for rows in self.blocks]
        summed = np.asarray(np.sum(sums, axis=0, dtype=np.float64))
        slopes, (own, score, with_clicks) = summed[:-3], summed[-3:]
        inner = own - np.square(slopes).sum(axis=0)
        return Point(np.zeros_like(slopes), score / inner, slopes, inner), with_clicks

    def at(self, rows: slice, treated: Arms, point: Point) -> tuple[Numbers, Numbers]:
        """What the covariates leave of treatment, and log means; (rows, assignments)."""
        x = self.x[rows]
        remainder = treated[rows] - x @ point.slopes
        log_mean = x @ point.beta
        log_mean += remainder * point.log_risk
        log_mean += self.eta[rows]
        return remainder, log_mean

    def products(self, rows: slice) -> Numbers:
        """Of each pair of columns, (pairs, rows)."""
        first, second = self.pairs
        columns = self.x[rows].T.copy()
        return np.asarray(columns[first] * columns[second])

    def look(self, treated: Arms, point: Point) -> Looked:
        """Newton's step from a point, with the expected information; it is what leverages are of as well."""
        columns, assignments = point.beta.shape
        inside = np.ones(assignments, dtype=bool)
        score, cross, expected_cross = np.zeros((3, columns, assignments))
        own_score, inner, expected_inner = np.zeros((3, assignments))
        information = np.zeros((len(self.pairs[0]), assignments))
        rounded = Point(*map(self.rounded, point))
        for rows in self.blocks:
            x = self.x[rows]
            remainder, log_mean = self.at(rows, treated, rounded)
            drift = log_mean - self.eta[rows]
            inside &= (log_mean.max(axis=0) <= self.highest) & (np.abs(drift, out=drift).max(axis=0) < FARTHEST)
            residual, expected, weight = weights(self.k[rows], self.n[rows], log_mean)
            score += x.T @ residual
            own_score += (residual * remainder).sum(axis=0)
            information += self.products(rows) @ expected
            for by, across, within in ((weight, cross, inner), (expected, expected_cross, expected_inner)):
                by *= remainder
                across += x.T @ by
                within += (by * remainder).sum(axis=0)
        information[..., ~inside] = np.equal(*self.pairs)[:, None]  # identities, which can be inverted
        inverse = self.inverse(information)
        beta, turn, expected_turn = (np.einsum("ajl,la->ja", inverse, part) for part in (score, cross, expected_cross))
        taken = (cross * turn).sum(axis=0)
        inner -= taken
        expected_inner -= (expected_cross * expected_turn).sum(axis=0)
        own_score -= (score * turn).sum(axis=0)
        step = own_score / inner
        gain = (score * beta).sum(axis=0) + own_score * step
        return Looked(
            inside,
            Point(point.beta + beta + turn * point.log_risk, point.log_risk + step, point.slopes + turn, inner),
            moved=np.maximum(np.abs(step), np.sqrt(np.maximum(gain, 0.0) / self.counts.k.sum())),
            turned=np.sqrt(np.abs(taken) / inner),
            leverage=Leverage(inverse, point.slopes + expected_turn, expected_inner),
        )

    def inverse(self, information: Array) -> Array:
        """Of symmetric matrices by pair of columns, (pairs, assignments)."""
        first, second = self.pairs
        size = self.x.shape[1]
        matrices = np.zeros((information.shape[1], size, size))
        matrices[:, first, second] = matrices[:, second, first] = information.T
        return np.asarray(np.linalg.inv(matrices), dtype=np.float64)

    def errors(self, treated: Arms, point: Point, leverage: Leverage) -> Array:
        """HC3 of the log relative risk, as in sandwich.py, (assignments,); NaN where one advertiser nearly decides it:
        what is left of its residual is too little to be known from a few steps."""
        first, second = self.pairs
        rounded = Point(*map(self.rounded, point))
        by_pair = leverage.inverse[:, first, second].T * np.where(first == second, 1.0, 2.0)[:, None]
        form, turn, inner = map(self.rounded, (by_pair, leverage.slopes - point.slopes, leverage.inner))
        meat, decided = np.zeros(treated.shape[1]), np.zeros(treated.shape[1], dtype=bool)
        for rows in self.blocks:
            remainder, log_mean = self.at(rows, treated, rounded)
            residual, expected, _ = weights(self.k[rows], self.n[rows], log_mean)
            own = remainder - self.x[rows] @ turn
            own *= own
            own /= inner
            own *= expected
            rest = self.products(rows).T @ form
            rest *= expected
            rest += own
            np.subtract(1, rest, out=rest)
            decided |= (own > DECISIVE * np.maximum(rest, OWN_LEVEL)).any(axis=0)
            np.putmask(rest, rest <= OWN_LEVEL, np.inf)
            residual *= remainder
            residual /= rest
            meat += np.square(residual).sum(axis=0)
        meat[decided] = np.nan
        return np.asarray(np.sqrt(meat) / point.inner)

    def full_fit(self, treated: Arms) -> tuple[float, float]:
        """Log relative risk and HC3 of one assignment (advertisers,); NaN where it has no estimate."""
        counts = self.counts._replace(x=np.column_stack([treated, self.counts.x]))
        try:
            fit = estimate(counts, [TREATMENT, *self.names], of=slice(1))
        except UserError:
            return math.nan, math.nan
        return float(fit.beta[0]), float(standard_errors(fit.covariances[HEADLINE])[0])


def weights(k: Numbers, n: Numbers, log_mean: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """Score per unit of the design, weights of the expected and of the observed information."""
    mean = np.exp(log_mean)  # short of 1, 1 - mean has digits enough, and expm1 takes twice as long
    odds = mean / (1 - mean)
    fitted = (n - k) * odds
    residual, expected = k - fitted, n * odds
    odds += 1
    fitted *= odds
    return residual, expected, fitted


class Point(NamedTuple):
    """By assignment."""

    beta: Numbers
    """(columns, assignments): how far the covariates' coefficients are from the common fit."""
    log_risk: Numbers
    """(assignments,)"""
    slopes: Numbers
    """(columns, assignments): of treatment's regression on the covariates, by the observed information."""
    inner: Numbers
    """(assignments,): treatment's information net of the covariates."""

    def of(self, chosen: npt.NDArray[np.bool_]) -> Point:
        return Point(*(part.compress(chosen, axis=-1) for part in self))


class Leverage(NamedTuple):
    """By assignment: of the expected information."""

    inverse: Array
    """(assignments, columns, columns), of the covariates'."""
    slopes: Array
    """(columns, assignments)"""
    inner: Array
    """(assignments,)"""

    def of(self, chosen: npt.NDArray[np.bool_]) -> Leverage:
        return Leverage(self.inverse[chosen], self.slopes.compress(chosen, axis=1), self.inner[chosen])


class Looked(NamedTuple):
    inside: npt.NDArray[np.bool_]
    """Whether every mean is below 1 and not far from the covariates' fit; where not, nothing else here counts."""
    point: Point
    """After the step."""
    moved: Array
    """By the step: the log relative risk, or log means, root mean square over clicks; the larger."""
    turned: Array
    """By the step: what the covariates leave of treatment, relative to its own length."""
    leverage: Leverage
