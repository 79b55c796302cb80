"""The regression's columns against formulaic's."""

from __future__ import annotations

import formulaic
import numpy as np
import pandas as pd
import pytest

from rlpf_pipeline.abtest.analysis import analyse
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
    age = theirs["account_age_years"]
    theirs["account_age_years"] = (age - age.mean()) / age.std(ddof=0)
    assert design.names == list(theirs.columns)
    np.testing.assert_allclose(design.matrix.to_numpy(), theirs.to_numpy(float), rtol=1e-12)


def test_a_time_in_microseconds_gives_the_effects_of_the_same_time_in_years():
    """Of the raw numbers, which lie close together and far from zero, least squares keep no digit."""
    years = experiment(400, seed=12)
    microseconds = years.assign(account_age_years=1.7e15 - years["account_age_years"] * 365.25 * 86400e6)
    expected, found = (analyse(data).robustness for data in (years, microseconds))
    for one, other in zip(expected, found, strict=True):
        assert other[4:8] == pytest.approx(one[4:8], rel=1e-5), one.model


def test_a_level_without_clicks_is_named_in_its_own_words():
    """A rate of 0 is taken as the log of a thousandth; nobody would know their column by that."""
    data = experiment(300, seed=3)
    ever = data.index % 3 > 0
    data = data.assign(lifetime_ctr=np.where(ever, 0.03, 0.0), clicks=data["clicks"] * ever)
    loaded = load_experiment(data, ExperimentSpec(covariates={"lifetime_ctr": "rate"}))
    design = build_design(with_exposure(loaded.advertisers), loaded.covariates)
    assert design.notes == ("Covariate lifetime_ctr was left out: no clicks where it is lowest.",)


def test_more_levels_than_a_regression_carries_leave_the_covariate_out():
    data = experiment(900, seed=3)
    loaded = load_experiment(
        data.assign(region=[f"r{i % 60}" for i in range(900)]), ExperimentSpec(covariates={"region": "category"})
    )
    design = build_design(with_exposure(loaded.advertisers), loaded.covariates)
    assert design.formula == "~ treatment"
    assert "it has 60 levels, more than 50" in design.notes[0]
    told = design.characteristics  # the 49 largest, and the others
    assert len(told.columns) == 49
    assert told.sum(axis=1).sum() == 49 * 15
