"""Log-binomial regression of clicks on impressions, with errors that hold when advertisers differ.

k_i ~ Binomial(n_i, mu_i), log mu_i = x_i'b: exp(b) is a relative risk, a ratio of CTRs. One row is a unit of
randomisation (or part of one, with `cluster`). Advertisers differ far more than a binomial allows, so the naive error
is useless; the headline is a sandwich, HC3 (sandwich.py). Convergence is judged by the score (maximum.py), not by a
solver's warning. Where no point has all mu_i < 1, or no single one is best, the modified Poisson estimator (Zou 2004)
answers instead, and `status` says so.

    fit = log_binomial(data, "~ treatment + C(industry)", successes="clicks", trials="impressions")
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from contextlib import AbstractContextManager
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController

from rlpf_pipeline.abtest import normal
from rlpf_pipeline.abtest.cells import Numbers, Rows
from rlpf_pipeline.abtest.formulas import design_matrix
from rlpf_pipeline.abtest.frames import (
    as_frame,
    counts_in,
    require_columns,
    require_one_type_of_names,
    require_values,
)
from rlpf_pipeline.abtest.maximum import (
    SCORE_TOLERANCE,
    Array,
    Counts,
    Local,
    Maximum,
    blocks,
    look,
    maximise,
    products,
    relative,
)
from rlpf_pipeline.abtest.sandwich import HEADLINE, covariances
from rlpf_pipeline.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

SMALLEST_ERROR = 1e-7
"""Of a log relative risk: below it, there is rounding only (of 1e-16 in squares)."""
LARGEST_LOG = 300.0
"""Ratios beyond exp of it are cut there: they say nothing."""
WELL_CONDITIONED = 1e8
"""Condition number of the products of columns (their lengths made 1) below which half of the digits are left."""
Status = Literal["converged", "boundary", "modified-poisson"]


class LogBinomialFit(NamedTuple):
    """Estimates on the log scale; dicts are keyed by the design column (formulaic's name)."""

    coefficients: dict[str, float]
    """Log relative risk."""
    standard_errors: dict[str, dict[str, float]]
    """By kind: naive, quasi, hc0, hc1, hc3, and cluster where a cluster column was given (definitions: sandwich.py);
    naive alone where there are as many columns as rows."""
    log_likelihood: float
    """Sum of k log mu + (n - k) log(1 - mu), without the binomial constant; minus infinity where a mean of the modified
    Poisson fit is beyond 1."""
    status: Status
    """converged: an inner maximum. boundary: a fitted mean is 1 at the maximum, and the errors hold the rows there that
    are. modified-poisson: the likelihood has no maximum, or more than one; another estimator answers."""
    n: int
    """Rows with at least one trial."""
    iterations: int


class RelativeRisk(NamedTuple):
    """exp(coefficient) with its interval, which is symmetric on the log scale."""

    estimate: float
    low: float
    high: float
    standard_error: float
    """Of the log relative risk."""
    z: float
    p_value: float
    """Two-sided, of no effect."""
    level: float


class Estimate(NamedTuple):
    """A fit as arrays, in the columns of the design it was given."""

    beta: Array
    covariances: dict[str, Array]
    """By kind (sandwich.py), of the coefficients that were asked for."""
    log_likelihood: float
    status: Status
    iterations: int


def log_binomial(data: Any, formula: str, successes: str, trials: str, cluster: str | None = None) -> LogBinomialFit:
    """Fit log E[successes / trials] = design @ b by maximum likelihood.

    data: pandas.DataFrame or pyarrow.Table, a row per unit (trials may be 1 a row). formula: right-hand side only, as
    `"~ treatment + C(industry)"`; in it, `.` is every column but successes, trials and cluster. A category's levels
    keep their order (of a dictionary in a pyarrow.Table: that of its words), and the first is the one compared with.
    cluster: the column that names the unit where a unit has several rows.
    Raises UserError for missing or impossible values, collinear columns, one cluster only, or an estimate that does not
    exist.
    """
    for role, name in (("successes", successes), ("trials", trials), ("cluster", cluster)):
        if not isinstance(name, Hashable):
            raise UserError(f"`{role}` is the name of one column, not a {type(name).__name__}. Add it to the data.")
    frame = as_frame(data)
    counted = (successes, trials, *([cluster] if cluster else []))
    require_columns(frame, counted)
    k, n = counts_in(frame, successes, trials)
    if not (n > 0).all():
        frame, k, n = frame[n > 0].reset_index(drop=True), k[n > 0], n[n > 0]
    if frame.empty:
        raise UserError(f"No row has {trials} above 0. Check the column of trials.")
    clusters = numbered(frame, cluster) if cluster else None
    design, names, cells = design_matrix(frame, formula, counted, clusters)
    rows = Rows(k, n, clusters=clusters) if cells is None else Rows(k, n, cells.cell, cells.clusters)
    fit = estimate(Counts(design, rows.summed(k), rows.summed(n)), names, rows)
    return LogBinomialFit(
        coefficients=dict(zip(names, fit.beta.tolist(), strict=True)),
        standard_errors={
            kind: dict(zip(names, standard_errors(matrix).tolist(), strict=True))
            for kind, matrix in fit.covariances.items()
        },
        log_likelihood=fit.log_likelihood,
        status=fit.status,
        n=len(frame),
        iterations=fit.iterations,
    )


def numbered(frame: pd.DataFrame, cluster: str) -> Numbers:
    """Each row's cluster as a number from 0. Raises UserError where they cannot be told apart, are one or missing."""
    import pandas as pd  # heavy, and not needed by `estimate`

    try:
        require_one_type_of_names(frame[cluster])
        clusters = pd.factorize(frame[cluster])[0]
    except TypeError as error:
        raise UserError(f"{cluster} holds {error}: name each cluster by a number or a text.") from error
    if clusters.min() < 0:
        require_values(frame, (cluster,))
    if not clusters.any():
        raise UserError(f"All rows have the same {cluster}: errors by cluster need several. Leave out `cluster`.")
    return clusters


def estimate(counts: Counts, names: list[str], rows: Rows | None = None, of: slice = slice(None)) -> Estimate:
    """Fit a design. The columns are orthonormalised for the solver, and coefficients turned back. rows: those that
    counts sum by cell, where these are not the rows themselves. of: coefficients whose covariances are wanted.

    Raises UserError where the design is not of full rank, or an estimate does not exist.
    """
    with one_thread():
        triangle = triangle_of(counts.x) / math.sqrt(len(counts.k))
        if dependent := dependent_in(triangle):
            raise UserError(
                f"Constant or collinear columns: {', '.join(names[j] for j in dependent)} follow(s) from the columns "
                "before. Leave them out."
            )
        back = np.asarray(np.linalg.inv(triangle), dtype=np.float64)
        turned = counts._replace(x=(back.T @ counts.x.T).T)  # by column, where rows are weighted faster
        require_finite_estimate(turned, names, back)
        found = maximise(turned)
        status: Status = "modified-poisson" if found is None else "converged" if found.free is None else "boundary"
        found = found or poisson_maximum(turned)
        rows = rows or Rows(counts.k, counts.n)
        matrices = covariances(turned, rows, found, back[of], poisson=status == "modified-poisson")
        return Estimate(
            beta=back @ found.beta,
            covariances=matrices,
            log_likelihood=found.local.value,
            status=status,
            iterations=found.iterations,
        )


def one_thread() -> AbstractContextManager[object]:
    """BLAS on one thread: more cost more than they save on a few dozen columns."""
    manager: AbstractContextManager[object] = blas_of_this_process().limit(limits=1, user_api="blas")
    return manager


@cache
def blas_of_this_process() -> ThreadpoolController:
    return ThreadpoolController()  # looks through all loaded libraries: milliseconds


def relative_risk(fit: LogBinomialFit, column: str, errors: str | None = None, level: float = 0.95) -> RelativeRisk:
    """The relative risk of a design column. errors: a kind that the fit has; None for cluster where it was given
    clusters (its rows are then no units of their own), else HC3.

    Raises UserError for a column or a kind of error the fit does not have, and a level that is none.
    """
    if not 0 < level < 1:
        raise UserError(f"The level of an interval lies between 0 and 1, as 0.95; it is {level}.")
    errors = errors or ("cluster" if "cluster" in fit.standard_errors else HEADLINE)
    if column not in fit.coefficients:
        raise UserError(f"The fit has no column '{column}'. It has: {', '.join(fit.coefficients)}.")
    if errors not in fit.standard_errors:
        raise UserError(f"The fit has no '{errors}' errors. It has: {', '.join(fit.standard_errors)}.")
    return fitted_risk(fit.coefficients[column], fit.standard_errors[errors][column], fit.status, level)


def fitted_risk(log_risk: float, standard_error: float, status: Status, level: float = 0.95) -> RelativeRisk:
    """Of a fit with this status. Raises UserError where the standard error is zero."""
    if status == "boundary" and not standard_error > SMALLEST_ERROR:
        raise UserError(
            "The likelihood is highest where fitted means are 1, and these alone settle the relative risk: it has no "
            "standard error. Leave out the covariates under which everything is clicked, or run for longer."
        )
    return risk_from(log_risk, standard_error, level)


def risk_from(log_risk: float, standard_error: float, level: float = 0.95) -> RelativeRisk:
    """Wald inference on the log scale. Raises UserError where the standard error is zero."""
    if not standard_error > SMALLEST_ERROR:
        raise UserError(
            "The standard error is zero: the rows do not vary within an arm or level. Check how the data were made."
        )
    reach = normal.quantile(0.5 + level / 2) * standard_error
    z = log_risk / standard_error
    return RelativeRisk(
        estimate=ratio_at(log_risk),
        low=ratio_at(log_risk - reach),
        high=ratio_at(log_risk + reach),
        standard_error=standard_error,
        z=z,
        p_value=2 * normal.cumulative(-abs(z)),
        level=level,
    )


def ratio_at(log_ratio: float) -> float:
    """exp, cut at that of LARGEST_LOG."""
    return math.exp(min(max(log_ratio, -LARGEST_LOG), LARGEST_LOG))


def dependent_columns(design: Array) -> list[int]:
    """Positions of columns that are a linear combination of those before them."""
    return dependent_in(triangle_of(design))


def dependent_in(triangle: Array) -> list[int]:
    """The same, of a design's triangle."""
    size = np.linalg.norm(triangle, axis=0)
    rest = np.abs(np.diag(triangle))
    return [j for j in range(len(size)) if not rest[j] > 1e-9 * size[j]]


def triangle_of(design: Array) -> Array:
    """R of the design's QR decomposition, (columns, columns), up to the signs of its rows.

    By Cholesky's factor of the products of columns where these are far from collinear (it loses the square of the
    condition number, and is ten times faster); else by QR, block of rows by block of rows.
    """
    columns = design.shape[1]
    squares = design.T @ design
    size = np.sqrt(np.diag(squares))
    if size.all() and np.linalg.cond(squares / np.outer(size, size)) < WELL_CONDITIONED:
        return np.asarray(np.linalg.cholesky(squares).T)
    triangle = np.zeros((0, columns))
    for rows in blocks(len(design)):
        triangle = np.asarray(np.linalg.qr(np.vstack([triangle, design[rows]]), mode="r"))
    return np.vstack([triangle, np.zeros((columns - len(triangle), columns))])


def require_finite_estimate(counts: Counts, names: list[str], back: Array) -> None:
    """Raise UserError where the likelihood rises for ever along some direction d of the coefficients.

    That is so if x_i'd = 0 in every row with clicks, and x_i'd <= 0, somewhere < 0, in those without.
    """
    clicked = counts.k > 0
    if not clicked.any():
        raise UserError("There are no clicks at all: there is no rate to compare. Check the column of successes.")
    if (counts.k == counts.n).all():
        raise UserError("Every trial is a success: there is no rate to compare. Check the column of trials.")
    if is_of_full_rank(counts.x, clicked):
        return  # no such direction
    from scipy import linalg, optimize  # heavy, and rarely needed

    directions = linalg.null_space(triangle_of(counts.x[clicked]), rcond=1e-9)
    if not directions.shape[1]:
        return
    silent = np.unique(counts.x[~clicked] @ directions, axis=0)
    found = optimize.linprog(
        silent.sum(axis=0),
        A_ub=np.vstack([silent, -silent]),
        b_ub=np.repeat([0.0, 1.0], len(silent)),
        bounds=(None, None),
    )
    if not found.success or float(found.fun or 0.0) > -1e-7:
        return
    slopes = back @ (directions @ np.asarray(found.x, dtype=np.float64))
    involved = [name for name, slope in zip(names, slopes, strict=True) if abs(slope) > 1e-7 * np.abs(slopes).max()]
    raise UserError(
        f"There are no clicks where {', '.join(involved)} set(s) rows apart: a log relative risk is infinite. "
        "Merge or leave out that covariate."
    )


def is_of_full_rank(x: Array, chosen: npt.NDArray[np.bool_]) -> bool:
    """Whether the chosen rows are so by far; x: orthonormal over all rows. Rows are added until they are enough."""
    weight = chosen.astype(np.float64)
    total = np.zeros((x.shape[1], x.shape[1]))
    for rows in blocks(len(x)):
        total += products(x[rows], weight[rows])
        if np.linalg.eigvalsh(total)[0] > 1e-6 * len(x):
            return True
    return False


def poisson_maximum(counts: Counts) -> Maximum:
    """Modified Poisson coefficients: sum x_i (k_i - n_i mu_i) = 0, by Newton steps from the pooled rate."""
    x, k, n = counts
    beta = np.linalg.lstsq(x.T @ x, x.T @ np.full(len(k), math.log(k.sum() / n.sum())))[0]
    for iteration in range(200):
        expected = n * np.exp(x @ beta)
        score, weight = x.T @ (k - expected), np.abs(x).T @ (k + expected)
        information = products(x, expected)
        if relative(score, weight) <= SCORE_TOLERANCE * 1e-3:
            value = look(counts, beta).value  # of the log-binomial likelihood
            local = Local(value if math.isfinite(value) else -math.inf, score, information)
            return Maximum(beta, None, iteration, local)
        step = np.linalg.solve(information, score)
        value = float(k @ (x @ beta) - expected.sum())
        fraction = 1.0
        while fraction > 1e-9:
            eta = x @ (beta + fraction * step)
            if float(eta.max()) < 500 and float(k @ eta - (n * np.exp(eta)).sum()) >= value - 1e-9 * abs(value):
                break
            fraction /= 2
        beta = beta + fraction * step
    raise UserError("The regression did not converge. Rescale or leave out covariates with extreme values.")


def standard_errors(covariance: Array) -> Array:
    return np.sqrt(np.maximum(np.diag(covariance), 0.0))
