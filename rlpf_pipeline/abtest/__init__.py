"""The A/B analysis of the study: is CTR higher in treatment, by how much, and can the answer be trusted?

    from rlpf_pipeline.abtest import analyse, headline_of, log_binomial, relative_risk

A table with one row per advertiser, or per advertiser and day, goes in (contracts.EXPERIMENT_ADVERTISERS, or any that
an `ExperimentSpec` describes), an `ExperimentAnalysis` comes out; `report/` renders it. Never torch, never Dagster.
`analyse` is imported when it is first asked for: the fit alone needs neither pandas nor what the report takes.
"""

from typing import TYPE_CHECKING, Any

from rlpf_pipeline.abtest.headline import Headline, headline_of
from rlpf_pipeline.abtest.log_binomial import LogBinomialFit, RelativeRisk, log_binomial, relative_risk
from rlpf_pipeline.abtest.power import Plan, plan
from rlpf_pipeline.abtest.spec import ExperimentSpec, read_spec

if TYPE_CHECKING:
    from rlpf_pipeline.abtest.analysis import ExperimentAnalysis, analyse

__all__ = [
    "ExperimentAnalysis",
    "ExperimentSpec",
    "Headline",
    "LogBinomialFit",
    "Plan",
    "RelativeRisk",
    "analyse",
    "headline_of",
    "log_binomial",
    "plan",
    "read_spec",
    "relative_risk",
]


def __getattr__(name: str) -> Any:
    if name in ("ExperimentAnalysis", "analyse"):
        from rlpf_pipeline.abtest import analysis

        return getattr(analysis, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
