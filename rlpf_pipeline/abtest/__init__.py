"""The A/B analysis of the study: is CTR higher in treatment, by how much, and can the answer be trusted?

    from rlpf_pipeline.abtest import analyse, log_binomial, relative_risk

A table with one row per advertiser, or per advertiser and day, goes in (contracts.EXPERIMENT_ADVERTISERS, or any that
an `ExperimentSpec` describes), an `ExperimentAnalysis` comes out; `report/` renders it. Never torch, never Dagster.
"""

from rlpf_pipeline.abtest.analysis import ExperimentAnalysis, analyse
from rlpf_pipeline.abtest.log_binomial import LogBinomialFit, RelativeRisk, log_binomial, relative_risk
from rlpf_pipeline.abtest.power import Plan, plan
from rlpf_pipeline.abtest.spec import ExperimentSpec, read_spec

__all__ = [
    "ExperimentAnalysis",
    "ExperimentSpec",
    "LogBinomialFit",
    "Plan",
    "RelativeRisk",
    "analyse",
    "log_binomial",
    "plan",
    "read_spec",
    "relative_risk",
]
