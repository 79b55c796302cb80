"""Log-binomial regression of clicks on impressions, with errors that hold when advertisers differ.

k_i ~ Binomial(n_i, mu_i), log mu_i = x_i'b: exp(b) is a relative risk, a ratio of CTRs. One row is a unit of
randomisation (or part of one, with `cluster`). Advertisers differ far more than a binomial allows, so the naive error
is useless; the headline is the sandwich A^-1 B A^-1 (Huber 1967, White 1980), A the observed information and B the sum
of squared scores x_i (k_i - n_i mu_i) / (1 - mu_i).

Convergence is judged by that score, not by a solver's warning. Where no maximum with all mu_i < 1 is found, the
modified Poisson estimator (Zou 2004) answers instead, and `status` says so.
"""

from __future__ import annotations

import warnings
from typing import Any, Literal, NamedTuple

import formulaic
import numpy as np
import numpy.typing as npt
import statsmodels.api as sm
from formulaic.errors import FormulaicError
from scipy import stats

from rlpf_pipeline.abtest.frames import as_frame, require_columns, require_counts
from rlpf_pipeline.errors import UserError

Array = npt.NDArray[np.float64]
Status = Literal["converged", "modified-poisson"]

SCORE_TOLERANCE = 1e-8
"""Largest accepted |score| relative to the clicks behind it, by column."""
VANISHED = 1e-12
"""A fitted mean this far below the pooled rate is on its way to zero: the estimate is minus infinity."""


class LogBinomialFit(NamedTuple):
    """Estimates on the log scale; dicts are keyed by the design column (formulaic's name)."""

    coefficients: dict[str, float]
    """Log relative risk."""
    standard_errors: dict[str, dict[str, float]]
    """By kind: naive (binomial), quasi (naive times the root of Pearson's dispersion), hc0, hc1 (hc0 variance times
    n/(n-p)), and cluster where a cluster column was given (no small-sample factor: on the panel it equals hc0 of the
    totals per cluster)."""
    log_likelihood: float
    """Sum of k log mu + (n - k) log(1 - mu), without the binomial constant; minus infinity where a mean of the modified
    Poisson fit is beyond 1."""
    status: Status
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


class Solution(NamedTuple):
    beta: Array
    mean: Array
    iterations: int


def log_binomial(data: Any, formula: str, successes: str, trials: str, cluster: str | None = None) -> LogBinomialFit:
    """Fit log E[successes / trials] = design @ b by maximum likelihood.

    data: pandas.DataFrame or pyarrow.Table, a row per unit (trials may be 1 a row). formula: right-hand side only, as
    `"~ treatment + C(industry)"`. cluster: the column that names the unit where a unit has several rows.
    Raises UserError for missing or impossible values, collinear columns, or an estimate that does not exist.
    """
    frame = as_frame(data)
    require_columns(frame, (successes, trials, *([cluster] if cluster else [])))
    require_counts(frame, successes, trials)
    frame = frame[frame[trials] > 0].reset_index(drop=True)
    design, names = design_matrix(frame, formula)
    k, n = frame[successes].to_numpy(float), frame[trials].to_numpy(float)

    poisson = solve(sm.families.Poisson(), design, k, n, start=None)
    require_finite_estimate(poisson, design, names, k, n)
    binomial = maximise(design, k, n, start=poisson.beta)
    status: Status = "converged" if binomial else "modified-poisson"
    solution = binomial or poisson
    clusters = np.unique(frame[cluster].astype(str), return_inverse=True)[1] if cluster else None
    errors = standard_errors(design, k, n, solution.mean, status, clusters)
    return LogBinomialFit(
        coefficients=dict(zip(names, solution.beta.tolist(), strict=True)),
        standard_errors={kind: dict(zip(names, values.tolist(), strict=True)) for kind, values in errors.items()},
        log_likelihood=log_likelihood(k, n, solution.mean),
        status=status,
        n=len(frame),
        iterations=solution.iterations,
    )


def relative_risk(fit: LogBinomialFit, column: str, errors: str = "hc1", level: float = 0.95) -> RelativeRisk:
    """The relative risk of a design column. Raises UserError for a column or a kind of error the fit does not have."""
    if column not in fit.coefficients:
        raise UserError(f"The fit has no column '{column}'. It has: {', '.join(fit.coefficients)}.")
    if errors not in fit.standard_errors:
        raise UserError(f"The fit has no '{errors}' errors. It has: {', '.join(fit.standard_errors)}.")
    return risk_from(fit.coefficients[column], fit.standard_errors[errors][column], level)


def risk_from(log_risk: float, standard_error: float, level: float = 0.95) -> RelativeRisk:
    """Wald inference on the log scale. Raises UserError where the standard error is zero."""
    if not standard_error > 0:
        raise UserError("The standard error is zero: the rows do not vary within an arm. Check how the data were made.")
    reach = float(stats.norm.ppf(0.5 + level / 2)) * standard_error
    z = log_risk / standard_error
    return RelativeRisk(
        estimate=float(np.exp(log_risk)),
        low=float(np.exp(log_risk - reach)),
        high=float(np.exp(log_risk + reach)),
        standard_error=standard_error,
        z=z,
        p_value=float(2 * stats.norm.sf(abs(z))),
        level=level,
    )


