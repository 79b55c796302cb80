"""Can the estimate be trusted? Random as planned, arms alike beforehand, no handful of advertisers in command."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from rlpf_pipeline.abtest.design import TREATMENT, Design
from rlpf_pipeline.abtest.frames import ARMS
from rlpf_pipeline.abtest.linear import LinearEffect
from rlpf_pipeline.abtest.log_binomial import LogBinomialFit

Light = Literal["pass", "warn", "fail"]

MISMATCH_ALPHA = 0.001
"""Usual threshold for sample-ratio mismatch (Fabijan et al. 2019): a false alarm stops a good experiment."""
BALANCE_ALPHA = 0.001
EXPOSURE_ALPHA = 0.01
FEW_ADVERTISERS = 50
"""Effective advertisers below which the sandwich's normal approximation is doubtful."""


class SampleRatio(NamedTuple):
    control: int
    treatment: int
    chi_square: float
    p_value: float
    """Of the planned 50 : 50 assignment (1 degree of freedom)."""


class BalanceRow(NamedTuple):
    column: str
    control_mean: float
    treatment_mean: float
    standardised_difference: float
    """(treatment - control) / standard deviation over both arms."""


class Balance(NamedTuple):
    rows: tuple[BalanceRow, ...]
    chi_square: float
    degrees_of_freedom: int
    p_value: float


class Concentration(NamedTuple):
    advertisers: int
    effective_advertisers: float
    """Kish: (sum n)^2 / sum n^2 over impressions n."""
    top_advertisers: int
    """1 % of the advertisers, rounded up."""
    top_share: float
    """Their share of all impressions."""


class ErrorRatio(NamedTuple):
    """Standard error of the log relative risk of treatment by kind."""

    naive: float
    quasi: float
    robust: float
    quasi_over_naive: float
    robust_over_naive: float


class Check(NamedTuple):
    name: str
    light: Light
    detail: str


class Validity(NamedTuple):
    randomised: SampleRatio
    exposed: SampleRatio
    """Advertisers with impressions: a gap here that `randomised` lacks means the treatment changed who delivers."""
    balance: Balance
    concentration: Concentration
    errors: ErrorRatio
    checks: tuple[Check, ...]


def assess(randomised: pd.DataFrame, design: Design, fit: LogBinomialFit, impressions: LinearEffect | None) -> Validity:
    """`randomised`: every advertiser of the experiment; `design`: those with impressions.

    `impressions`: effect of treatment on impressions, None where all advertisers have the same.
    """
    ratio, exposed = sample_ratio(randomised["arm"]), sample_ratio(design.frame["arm"])
    balance = covariate_balance(design.characteristics, design.frame[TREATMENT].to_numpy(bool))
    concentration = impression_concentration(design.frame["impressions"].to_numpy(float))
    return Validity(
        randomised=ratio,
        exposed=exposed,
        balance=balance,
        concentration=concentration,
        errors=error_ratio(fit),
        checks=(
            ratio_check("Sample ratio", ratio, "assigned"),
            ratio_check("Delivery", exposed, "with impressions"),
            balance_check(balance),
            exposure_check(impressions),
            concentration_check(concentration),
            convergence_check(fit),
        ),
    )


def sample_ratio(arm: pd.Series[str]) -> SampleRatio:
    control, treatment = (int((arm == name).sum()) for name in ARMS)
    test = stats.chisquare([control, treatment])
    return SampleRatio(control, treatment, float(test.statistic), float(test.pvalue))


