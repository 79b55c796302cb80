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
import numpy.typing as npt

from rlpf_pipeline.abtest.maximum import Array, Counts, Maximum, blocks

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
    """Of some rows, by row: the score per unit of the design, the weight of the expected information, and the variance
    of the successes."""

    score: Array
    expected: Array
    variance: Array
    residual: Array


def binomial_parts(mean: Array, k: Array, n: Array) -> Parts:
    residual = k - n * mean
    free = 1 / np.where(mean < 1, 1 - mean, np.inf)
    weight = n * mean * free
    return Parts(score=residual * free, expected=weight, variance=n * mean * (1 - mean), residual=residual)


def poisson_parts(mean: Array, k: Array, n: Array) -> Parts:
    weight = n * mean
    return Parts(score=k - weight, expected=weight, variance=weight, residual=k - weight)


def covariances(
    counts: Counts, found: Maximum, back: Array, *, poisson: bool, clusters: npt.NDArray[np.intp] | None = None
) -> dict[str, Array]:
    """Covariance matrices (columns, columns) of back @ coefficients by kind; `cluster` only with `clusters` (rows,),
    their numbers, and of a saturated design `naive` alone."""
    parts_of = poisson_parts if poisson else binomial_parts
    beta, free = found.beta, found.free
    basis = np.eye(len(beta)) if free is None else free
    rows, columns = counts.x.shape

    def block(part: slice) -> tuple[Array, Parts]:
        x = counts.x[part]
        mean = np.exp(x @ beta)
        if free is not None:
            held = (counts.k[part] == counts.n[part]) & (mean > 1 - 1e-9)
            mean = np.where(held, 1.0, mean)
            x = np.where(held[:, None], 0.0, x @ basis)
        return x, parts_of(mean, counts.k[part], counts.n[part])

    size = basis.shape[1]
    expected, meat, pearson = np.zeros((size, size)), np.zeros((size, size)), 0.0
    for part in blocks(rows):
        x, parts = block(part)
        half, scores = x * np.sqrt(parts.expected)[:, None], x * parts.score[:, None]
        expected += half.T @ half
        meat += scores.T @ scores
        pearson += float((parts.residual[parts.variance > 0] ** 2 / parts.variance[parts.variance > 0]).sum())
    naive = np.asarray(np.linalg.inv(expected), dtype=np.float64)
    directions = without_rounding(back @ basis, back)
    if rows == columns:
        return {"naive": in_coefficients(naive, directions)}

    bread = np.linalg.inv(found.local.information)
    meat3 = np.zeros((size, size))
    totals = np.zeros((size, int(clusters.max()) + 1)) if clusters is not None else None
    for part in blocks(rows):
        x, parts = block(part)
        leverage = parts.expected * np.einsum("ij,ij->i", x @ naive, x)
        adjusted = parts.score / np.where(1 - leverage > OWN_LEVEL, 1 - leverage, np.inf)
        scores = x * adjusted[:, None]
        meat3 += scores.T @ scores
        if clusters is not None and totals is not None:
            for j in range(size):
                totals[j] += np.bincount(clusters[part], x[:, j] * parts.score, totals.shape[1])

    hc0 = bread @ meat @ bread
    matrices = {
        "naive": naive,
        "quasi": naive * (pearson / (rows - columns)),
        "hc0": hc0,
        "hc1": hc0 * (rows / (rows - columns)),
        "hc3": bread @ meat3 @ bread,
    }
    if totals is not None:
        matrices["cluster"] = bread @ (totals @ totals.T) @ bread
    return {kind: in_coefficients(matrix, directions) for kind, matrix in matrices.items()}


def in_coefficients(matrix: Array, directions: Array) -> Array:
    return np.asarray(directions @ matrix @ directions.T)


def without_rounding(directions: Array, back: Array) -> Array:
    """Free directions in the caller's coefficients, zero for a coefficient that is free in none."""
    lengths = np.linalg.norm(directions, axis=1) / np.linalg.norm(back, axis=1)
    return np.where(lengths[:, None] > SETTLED, directions, 0.0)
