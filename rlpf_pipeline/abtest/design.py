"""From an experiment's advertisers to the regression the study ran: treatment plus what was known beforehand.

Covariates sharpen the estimate and never depend on the arm. Those the data cannot carry (constant, collinear, a level
without clicks) are left out and named in a note; with too few advertisers all are. A missing value is filled (the mean,
or a level of its own) and marked by a column of its own, which is unbiased where the arm is random (White and Thompson
2005). Columns and their names are formulaic's for the formula, built here without it: no pandas on the way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rlpf_pipeline.abtest.log_binomial import dependent_columns
from rlpf_pipeline.abtest.maximum import Array, Counts
from rlpf_pipeline.abtest.spec import LIFETIME_CTR_OFFSET, MISSING_LEVEL, Covariate

if TYPE_CHECKING:
    import pandas as pd

TREATMENT = "treatment"
ADVERTISERS_PER_COLUMN = 10
MOST_LEVELS = 50


class Values(NamedTuple):
    """A covariate of every advertiser."""

    covariate: Covariate
    numbers: Array
    """(advertisers,), NaN where missing. Of a category the numbers of its levels, never missing."""
    levels: tuple[str, ...] = ()
    """Of a category, sorted; MISSING_LEVEL is one."""


class Term(NamedTuple):
    """A covariate's columns in the regression."""

    covariate: Covariate
    names: tuple[str, ...]
    columns: Array
    """(advertisers, len(names)), in the covariate's units (of logs, where it has them)."""


class Regression(NamedTuple):
    formula: str
    covariates: tuple[str, ...]
    """Covariates in the formula."""
    names: list[str]
    """Intercept, treatment, columns of the covariates."""
    x: Array
    """(advertisers, len(names)). Numbers are in standard deviations from their mean: the effect of treatment is the
    same, and a time in microseconds costs no digits of it."""
    notes: tuple[str, ...]


class Design(NamedTuple):
    frame: pd.DataFrame
    """One row per advertiser: the outcomes and `treatment` (0 or 1)."""
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
    import pandas as pd

    treated = np.asarray(exposed["arm"] == TREATMENT, dtype=np.float64)
    values = [values_of(exposed[covariate.name], covariate) for covariate in covariates]
    regression = regression_on(treated, exposed["clicks"].to_numpy(float), values)
    characteristics = {
        name: term.columns[:, j] for term in characteristics_of(values) for j, name in enumerate(term.names)
    }
    return Design(
        frame=exposed.assign(**{TREATMENT: treated}),
        formula=regression.formula,
        covariates=regression.covariates,
        matrix=pd.DataFrame(regression.x, columns=regression.names),
        characteristics=pd.DataFrame(characteristics, index=exposed.index),
        notes=regression.notes,
    )


def values_of(column: pd.Series[Any], covariate: Covariate) -> Values:
    import pandas as pd

    if covariate.form == "category":
        filled = column.astype(object).where(column.notna(), MISSING_LEVEL).astype(str)
        codes, levels = pd.factorize(filled, sort=True)
        return Values(covariate, codes.astype(float), tuple(levels))
    numbers = column.astype("boolean").astype("Float64") if covariate.form == "flag" else column
    return Values(covariate, np.asarray(numbers.to_numpy(float, na_value=np.nan), dtype=np.float64))


def regression_on(treated: Array, clicks: Array, values: list[Values]) -> Regression:
    """treated (0 or 1), clicks: of the advertisers with impressions, (advertisers,); values: their covariates."""
    terms: list[Term] = []
    notes: list[str] = []
    for value in values:
        usable, said = terms_of(value, treated, clicks)
        terms += usable
        notes += said
    kept, x = list(terms), stacked(treated, terms)
    while dependent := dependent_columns(x):
        at, dropped = 2, kept[0]
        for term in kept:
            if at <= dependent[0] < at + len(term.names):
                dropped = term
            at += len(term.names)
        kept = [term for term in kept if term is not dropped]
        notes.append(
            f"Covariate {dropped.covariate.name} was left out: collinear with treatment or with the covariates before "
            "it."
        )
        x = stacked(treated, kept)
    if kept and len(x) < ADVERTISERS_PER_COLUMN * x.shape[1]:
        notes.append(
            f"All covariates were left out: {len(x)} advertisers are fewer than {ADVERTISERS_PER_COLUMN} for each "
            f"of {x.shape[1]} columns."
        )
        kept, x = [], stacked(treated, [])
    return Regression(
        formula=" + ".join([f"~ {TREATMENT}", *(term.covariate.term for term in kept)]),
        covariates=tuple(term.covariate.name for term in kept),
        names=["Intercept", TREATMENT, *(name for term in kept for name in term.names)],
        x=x,
        notes=tuple(notes),
    )


