"""The regression's columns against formulaic's."""

from __future__ import annotations

import formulaic
import numpy as np
import pandas as pd

from rlpf_pipeline.abtest.design import build_design
from rlpf_pipeline.abtest.frames import with_exposure
from rlpf_pipeline.abtest.panel import load_experiment
from rlpf_pipeline.abtest.spec import ExperimentSpec
from rlpf_pipeline_tests.abtest.experiment_data import experiment


def test_the_design_is_formulaics_for_the_formula():
    data = experiment(500, seed=3)
    loaded = load_experiment(data.assign(industry=data["industry"].where(data.index % 9 > 0)))
    exposed = with_exposure(loaded.advertisers)
    design = build_design(exposed, loaded.covariates)
    frame = design.frame.assign(
        log_lifetime_ctr=np.log(exposed["lifetime_ctr"] + 0.001),
        log_ads_before=np.log1p(exposed["ads_before"]),
        industry=exposed["industry"].fillna("(missing)"),
    )
    theirs = pd.DataFrame(formulaic.model_matrix(design.formula, frame))
    assert design.names == list(theirs.columns)
    np.testing.assert_array_equal(design.matrix.to_numpy(), theirs.to_numpy(float))


def test_more_levels_than_a_regression_carries_leave_the_covariate_out():
    data = experiment(900, seed=3)
    loaded = load_experiment(
        data.assign(region=[f"r{i % 60}" for i in range(900)]), ExperimentSpec(covariates={"region": "category"})
    )
    design = build_design(with_exposure(loaded.advertisers), loaded.covariates)
    assert design.formula == "~ treatment"
    assert "it has 60 levels, more than 50" in design.notes[0]
