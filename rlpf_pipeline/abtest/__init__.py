"""The A/B analysis of the study: is CTR higher in treatment, by how much, and can the answer be trusted?

    from rlpf_pipeline.abtest import analyse, log_binomial, relative_risk

A table with one row per advertiser (contracts.EXPERIMENT_ADVERTISERS) goes in, an `ExperimentAnalysis` comes out;
`report/` renders it. Never torch, never Dagster.
"""

from rlpf_pipeline.abtest.analysis import ExperimentAnalysis, analyse
from rlpf_pipeline.abtest.log_binomial import LogBinomialFit, RelativeRisk, log_binomial, relative_risk

__all__ = ["ExperimentAnalysis", "LogBinomialFit", "RelativeRisk", "analyse", "log_binomial", "relative_risk"]
