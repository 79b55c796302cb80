"""Linear regression of an advertiser's outcome on treatment: the effect in units of the outcome, and relative.

Ordinary least squares with HC1 errors (White 1980, MacKinnon and White 1985). The relative effect compares the mean
outcome with all treated, m1 = m0 + b, to that with none, m0 = mean(y - b t); its error follows from the influence
functions of b and m0 (delta method on log(m1 / m0)).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from rlpf_pipeline.abtest import normal
from rlpf_pipeline.abtest.design import TREATMENT
from rlpf_pipeline.abtest.log_binomial import RelativeRisk, risk_from
from rlpf_pipeline.errors import UserError


class LinearEffect(NamedTuple):
    outcome: str
    control_mean: float
    """Covariate-adjusted mean without treatment, in units of the outcome per advertiser."""
    difference: float
    """Per advertiser."""
    low: float
    high: float
    standard_error: float
    p_value: float
    ratio: RelativeRisk | None
    """Ratio of the two means; None where one of them is not positive."""


def linear_effect(outcome: str, values: pd.Series[float], design: pd.DataFrame) -> LinearEffect:
    """Effect of treatment on `values` (one per row of `design`). Raises UserError where the outcome is constant."""
    from statsmodels.regression.linear_model import OLS  # heavy, and not needed by the fit alone

    y = np.asarray(values, dtype=np.float64)
    if np.ptp(y) == 0:
        raise UserError(
            f"Every advertiser has {y[0]:g} {outcome}: there is nothing to compare. Check the column {outcome}."
        )
    x = np.asarray(design, dtype=np.float64)
    position = list(design.columns).index(TREATMENT)
    result = OLS(y, x).fit(cov_type="HC1")
    difference, error = float(result.params[position]), float(result.bse[position])
    reach = normal.quantile(0.975) * error
    control_mean = float((y - difference * x[:, position]).mean())
    return LinearEffect(
        outcome=outcome,
        control_mean=control_mean,
        difference=difference,
        low=difference - reach,
        high=difference + reach,
        standard_error=error,
        p_value=float(result.pvalues[position]),
        ratio=ratio_of_means(y, x, position, np.asarray(result.resid), difference, control_mean),
    )


def ratio_of_means(
    y: npt.NDArray[np.float64],
    x: npt.NDArray[np.float64],
    position: int,
    residual: npt.NDArray[np.float64],
    difference: float,
    control_mean: float,
) -> RelativeRisk | None:
    treated_mean = control_mean + difference
    if control_mean <= 0 or treated_mean <= 0:
        return None
    rows, columns = x.shape
    t = x[:, position]
    influence = rows * (x @ np.linalg.inv(x.T @ x)[position]) * residual
    influence_control = y - difference * t - control_mean - t.mean() * influence
    influence_log = (influence_control + influence) / treated_mean - influence_control / control_mean
    variance = float((influence_log**2).sum()) / rows**2 * rows / (rows - columns)
    return risk_from(float(np.log(treated_mean / control_mean)), float(np.sqrt(variance)))
