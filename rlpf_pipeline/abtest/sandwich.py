"""Covariances of log-binomial and modified Poisson coefficients: naive, quasi, HC0, HC1, HC3, clustered.

With residual r_i = k_i - n_i mu_i and the score s_i = x_i r_i / (1 - mu_i) of a row:

    naive    I^-1, I = sum x_i x_i' n_i mu_i / (1 - mu_i), the expected information
    quasi    naive times Pearson's sum r_i^2 / (n_i mu_i (1 - mu_i)) / (N - p)
    hc0      A^-1 (sum s_i s_i') A^-1, A the observed information (Huber 1967, White 1980)
    hc1      hc0 times N / (N - p) (MacKinnon and White 1985)
    hc3      as hc0 with s_i / (1 - h_i), h_i the leverage of row i in the weighted regression of the last step (a row
             with h_i = 1, alone in its level, is fitted exactly and says nothing of the others: 0)
    cluster  as hc0 with the scores summed by cluster first; no small-sample factor

A saturated design, of as many columns as rows, fits every row exactly, and leaves no residual to tell how rows differ:
it has the naive errors alone.

The modified Poisson estimator has the score x_i r_i and I = A = sum x_i x_i' n_i mu_i.

On the boundary (some rows held at mean 1) all of these are of the directions that keep those rows there: with F a basis
of them, F (F'IF)^-1 F' for the naive one, and so on. That is the limit of the naive formula as those means reach 1,
where their weight n mu / (1 - mu) grows without bound, and what the COPY method (Deddens, Petersen and Lei 2003) tends
to. Such errors take for granted which rows are held; a coefficient that those rows fix altogether has the error 0.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rlpf_pipeline.abtest.cells import Rows, sums_by
from rlpf_pipeline.abtest.maximum import Array, Counts, Maximum, blocks, products

HEADLINE = "hc3"
"""The error of every interval and p-value that decides. With heavy-tailed impressions a few advertisers have much
leverage: they pull the fit towards themselves, their residuals are too small, and hc1 is too narrow. hc3 divides that
out; it is the jackknife's variance to first order (docs/ab-report.md shows the coverage of both)."""
OWN_LEVEL = 1e-6
"""1 - leverage below which a row is fitted by a column of its own, and its residual is rounding."""

SETTLED = 1e-8
"""Length of a coefficient's free directions, relative to when all are free, below which there is rounding only: the
square of an error would hide it, as rounding of a sum of squares is of their size."""


class Parts(NamedTuple):
    """Of a trial, by cell: what a residual is multiplied with in the score, the weight of the expected information, and
    the variance of a success."""

    score: Array
    expected: Array
    variance: Array


def binomial_parts(mean: Array) -> Parts:
    free = 1 / np.where(mean < 1, 1 - mean, np.inf)
    return Parts(score=free, expected=mean * free, variance=mean * (1 - mean))


def poisson_parts(mean: Array) -> Parts:
    return Parts(score=np.ones_like(mean), expected=mean, variance=mean)


def covariances(counts: Counts, rows: Rows, found: Maximum, back: Array, *, poisson: bool) -> dict[str, Array]:
    """Covariance matrices of back @ coefficients by kind, (len(back), len(back)); `cluster` only where rows have
    clusters, and of a saturated design `naive` alone. counts: the rows' sums by cell. N, residuals and leverages are of
    rows."""
    number, columns = len(rows.k), counts.x.shape[1]
    basis = np.eye(columns) if found.free is None else found.free
    x, mean = free_of_held(counts, found)
    parts = poisson_parts(mean) if poisson else binomial_parts(mean)
    naive = np.asarray(np.linalg.inv(products(x, counts.n * parts.expected)), dtype=np.float64)
    directions = without_rounding(back @ basis, back)
    matrices = {"naive": in_coefficients(naive, directions)}
    if number == columns:
        return matrices

    influence = (directions @ np.linalg.inv(found.local.information) @ x.T).T  # of a row's score; by column
    residual = rows.k - rows.n * rows.spread(mean)
    left = 1 - rows.n * rows.spread(parts.expected * quadratic(x, naive))  # 1 - leverage
    adjusted = residual / np.where(left > OWN_LEVEL, left, np.inf)
    squares, factor = residual**2, parts.score**2
    varying = parts.variance > 0
    pearson = float((rows.summed(squares / rows.n)[varying] / parts.variance[varying]).sum())
    hc0 = products(influence, factor * rows.summed(squares))
    matrices |= {
        "quasi": matrices["naive"] * (pearson / (number - columns)),
        "hc0": hc0,
        "hc1": hc0 * (number / (number - columns)),
        "hc3": products(influence, factor * rows.summed(adjusted**2)),
    }
    if rows.clusters is not None:
        score = parts.score * (counts.k - counts.n * mean)
        totals = np.array([sums_by(rows.clusters, column * score) for column in influence.T])
        matrices["cluster"] = totals @ totals.T
    return matrices


def free_of_held(counts: Counts, found: Maximum) -> tuple[Array, Array]:
    """The design in the free directions, zero where the mean is held at 1; the means."""
    mean = np.exp(counts.x @ found.beta)
    if found.free is None:
        return counts.x, mean
    held = (counts.k == counts.n) & (mean > 1 - 1e-9)
    return np.where(held[:, None], 0.0, counts.x @ found.free), np.where(held, 1.0, mean)


def quadratic(x: Array, matrix: Array) -> Array:
    """x_i'Mx_i of each row."""
    return np.concatenate([np.einsum("ij,ij->i", x[part] @ matrix, x[part]) for part in blocks(len(x))])


def in_coefficients(matrix: Array, directions: Array) -> Array:
    return np.asarray(directions @ matrix @ directions.T)


def without_rounding(directions: Array, back: Array) -> Array:
    """Free directions in the caller's coefficients, zero for a coefficient that is free in none."""
    lengths = np.linalg.norm(directions, axis=1) / np.linalg.norm(back, axis=1)
    return np.where(lengths[:, None] > SETTLED, directions, 0.0)
