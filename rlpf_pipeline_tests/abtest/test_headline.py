"""The short way to the headline against the report's own, and what it must not load."""

from __future__ import annotations

import re
import subprocess
import sys

import pandas as pd
import pytest

from rlpf_pipeline.abtest import ExperimentSpec, headline_of, log_binomial
from rlpf_pipeline.abtest.analysis import risk_of
from rlpf_pipeline.abtest.design import build_design
from rlpf_pipeline.abtest.frames import with_exposure
from rlpf_pipeline.abtest.log_binomial import estimate
from rlpf_pipeline.abtest.panel import load_experiment
from rlpf_pipeline.errors import UserError
from rlpf_pipeline_tests.abtest.experiment_data import experiment, odd_experiment, spec_of, with_treatment


@pytest.fixture(scope="module")
def holes():
    """Missing values of every form, an advertiser without impressions, and a category with too many levels."""
    data = experiment(900, seed=11)
    data.loc[5, ["impressions", "clicks"]] = 0
    return data.assign(
        industry=data["industry"].where(data.index % 7 > 0),
        lifetime_ctr=data["lifetime_ctr"].where(data.index % 11 > 0),
        new_advertiser=data["new_advertiser"].astype("boolean").where(data.index % 13 > 0),
        expertise=[f"level {i % 60}" for i in range(900)],
    )


def by_the_report(data, spec=None):
    """Relative risk, status, formula, notes and advertisers as the report has them."""
    loaded = load_experiment(data, spec)
    design = build_design(with_exposure(loaded.advertisers), loaded.covariates)
    fit = estimate(design.counts, design.names)
    return risk_of(design, fit), fit.status, design.formula, design.notes, len(design.frame)


def test_it_is_the_headline_of_the_report(holes):
    risk, *others = by_the_report(holes)
    found = headline_of(holes)
    assert found.risk == pytest.approx(risk, rel=1e-9)
    assert [found.status, found.formula, found.notes, found.advertisers] == others
    assert found.advertisers == 899


def test_odd_experiments_have_the_headline_of_the_report_or_are_refused_in_its_words():
    estimated = 0
    for seed in range(60):
        rows = odd_experiment(seed)
        try:
            risk, *others = by_the_report(rows, spec_of(rows))
        except UserError as refused:
            with pytest.raises(UserError, match=re.escape(str(refused))):
                headline_of(rows, spec_of(rows))
            continue
        found = headline_of(rows, spec_of(rows))
        assert found.risk == pytest.approx(risk, rel=1e-6, abs=1e-12), seed
        assert [found.status, found.formula, found.notes, found.advertisers] == others, seed
        estimated += 1
    assert 15 < estimated < 55  # both ways are taken


def test_levels_are_those_of_the_first_day_of_advertisers_that_were_shown(holes):
    """Others are no columns of the regression: of a later day, of an advertiser without impressions; and a level that
    is called as missing ones are is theirs."""
    first = holes.assign(day="2026-01-01", industry=holes["industry"].where(holes.index % 14 > 0, "(missing)"))
    first.loc[5, "industry"] = "mining"
    later = first.assign(day="2026-01-02", industry="fishing", impressions=0, clicks=0)
    spec = ExperimentSpec(date="day")
    panel = pd.concat([first, later])
    loaded = load_experiment(panel, spec)
    design = build_design(with_exposure(loaded.advertisers), loaded.covariates)
    found = headline_of(panel, spec)
    assert found.risk == pytest.approx(risk_of(design, estimate(design.counts, design.names)), rel=1e-9)
    assert (found.formula, found.notes) == (design.formula, design.notes)
    assert "industry is missing for 129 advertisers" in " ".join(found.notes)


def test_a_panel_gives_the_clustered_fit_of_its_rows(holes):
    data = holes.drop(columns=["industry", "lifetime_ctr", "new_advertiser"])
    half = data.assign(impressions=data["impressions"] // 2, clicks=data["clicks"] // 3)
    rest = data.assign(impressions=data["impressions"] - half["impressions"], clicks=data["clicks"] - half["clicks"])
    panel = pd.concat([half.assign(week=1), rest.assign(week=2)])
    panel = with_treatment(panel)
    rows = log_binomial(panel, "~ treatment + C(budget)", "clicks", "impressions", cluster="advertiser_id")
    found = headline_of(panel, ExperimentSpec(date="week", covariates={"budget": "category"}))
    assert found.standard_errors["hc0"] == pytest.approx(rows.standard_errors["cluster"]["treatment"], rel=1e-9)


def test_a_table_without_covariates_has_an_estimate(holes):
    bare = holes[["advertiser_id", "arm", "impressions", "clicks"]]
    rows = with_treatment(bare)
    expected = log_binomial(rows, "~ treatment", "clicks", "impressions").standard_errors["hc3"]["treatment"]
    assert headline_of(bare).standard_errors["hc3"] == pytest.approx(expected, rel=1e-9)


def test_mistakes_are_refused_as_in_the_report(holes):
    with pytest.raises(UserError, match="treatment arm has no clicks"):
        headline_of(holes.assign(clicks=holes["clicks"].where(holes["arm"] == "control", 0)))
    with pytest.raises(UserError, match="only control"):
        headline_of(holes[holes["arm"] == "control"])


def test_advertisers_that_were_never_shown_are_explained_whatever_their_categories():
    with pytest.raises(UserError, match="Only 0 control and 0 treatment advertisers have impressions"):
        headline_of(experiment(40, seed=1).assign(impressions=0, clicks=0))


def test_a_file_is_read_without_pandas_scipy_or_formulaic(tmp_path):
    experiment(100, seed=1).to_parquet(tmp_path / "data.parquet")
    code = (
        "import sys; from rlpf_pipeline.abtest import headline_of;"
        f"headline_of({str(tmp_path / 'data.parquet')!r});"
        "print([name for name in ('pandas', 'pyarrow', 'scipy', 'formulaic', 'statsmodels') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