def design_matrix(frame: Any, formula: str) -> tuple[Array, list[str]]:
    """(rows, columns) and the columns' names. Raises UserError where it cannot be built or is not of full rank."""
    try:
        matrix = formulaic.model_matrix(formula, frame, na_action="raise")
    except (FormulaicError, ValueError) as error:
        raise UserError(f"The formula '{formula}' does not fit the table: {error}") from error
    if not hasattr(matrix, "columns"):
        raise UserError(f"The formula '{formula}' has a left side. Write only the right one: '~ treatment + …'.")
    names = [str(name) for name in matrix.columns]
    design = matrix.to_numpy(float)
    if len(design) <= len(names):
        raise UserError(f"{len(design)} rows cannot carry {len(names)} columns ({formula}). Use fewer covariates.")
    dependent = [names[j] for j in dependent_columns(design)]
    if dependent:
        raise UserError(
            f"Constant or collinear columns: {', '.join(dependent)} follow(s) from the columns before. Leave them out."
        )
    return design, names


def dependent_columns(design: Array, tolerance: float = 1e-9) -> list[int]:
    """Positions of columns that are a linear combination of those before them (modified Gram-Schmidt)."""
    basis: list[Array] = []
    dependent = []
    for j, column in enumerate(design.T):
        size = float(np.linalg.norm(column))
        rest = column / size if size else column
        for _ in range(2):  # twice is enough (Kahan): the second pass removes the rounding of the first
            for direction in basis:
                rest = rest - direction * (direction @ rest)
        length = float(np.linalg.norm(rest))
        if length <= tolerance:
            dependent.append(j)
        else:
            basis.append(rest / length)
    return dependent


def solve(family: Any, design: Array, k: Array, n: Array, start: Array | None) -> Solution:
    """Iteratively reweighted least squares by statsmodels.

    Rates with `var_weights` is the one form whose sandwich is per row; freq_weights counts every impression as a unit.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the log link's domain, and overflow on the way: the caller checks the score
        model = sm.GLM(k / n, design, family=family, var_weights=n)
        result = model.fit(start_params=start, maxiter=100, tol=1e-10, tol_criterion="params")
        beta = np.asarray(result.params, float)
        return Solution(beta, np.exp(design @ beta), int(result.fit_history["iteration"]))


def maximise(design: Array, k: Array, n: Array, start: Array) -> Solution | None:
    """The interior maximum of the binomial likelihood, or None where none is found."""
    try:
        solution = solve(sm.families.Binomial(sm.families.links.Log()), design, k, n, start)
    except (ValueError, np.linalg.LinAlgError):  # the iterations left the domain
        return None
    mean = solution.mean
    if not np.isfinite(mean).all() or (mean >= 1).any():
        return None
    odds = 1 / (1 - mean)
    return solution if relative_score(design, (k - n * mean) * odds, (k + n * mean) * odds) <= SCORE_TOLERANCE else None


def relative_score(design: Array, residual: Array, scale: Array) -> float:
    """Largest |sum x_ij residual_i| / sum |x_ij| scale_i over columns."""
    weight = np.abs(design).T @ scale
    return float(np.max(np.abs(design.T @ residual) / np.where(weight > 0, weight, 1.0)))


def require_finite_estimate(poisson: Solution, design: Array, names: list[str], k: Array, n: Array) -> None:
    """Without a finite Poisson estimate there is no log-binomial one either."""
    mean, rate = poisson.mean, k.sum() / n.sum()
    vanished = mean < VANISHED * rate
    if np.isfinite(mean).all() and not vanished.any():
        if relative_score(design, k - n * mean, k + n * mean) <= SCORE_TOLERANCE:
            return
        raise UserError("The regression did not converge. Rescale or leave out covariates with extreme values.")
    empty = [name for name, x in zip(names, design.T, strict=True) if k[x != 0].sum() == 0]
    where = (
        f"where {', '.join(empty)} is not 0"
        if empty
        else f"in {int(vanished.sum())} row(s) that the covariates set apart"
    )
    raise UserError(f"There are no clicks {where}: a log relative risk is infinite. Merge or leave out that covariate.")


def standard_errors(
    design: Array, k: Array, n: Array, mean: Array, status: Status, clusters: npt.NDArray[np.intp] | None
) -> dict[str, Array]:
    """Standard errors (columns,) by kind, of the estimating equation that `status` names."""
    rows, columns = design.shape
    residual = k - n * mean
    if status == "converged":
        scores = design * (residual / (1 - mean))[:, None]
        weight = n * mean / (1 - mean)
        observed = weight - residual * mean / (1 - mean) ** 2
        variance = n * mean * (1 - mean)
    else:
        scores = design * residual[:, None]
        weight = observed = variance = n * mean
    naive: Array = np.linalg.inv(design.T @ (design * weight[:, None])).astype(np.float64)
    bread: Array = np.linalg.inv(design.T @ (design * observed[:, None])).astype(np.float64)
    dispersion = float((residual**2 / variance).sum()) / (rows - columns)
    hc0 = diagonal_root(sandwich(bread, scores))
    errors = {
        "naive": diagonal_root(naive),
        "quasi": diagonal_root(naive * dispersion),
        "hc0": hc0,
        "hc1": hc0 * np.sqrt(rows / (rows - columns)),
    }
    if clusters is not None:
        totals = np.zeros((int(clusters.max()) + 1, columns))
        np.add.at(totals, clusters, scores)
        errors["cluster"] = diagonal_root(sandwich(bread, totals))
    return errors


def sandwich(bread: Array, scores: Array) -> Array:
    half = scores @ bread
    return np.asarray(half.T @ half)


def diagonal_root(covariance: Array) -> Array:
    return np.sqrt(np.diag(covariance))


def log_likelihood(k: Array, n: Array, mean: Array) -> float:
    misses = n - k
    if ((mean > 1) | ((mean == 1) & (misses > 0))).any():
        return float("-inf")
    return float((k * np.log(mean)).sum() + (misses[misses > 0] * np.log1p(-mean[misses > 0])).sum())
