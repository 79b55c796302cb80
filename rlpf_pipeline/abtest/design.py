"""From an experiment's advertisers to the regression the study ran: treatment plus what was known beforehand.

Covariates sharpen the estimate and never depend on the arm. Those the data cannot carry (constant, collinear, a level
without clicks) are left out and named in a note; with too few advertisers all are. A missing value is filled (the mean,
or a level of its own) and marked by a column of its own, which is unbiased where the arm is random (White and Thompson
2005).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import formulaic
import numpy as np
import pandas as pd

from rlpf_pipeline.abtest.log_binomial import dependent_columns
from rlpf_pipeline.abtest.maximum import Array, Counts
from rlpf_pipeline.abtest.spec import LIFETIME_CTR_OFFSET, Covariate

TREATMENT = "treatment"
ADVERTISERS_PER_COLUMN = 10
MOST_LEVELS = 50
MISSING_LEVEL = "(missing)"


class Design(NamedTuple):
    frame: pd.DataFrame
    """One row per advertiser: the outcomes, `treatment` (0 or 1) and the regressors."""
    formula: str
    covariates: tuple[str, ...]
    """Covariates in the formula."""
    matrix: pd.DataFrame
    """The formula's design: Intercept, treatment, covariates."""
    characteristics: pd.DataFrame
    """Columns of every covariate that varies, whether in the formula or not: what randomisation should balance."""
    notes: tuple[str, ...]

    @property
    def counts(self) -> Counts:
        clicks, impressions = (self.frame[name].to_numpy(float) for name in ("clicks", "impressions"))
        return Counts(self.matrix.to_numpy(float), clicks, impressions)

    @property
    def names(self) -> list[str]:
        return list(self.matrix.columns)

    @property
    def position(self) -> int:
        """Of treatment among the columns."""
        return self.names.index(TREATMENT)

    @property
    def treated(self) -> Array:
        return self.frame[TREATMENT].to_numpy(float)


def build_design(exposed: pd.DataFrame, covariates: tuple[Covariate, ...]) -> Design:
    """exposed: advertisers as `frames.with_exposure` returns them."""
    frame, kept, notes = regressors(exposed, covariates)
    matrix = model_matrix(kept, frame)
    characteristics = matrix.drop(columns=["Intercept", TREATMENT])
    while dependent := dependent_columns(matrix.to_numpy(float)):
        dropped = next(c for c in kept if matrix.columns[dependent[0]] in columns_of(c, matrix))
        kept = [covariate for covariate in kept if covariate is not dropped]
        notes.append(
            f"Covariate {dropped.name} was left out: collinear with treatment or with the covariates before it."
        )
        matrix = model_matrix(kept, frame)
    if kept and len(frame) < ADVERTISERS_PER_COLUMN * matrix.shape[1]:
        notes.append(
            f"All covariates were left out: {len(frame)} advertisers are fewer than {ADVERTISERS_PER_COLUMN} for each "
            f"of {matrix.shape[1]} columns."
        )
        kept = []
        matrix = model_matrix(kept, frame)
    return Design(
        frame=frame,
        formula=formula_of(kept),
        covariates=tuple(covariate.name for covariate in kept),
        matrix=matrix,
        characteristics=characteristics,
        notes=tuple(notes),
    )


def regressors(
    exposed: pd.DataFrame, covariates: tuple[Covariate, ...]
) -> tuple[pd.DataFrame, list[Covariate], list[str]]:
    """The frame with treatment and every usable covariate in its form, those covariates, and what was left out."""
    columns: dict[str, Any] = {TREATMENT: (exposed["arm"] == TREATMENT).astype(float)}
    usable: list[Covariate] = []
    notes: list[str] = []
    for covariate in covariates:
        filled, missing = fill(exposed[covariate.name], covariate)
        parts = {covariate: filled}
        if covariate.form != "category" and 0 < missing.sum() < len(missing):
            parts[Covariate(f"{covariate.name}_missing", "flag")] = missing
        if missing.any():
            by_arm = [int(missing[exposed["arm"] == arm].sum()) for arm in ("control", TREATMENT)]
            notes.append(
                f"Covariate {covariate.name} is missing for {missing.sum()} advertisers ({by_arm[0]} control, "
                f"{by_arm[1]} treatment): filled, and marked by a column or level of its own."
            )
        for part, values in parts.items():
            reason = unusable(part, values, exposed["clicks"])
            if reason:
                notes.append(f"Covariate {part.name} {reason}.")
            else:
                usable.append(part)
                columns[part.name if part.form == "category" else part.term] = values
    return exposed.assign(**columns), usable, notes


def fill(values: pd.Series[Any], covariate: Covariate) -> tuple[pd.Series[Any], pd.Series]:
    """The covariate in its form without gaps, and where there were gaps."""
    missing = values.isna()
    if covariate.form == "category":
        return values.astype(object).where(~missing, MISSING_LEVEL).astype(str), missing
    numbers = values.astype("boolean").astype(float) if covariate.form == "flag" else values.astype(float)
    array = numbers.to_numpy(float, na_value=np.nan)
    if covariate.form == "rate":
        array = np.log(array + LIFETIME_CTR_OFFSET)
    elif covariate.form == "count":
        array = np.log1p(array)
    mean = array[~missing].mean() if not missing.all() else 0.0
    return pd.Series(np.where(missing, mean, array), index=values.index), missing


def unusable(covariate: Covariate, values: pd.Series[Any], clicks: pd.Series[Any]) -> str:
    """Why the regression cannot carry the covariate; empty where it can."""
    levels = values.nunique()
    if levels < 2:
        return "is constant and was left out"
    if covariate.form == "category" and levels > MOST_LEVELS:
        return f"was left out: it has {levels} levels, more than {MOST_LEVELS}"
    if levels == 2 or covariate.form == "category":
        totals = clicks.groupby(values.to_numpy()).sum()
        if (totals == 0).any():
            return f"was left out: no clicks where it is {totals.index[int(totals.to_numpy().argmin())]}"
    return ""


def formula_of(covariates: list[Covariate]) -> str:
    return " + ".join([f"~ {TREATMENT}", *(covariate.term for covariate in covariates)])


def model_matrix(covariates: list[Covariate], frame: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(formulaic.model_matrix(formula_of(covariates), frame))


def columns_of(covariate: Covariate, matrix: pd.DataFrame) -> list[str]:
    return [name for name in matrix.columns if name == covariate.term or name.startswith(f"{covariate.term}[")]