def covariate_balance(characteristics: pd.DataFrame, treated: npt.NDArray[np.bool_]) -> Balance:
    """Standardised differences by column, and one test of all of them (Hansen and Bowers 2008).

    The omnibus statistic is the squared Mahalanobis distance of the arms' means, N_t N_c / N d' S^-1 d with S the
    covariance over both arms; under randomisation chi-square with the rank of S.
    """
    x = characteristics.to_numpy(float)
    means = x[~treated].mean(axis=0), x[treated].mean(axis=0)
    deviations = x.std(axis=0, ddof=1)
    gaps = (means[1] - means[0]) / deviations
    rows = tuple(
        BalanceRow(str(name), float(control), float(treatment), float(gap))
        for name, control, treatment, gap in zip(characteristics.columns, *means, gaps, strict=True)
    )
    if not rows:
        return Balance((), 0.0, 0, 1.0)
    correlation = np.atleast_2d(np.corrcoef(x, rowvar=False))
    rank = int(np.linalg.matrix_rank(correlation, tol=1e-8, hermitian=True))
    inverse = np.linalg.pinv(correlation, rcond=1e-8, hermitian=True)
    statistic = float(treated.sum() * (~treated).sum() / len(treated) * (gaps @ inverse @ gaps))
    return Balance(rows, statistic, rank, float(stats.chi2.sf(statistic, rank)))


def impression_concentration(impressions: npt.NDArray[np.float64]) -> Concentration:
    top = math.ceil(len(impressions) / 100)
    return Concentration(
        advertisers=len(impressions),
        effective_advertisers=float(impressions.sum() ** 2 / (impressions**2).sum()),
        top_advertisers=top,
        top_share=float(np.sort(impressions)[-top:].sum() / impressions.sum()),
    )


def error_ratio(fit: LogBinomialFit) -> ErrorRatio:
    naive, quasi, robust = (fit.standard_errors[kind][TREATMENT] for kind in ("naive", "quasi", "hc1"))
    return ErrorRatio(naive, quasi, robust, quasi / naive, robust / naive)


def ratio_check(name: str, ratio: SampleRatio, who: str) -> Check:
    detail = f"{ratio.control:,} control and {ratio.treatment:,} treatment advertisers {who}, 50 : 50 expected"
    return Check(name, "fail" if ratio.p_value < MISMATCH_ALPHA else "pass", f"{detail}; p = {ratio.p_value:.3g}.")


def balance_check(balance: Balance) -> Check:
    if not balance.rows:
        return Check("Balance", "warn", "No covariate varies: balance cannot be checked.")
    worst = max(balance.rows, key=lambda row: abs(row.standardised_difference))
    detail = (
        f"All covariates at once: p = {balance.p_value:.3g}; largest standardised difference "
        f"{worst.standardised_difference:+.3f} ({worst.column})."
    )
    light: Light = "fail" if balance.p_value < BALANCE_ALPHA else "warn" if balance.p_value < 0.05 else "pass"
    return Check("Balance", light, detail)


def exposure_check(impressions: LinearEffect | None) -> Check:
    if impressions is None:
        return Check("Equal exposure", "pass", "Every advertiser has the same impressions.")
    detail = (
        f"Impressions per advertiser differ by {impressions.difference:+,.0f} "
        f"({impressions.low:+,.0f} to {impressions.high:+,.0f}); p = {impressions.p_value:.3g}."
    )
    return Check("Equal exposure", "warn" if impressions.p_value < EXPOSURE_ALPHA else "pass", detail)


def concentration_check(concentration: Concentration) -> Check:
    detail = (
        f"By impressions the {concentration.advertisers:,} advertisers count as "
        f"{concentration.effective_advertisers:,.0f}; the top 1 % ({concentration.top_advertisers}) hold "
        f"{100 * concentration.top_share:.1f} % of impressions."
    )
    return Check("Sample size", "warn" if concentration.effective_advertisers < FEW_ADVERTISERS else "pass", detail)


def convergence_check(fit: LogBinomialFit) -> Check:
    if fit.status == "converged":
        return Check(
            "Model fit", "pass", f"The log-binomial likelihood is at its maximum (iterations: {fit.iterations})."
        )
    return Check(
        "Model fit", "warn", "The log-binomial likelihood has no maximum inside its domain: modified Poisson was used."
    )
