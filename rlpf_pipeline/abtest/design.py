"""From an experiment's advertisers to the regression the study ran: treatment plus what was known beforehand.

Covariates sharpen the estimate and never depend on the arm. Those the data cannot carry (constant, collinear, a level
without clicks) are left out and named in a note; with too few advertisers all are.
"""

from __future__ import annotations

from typing import NamedTuple

import formulaic
import numpy as np
import pandas as pd

from rlpf_pipeline.abtest.log_binomial import dependent_columns

TREATMENT = "treatment"
LIFETIME_CTR_OFFSET = 0.001
"""c in log(lifetime CTR + c): one click in a thousand, so that an advertiser without clicks has a finite covariate."""
ADVERTISERS_PER_COLUMN = 10


class Covariate(NamedTuple):
    name: str
    """The contract's column."""
    term: str
    """Its form in the regression, for formulaic."""


COVARIATES = (
    Covariate("lifetime_ctr", "log_lifetime_ctr"),
    Covariate("new_advertiser", "new_advertiser"),
    Covariate("ads_before", "log_ads_before"),
    Covariate("industry", "C(industry)"),
    Covariate("expertise", "C(expertise)"),
    Covariate("budget", "C(budget)"),
    Covariate("business_account", "business_account"),
    Covariate("account_age_years", "account_age_years"),
)


class Design(NamedTuple):
    frame: pd.DataFrame
    """One row per advertiser: the outcomes, `treatment` (0 or 1) and the regressors."""
    formula: str
    covariates: tuple[str, ...]
    """Contract columns of the covariates in the formula."""
    matrix: pd.DataFrame
    """The formula's design: Intercept, treatment, covariates."""
    characteristics: pd.DataFrame
    """Every covariate column that varies, whether in the formula or not: what randomisation should balance."""
    notes: tuple[str, ...]


def build_design(advertisers: pd.DataFrame) -> Design:
    """advertisers: as `frames.with_exposure` returns them."""
    frame = regressors(advertisers)
    kept: list[Covariate] = []
    notes: list[str] = []
    varying: list[pd.DataFrame] = []
    for covariate in COVARIATES:
        columns = columns_of(covariate, frame)
        if columns.empty:
            notes.append(f"Covariate {covariate.name} is constant and was left out.")
            continue
        varying.append(columns)
        reason = unusable(covariate, frame, kept)
        if reason:
            notes.append(f"Covariate {covariate.name} was left out: {reason}.")
        else:
            kept.append(covariate)
    matrix = formulaic.model_matrix(formula_of(kept), frame)
    if kept and len(frame) < ADVERTISERS_PER_COLUMN * matrix.shape[1]:
        notes.append(
            f"All covariates were left out: {len(frame)} advertisers are fewer than {ADVERTISERS_PER_COLUMN} for each "
            f"of {matrix.shape[1]} columns."
        )
        kept = []
        matrix = formulaic.model_matrix(formula_of(kept), frame)
    return Design(
        frame=frame,
        formula=formula_of(kept),
        covariates=tuple(covariate.name for covariate in kept),
        matrix=pd.DataFrame(matrix),
        characteristics=pd.concat(varying, axis=1) if varying else pd.DataFrame(index=frame.index),
        notes=tuple(notes),
    )


def regressors(advertisers: pd.DataFrame) -> pd.DataFrame:
    return advertisers.assign(
        treatment=(advertisers["arm"] == TREATMENT).astype(float),
        log_lifetime_ctr=np.log(advertisers["lifetime_ctr"] + LIFETIME_CTR_OFFSET),
        log_ads_before=np.log1p(advertisers["ads_before"]),
        new_advertiser=advertisers["new_advertiser"].astype(float),
        business_account=advertisers["business_account"].astype(float),
    )


def formula_of(covariates: list[Covariate]) -> str:
    return " + ".join([f"~ {TREATMENT}", *(covariate.term for covariate in covariates)])


def columns_of(covariate: Covariate, frame: pd.DataFrame) -> pd.DataFrame:
    """The covariate's columns in a regression with an intercept; none where it is constant."""
    if frame[covariate.term if covariate.term in frame else covariate.name].nunique() < 2:
        return pd.DataFrame(index=frame.index)
    return pd.DataFrame(formulaic.model_matrix(f"~ {covariate.term}", frame)).drop(columns="Intercept")


def unusable(covariate: Covariate, frame: pd.DataFrame, before: list[Covariate]) -> str:
    """Why the regression cannot carry the covariate; empty where it can."""
    if frame[covariate.name].nunique() == 2 or covariate.term.startswith("C("):
        clicks = frame.groupby(covariate.name)["clicks"].sum()
        if (clicks == 0).any():
            return f"no clicks where it is {clicks.index[int(clicks.to_numpy().argmin())]}"
    matrix = formulaic.model_matrix(formula_of([*before, covariate]), frame)
    if dependent_columns(matrix.to_numpy(float)):
        return "collinear with treatment or with the covariates before it"
    return ""
