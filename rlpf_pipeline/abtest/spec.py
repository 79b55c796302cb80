"""What the columns of an experiment's table mean, read from YAML; without one, contracts.EXPERIMENT_ADVERTISERS.

columns: {advertiser_id: account, impressions: views}   # our name: column of the table
arms: {control: A, treatment: B}
treatment_share: 0.5                                    # as planned
covariates: {lifetime_ctr: rate, region: category}      # known before the experiment; replaces the default
segments: [region]
date: day                                               # where rows are per advertiser and day, week or number
"""

from __future__ import annotations

from keyword import iskeyword
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.settings import faults_of
from rlpf_pipeline.yaml_files import loaded

REQUIRED = ("advertiser_id", "arm", "impressions", "clicks")
OUTCOMES = ("ads", "variations", "spend")
"""Optional, summed over an advertiser's rows."""
RESERVED = (
    "Intercept",
    "treatment",
    "day",
    "days",
    "first_day",
    "given_day",
    "row_count",
    "wrong",
    "flawed",
    "crossed",
)
MISSING_LEVEL = "(missing)"
"""Of a category."""
LIFETIME_CTR_OFFSET = 0.001
"""c in log(rate + c): one click in a thousand, so that an advertiser without clicks has a finite covariate."""

Form = Literal["rate", "count", "number", "category", "flag"]
LEVELLED = ("category", "flag")
DEFAULT_FORMS: dict[str, Form] = {
    "lifetime_ctr": "rate",
    "new_advertiser": "flag",
    "ads_before": "count",
    "industry": "category",
    "expertise": "category",
    "budget": "category",
    "business_account": "flag",
    "account_age_years": "number",
}
DEFAULT_SEGMENTS = ("industry", "expertise", "budget", "new_advertiser")


class Covariate(NamedTuple):
    name: str
    form: Form
    """rate: log(x + 0.001). count: log(1 + x). number: as it is. category: a column per level. flag: 0 or 1."""

    @property
    def term(self) -> str:
        """Its form in the regression, for formulaic."""
        if self.form == "category":
            return f"C({self.name})"
        return f"log_{self.name}" if self.form in ("rate", "count") else self.name


class Arms(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    control: str = "control"
    treatment: str = "treatment"

    @field_validator("control", "treatment", mode="before")
    @classmethod
    def is_a_word(cls, name: Any) -> Any:
        if isinstance(name, bool):
            raise ValueError(
                "YAML takes true, false, yes, no, on and off for truth values: write the arm in quotes, as the table "
                "has it ('off'; of a column of truth values 'true' and 'false')"
            )
        return name

    @model_validator(mode="after")
    def are_two(self) -> Arms:
        if self.control == self.treatment:
            raise ValueError(f"control and treatment are both called '{self.control}'")
        return self


class ExperimentSpec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    columns: dict[str, str] = Field({}, description="our name -> column of the table, where they differ")
    arms: Arms = Arms()
    treatment_share: float = Field(0.5, gt=0, lt=1, description="planned share of advertisers in treatment")
    covariates: dict[str, Form] | None = Field(None, description="None: those of the contract that the table has")
    segments: tuple[str, ...] | None = Field(None, description="None: industry, expertise, budget, new_advertiser")
    date: str | None = Field(None, description="column of the day, or the number of the day or week, of a row")

    @model_validator(mode="after")
    def names_fit(self) -> ExperimentSpec:
        taken = (*REQUIRED, *OUTCOMES, *RESERVED)
        folded = [name.casefold() for name in taken]  # DuckDB does not tell case apart
        for name in self.covariates or {}:
            if not name.isidentifier() or iskeyword(name) or name.casefold() in folded:
                raise ValueError(
                    f"covariate '{name}': use a name of letters, digits and _ that is not one of {', '.join(taken)}, "
                    "and say under columns which column it is"
                )
        made = [column for c in self.all_covariates for column in {c.name, c.term, f"{c.name}_missing"}]
        folded = [column.casefold() for column in made]
        for column in made:
            if folded.count(column.casefold()) > 1:
                raise ValueError(
                    f"two covariates make a column '{column}' of the regression: name one of them otherwise, and say "
                    "under columns which column it is"
                )
        known = dict(self.all_covariates)
        for name in self.columns:
            if name not in (*REQUIRED, *OUTCOMES, *known):
                raise ValueError(
                    f"column '{name}' is none of ours: {', '.join((*REQUIRED, *OUTCOMES, *sorted(known)))}"
                )
        for segment in self.segments or ():
            if segment not in known:
                raise ValueError(f"segment '{segment}' is not among the covariates: {', '.join(sorted(known))}")
            if known[segment] not in LEVELLED:
                raise ValueError(
                    f"segment '{segment}' is a {known[segment]}, and has no levels: use a category or flag"
                )
        return self

    @property
    def all_covariates(self) -> tuple[Covariate, ...]:
        forms = DEFAULT_FORMS if self.covariates is None else self.covariates
        return tuple(Covariate(name, form) for name, form in forms.items())

    def source_of(self, name: str) -> str:
        return self.columns.get(name, name)

    def present(self, columns: list[str]) -> tuple[tuple[Covariate, ...], tuple[str, ...], tuple[str, ...]]:
        """Covariates, outcomes and segments that the table has. Raises UserError where it lacks a column that is
        required or that the spec names."""
        named = {*REQUIRED, *(self.covariates or {}), *self.columns, *(self.segments or ())}
        absent = sorted(self.source_of(name) for name in named if self.source_of(name) not in columns)
        if self.date is not None and self.date not in columns:
            absent.append(self.date)
        if absent:
            raise UserError(
                f"The table has no column {', '.join(absent)}. It has: {', '.join(columns)}. "
                "Rename or add the columns, or say in a spec (--spec) which columns they are."
            )
        covariates = tuple(c for c in self.all_covariates if self.source_of(c.name) in columns)
        outcomes = tuple(name for name in OUTCOMES if self.source_of(name) in columns)
        names = [covariate.name for covariate in covariates if covariate.form in LEVELLED]
        segments = DEFAULT_SEGMENTS if self.segments is None else dict.fromkeys(self.segments)
        return covariates, outcomes, tuple(name for name in segments if name in names)


def read_spec(path: Path) -> ExperimentSpec:
    """Raises UserError where the file is no such spec."""
    if not path.is_file():
        raise UserError(f"No such file: {path}.")
    try:
        content: Any = loaded(path.read_text(encoding="utf-8")) or {}
        return ExperimentSpec.model_validate(content)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no YAML: {error}") from error
    except ValidationError as error:
        raise UserError(f"{path} is no spec of an experiment: {faults_of(error)}.") from error