def stacked(treated: Array, terms: list[Term]) -> Array:
    return np.column_stack([np.ones_like(treated), treated, *map(scaled, terms)])


def scaled(term: Term) -> Array:
    if term.covariate.form != "number":
        return term.columns
    centred = term.columns - term.columns.mean()
    return np.asarray(centred / np.sqrt(np.square(centred).mean()))


def terms_of(value: Values, treated: Array, clicks: Array) -> tuple[list[Term], list[str]]:
    """The covariate's terms that the regression can carry (itself, and where it is missing), and what was left out."""
    covariate, missing = value.covariate, missing_in(value)
    if missing.all():
        return [], [f"Covariate {covariate.name} is missing for all advertisers and was left out."]
    notes = []
    if missing.any():
        by_arm = [int((missing & (treated == arm)).sum()) for arm in (0, 1)]
        notes.append(
            f"Covariate {covariate.name} is missing for {missing.sum()} advertisers ({by_arm[0]} control, "
            f"{by_arm[1]} treatment): filled, and marked by a column or level of its own."
        )
    terms = []
    for part in parts_of(value, missing):
        reason = unusable(part, clicks)
        if reason:
            notes.append(f"Covariate {part.covariate.name} {reason}.")
        else:
            terms.append(term_of(part))
    return terms, notes


def characteristics_of(values: list[Values]) -> list[Term]:
    """Of every covariate that varies, also of those that the regression cannot carry, and where it is missing. Of a
    category with many levels the largest, and one for all others."""
    parts = [part for value in values for part in parts_of(value, missing_in(value))]
    return [term_of(with_fewer_levels(part)) for part in parts if np.ptp(part.numbers) > 0]


def parts_of(value: Values, missing: npt.NDArray[np.bool_]) -> list[Values]:
    """The covariate, filled, and a flag of where it was missing; of a category that is a level; none of nothing."""
    if missing.all():
        return []
    if value.covariate.form == "category":
        return [value]
    flag = Values(Covariate(f"{value.covariate.name}_missing", "flag"), missing.astype(float))
    return [value._replace(numbers=filled(value, missing)), *([flag] if missing.any() else [])]


def with_fewer_levels(part: Values) -> Values:
    if len(part.levels) <= MOST_LEVELS:
        return part
    codes = part.numbers.astype(int)
    largest = np.sort(np.argsort(-np.bincount(codes), kind="stable")[: MOST_LEVELS - 1])
    number_of = np.zeros(len(part.levels))
    number_of[largest] = np.arange(1, MOST_LEVELS)
    return part._replace(numbers=number_of[codes], levels=("others", *(part.levels[level] for level in largest)))


def missing_in(value: Values) -> npt.NDArray[np.bool_]:
    if value.covariate.form != "category":
        return np.asarray(np.isnan(value.numbers))
    number = value.levels.index(MISSING_LEVEL) if MISSING_LEVEL in value.levels else -1
    return np.asarray(value.numbers == number)


def filled(value: Values, missing: npt.NDArray[np.bool_]) -> Array:
    """The covariate in its form, the mean where it is missing."""
    numbers, form = value.numbers, value.covariate.form
    if form == "rate":
        numbers = np.log(numbers + LIFETIME_CTR_OFFSET)
    elif form == "count":
        numbers = np.log1p(numbers)
    return np.asarray(np.where(missing, numbers[~missing].mean(), numbers))


def unusable(part: Values, clicks: Array) -> str:
    """Why the regression cannot carry the covariate; empty where it can."""
    numbers = part.numbers
    low, high = float(numbers.min()), float(numbers.max())
    if low == high:
        return "is constant and was left out"
    if part.covariate.form == "category" and len(part.levels) > MOST_LEVELS:
        return f"was left out: it has {len(part.levels)} levels, more than {MOST_LEVELS}"
    if part.covariate.form == "category":
        codes, names = numbers.astype(int), part.levels
    elif ((numbers == low) | (numbers == high)).all():
        codes = (numbers == high).astype(int)
        names = ("no", "yes") if part.covariate.form == "flag" else ("lowest", "highest")
    else:
        return ""
    totals = np.bincount(codes, weights=clicks, minlength=len(names))
    return f"was left out: no clicks where it is {names[int(totals.argmin())]}" if (totals == 0).any() else ""


def term_of(part: Values) -> Term:
    covariate = part.covariate
    if covariate.form != "category":
        return Term(covariate, (covariate.term,), part.numbers[:, None])
    names = tuple(f"{covariate.term}[T.{level}]" for level in part.levels[1:])
    levels = np.arange(1, len(part.levels))[:, None]
    return Term(covariate, names, (part.numbers == levels).astype(float).T)  # by column, as they are put together
