"""Evidence of validity against their definitions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats

from rlpf_pipeline.abtest.design import build_design
from rlpf_pipeline.abtest.evidence import covariate_balance, impression_concentration, sample_ratio, top_removed
from rlpf_pipeline.abtest.frames import with_exposure
from rlpf_pipeline.abtest.log_binomial import estimate
from rlpf_pipeline.abtest.panel import load_experiment
from rlpf_pipeline.abtest.robustness import risk_of
from rlpf_pipeline_tests.abtest.experiment_data import experiment


def test_sample_ratio_is_the_chi_square_of_an_even_split():
    """520 against 480: (20^2 + 20^2) / 500 = 1.6."""
    ratio = sample_ratio(pd.Series(["control"] * 520 + ["treatment"] * 480))
    assert ratio.chi_square == pytest.approx(1.6)
    assert ratio.p_value == pytest.approx(stats.chi2.sf(1.6, 1))


def test_sample_ratio_of_a_small_arm_is_exact():
    """7 of 200 at 1 %: by the binomial, 7 or more with probability 0.4 %, which chi-square takes for 0.04 %."""
    ratio = sample_ratio(pd.Series(["control"] * 193 + ["treatment"] * 7), treatment_share=0.01)
    assert ratio.p_value == pytest.approx(stats.binom.sf(6, 200, 0.01))


def test_omnibus_balance_is_n_times_r_squared_of_the_arm_on_the_covariates():
    """The score test of a regression of the arm on the covariates, up to the factor (N - 1) / N of the covariance."""
    rng = np.random.default_rng(6)
    x = pd.DataFrame(rng.normal(size=(300, 3)) @ rng.normal(size=(3, 3)), columns=["a", "b", "c"])
    treated = rng.random(300) < 0.5
    balance = covariate_balance(x.assign(twice=2 * x["a"]), treated)
    r_squared = sm.OLS(treated.astype(float), sm.add_constant(x)).fit().rsquared
    assert balance.degrees_of_freedom == 3
    assert not balance.is_exact
    assert balance.chi_square == pytest.approx(299 * r_squared, rel=1e-8)


def test_balance_of_a_rare_flag_in_a_small_arm_is_exact():
    """Ten of 1,000 in treatment, ten with the flag: two of them there by the hypergeometric with probability 0.4 %,
    which chi-square takes for one in a hundred million."""
    treated = np.arange(1000) < 10
    flag = pd.DataFrame({"flag": ((np.arange(1000) < 2) | (np.arange(1000) >= 992)).astype(float)})
    balance = covariate_balance(flag, treated)
    exact = stats.hypergeom.sf(1, 1000, 10, 10)
    assert balance.is_exact
    assert stats.chi2.sf(balance.chi_square, 1) < 1e-6 < exact
    assert balance.p_value == pytest.approx(exact, abs=4 * (exact / 2000) ** 0.5)


def test_standardised_difference_by_hand():
    """Means 1 and 3, standard deviation of (0, 2, 2, 4) is sqrt(8/3)."""
    balance = covariate_balance(pd.DataFrame({"x": [0.0, 2.0, 2.0, 4.0]}), np.array([False, False, True, True]))
    assert balance.rows[0].standardised_difference == pytest.approx(2 / (8 / 3) ** 0.5)


def test_concentration_by_hand():
    """(1 + 1 + 1 + 3)^2 / (1 + 1 + 1 + 9) = 3 of treatment; the top advertiser holds 3 of 9 impressions."""
    impressions = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 3.0])
    concentration = impression_concentration(impressions, np.array([False] * 3 + [True] * 4))
    assert concentration.effective_control == pytest.approx(3.0)
    assert concentration.effective_treatment == pytest.approx(3.0)
    assert (concentration.top_advertisers, concentration.top_share) == (1, pytest.approx(1 / 3))


@pytest.mark.parametrize("covariate", ["industry", "new_advertiser"])
def test_without_the_only_advertiser_of_a_level_the_effect_is_the_same(covariate):
    """Its own column fits it exactly: it says nothing of the others, and without it that column goes."""
    frame = experiment(300, seed=8)
    largest = frame["impressions"].idxmax()
    own = frame.index == largest
    values = {"industry": np.where(own, "toys", frame["industry"]), "new_advertiser": own}[covariate]
    columns = ["advertiser_id", "arm", "impressions", "clicks"]
    loaded = load_experiment(frame[columns].assign(**{covariate: values}))
    design = build_design(with_exposure(loaded.advertisers), loaded.covariates)
    headline = risk_of(design, estimate(design.counts, design.names))
    removed = top_removed(design)
    assert len(removed) == 10
    assert removed[0].risk == pytest.approx(headline, rel=1e-6)


def test_impressions_of_a_small_arm_are_not_called_unequal_by_their_tail():
    """A hundred treated of 2,000, log impressions of standard deviation 1.7: by HC1 errors 9 % are, at 1 %."""
    rng = np.random.default_rng(4)
    found = []
    for _ in range(60):
        impressions = pd.DataFrame({"impressions": np.exp(rng.normal(8, 1.7, 2000))})
        found.append(covariate_balance(impressions, rng.permutation(2000) < 100).p_value)
    assert np.mean(np.array(found) < 0.01) <= 0.05
    larger = impressions * np.where(np.arange(2000) < 400, 2.0, 1.0)[:, None]
    assert covariate_balance(larger, np.arange(2000) < 400).p_value < 0.01
