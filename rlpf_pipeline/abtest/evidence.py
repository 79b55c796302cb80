"""What validity is judged by: the arms' sizes, balance and missing values, concentration, influential advertisers."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import special

from rlpf_pipeline.abtest.design import TREATMENT, Design
from rlpf_pipeline.abtest.log_binomial import Estimate, RelativeRisk
from rlpf_pipeline.abtest.maximum import Array, Counts
from rlpf_pipeline.abtest.panel import Experiment
from rlpf_pipeline.abtest.rerandomise import BLOCK, SEED, draw
from rlpf_pipeline.abtest.robustness import risk_among, risk_of
from rlpf_pipeline.abtest.sandwich import HEADLINE, quadratic
from rlpf_pipeline.abtest.sequential import effective_number
from rlpf_pipeline.contracts import ARMS
from rlpf_pipeline.errors import UserError

TOP_REMOVED = 10
DRAWS = 8 * BLOCK
"""Random assignments behind an exact p-value: the smallest is 0.0005."""
FEWEST_CARRYING = 5.0
"""Advertisers like the rarest that the smaller arm should hold for chi-square to be right (Cochran 1954)."""
FEW = 50
"""Expected advertisers of an arm below which chi-square's small tails are off: then the binomial test."""


class SampleRatio(NamedTuple):
    control: int
    treatment: int
    chi_square: float
    p_value: float
    """Of the planned shares: of chi-square (1 degree of freedom), or exact where fewer than FEW are expected."""


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
    is_exact: bool
    """Over DRAWS random assignments, as a column hangs on a few advertisers (FEWEST_CARRYING); else of chi-square."""


class Concentration(NamedTuple):
    advertisers: int
    effective_control: float
    """Kish: (sum n)^2 / sum n^2 over impressions n of the arm."""
    effective_treatment: float
    top_advertisers: int
    """1 % of the advertisers, rounded up."""
    top_share: float
    """Their share of all impressions."""


class ErrorRatio(NamedTuple):
    """Standard error of the log relative risk of treatment by kind."""

    naive: float
    quasi: float
    hc1: float
    """The sandwich as the study has it."""
    robust: float
    """hc3, as in the headline: larger than hc1 where few advertisers make most of the error."""
    quasi_over_naive: float
    robust_over_naive: float


class MissingRow(NamedTuple):
    column: str
    control: int
    treatment: int
    """Advertisers without a value."""
    p_value: float
    """Of the same share in both arms (Fisher's exact test)."""


class Removal(NamedTuple):
    advertiser_id: str
    impressions: int
    risk: RelativeRisk
    """The headline without this advertiser."""


def sample_ratio(arm: pd.Series[str], treatment_share: float = 0.5) -> SampleRatio:
    control, treatment = (int((arm == name).sum()) for name in ARMS)
    expected = np.array([1 - treatment_share, treatment_share]) * (control + treatment)
    statistic = float(((np.array([control, treatment]) - expected) ** 2 / expected).sum())
    if expected.min() < FEW:
        from scipy import stats  # heavy, and rarely needed

        p_value = float(stats.binomtest(treatment, control + treatment, treatment_share).pvalue)
    else:
        p_value = float(special.chdtrc(1, statistic))
    return SampleRatio(control, treatment, statistic, p_value)


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
        return Balance((), 0.0, 0, 1.0, is_exact=False)
    scaled = (x - x.mean(axis=0)) / deviations
    correlation = scaled.T @ scaled / (len(x) - 1)
    rank = int(np.linalg.matrix_rank(correlation, tol=1e-8, hermitian=True))
    inverse = np.linalg.pinv(correlation, rcond=1e-8, hermitian=True)
    statistic = float(treated.sum() * (~treated).sum() / len(treated) * (gaps @ inverse @ gaps))
    leverage = quadratic(scaled, inverse) / (len(x) - 1)
    is_exact = bool(min(treated.mean(), 1 - treated.mean()) < FEWEST_CARRYING * leverage.max())
    p_value = exact_p_value(scaled, inverse, treated) if is_exact else float(special.chdtrc(rank, statistic))
    return Balance(rows, statistic, rank, p_value, is_exact)


def exact_p_value(scaled: Array, inverse: Array, treated: npt.NDArray[np.bool_]) -> float:
    """Share of random assignments, with the experiment's own, whose arms are as far apart.

    scaled: (advertisers, columns), of mean 0; inverse: (columns, columns), of their covariance.
    """
    seeds = np.random.SeedSequence(SEED).spawn(DRAWS // BLOCK)
    totals = np.hstack([scaled.T @ draw(treated, BLOCK, seed) for seed in seeds])
    own = scaled.T @ treated
    distance = np.einsum("ja,jl,la->a", totals, inverse, totals)
    as_far = int((distance >= own @ inverse @ own * (1 - 1e-9)).sum())
    return (1 + as_far) / (1 + DRAWS)


def missing_by_arm(experiment: Experiment) -> tuple[MissingRow, ...]:
    """Covariates with missing values, by arm, over all advertisers."""
    from scipy import stats  # heavy, and not needed by the fit alone

    treated = (experiment.advertisers["arm"] == TREATMENT).to_numpy()
    rows = []
    for covariate in experiment.covariates:
        absent = experiment.advertisers[covariate.name].isna().to_numpy()
        if absent.any():
            control, treatment = int(absent[~treated].sum()), int(absent[treated].sum())
            sizes = int((~treated).sum()), int(treated.sum())
            table = np.array([[control, sizes[0] - control], [treatment, sizes[1] - treatment]])
            rows.append(MissingRow(covariate.name, control, treatment, float(stats.fisher_exact(table).pvalue)))
    return tuple(rows)


def impression_concentration(impressions: Array, treated: npt.NDArray[np.bool_]) -> Concentration:
    top = math.ceil(len(impressions) / 100)
    control, treatment = (effective_number(n) for n in (impressions[~treated], impressions[treated]))
    return Concentration(
        advertisers=len(impressions),
        effective_control=control,
        effective_treatment=treatment,
        top_advertisers=top,
        top_share=float(np.sort(impressions)[-top:].sum() / impressions.sum()),
    )


def error_ratio(design: Design, fit: Estimate) -> ErrorRatio:
    kinds = ("naive", "quasi", "hc1", HEADLINE)
    naive, quasi, hc1, robust = (risk_of(design, fit, kind).standard_error for kind in kinds)
    return ErrorRatio(naive, quasi, hc1, robust, quasi / naive, robust / naive)


def top_removed(design: Design) -> tuple[Removal, ...]:
    x, k, n = design.counts
    order = np.argsort(-n, kind="stable")[:TOP_REMOVED]
    removals = []
    for row in order:
        rest = np.delete(np.arange(len(n)), row)
        try:
            risk = risk_among(design, Counts(x[rest], k[rest], n[rest]))
            removals.append(Removal(str(design.frame["advertiser_id"].iloc[row]), int(n[row]), risk))
        except UserError:
            continue  # no estimate without it, as of an arm without clicks: the check says how many were removed
    return tuple(removals)
