"""Distributions and quantile effects against numpy's, and against a plain bootstrap."""

from __future__ import annotations

import numpy as np
import pytest

from rlpf_pipeline.abtest.arms import QUANTILES, bootstrapped_quantile, distributions, quantile_effects
from rlpf_pipeline_tests.abtest.experiment_data import experiment


def test_distributions_are_numpys_quantiles_by_arm():
    frame = experiment(400, seed=1)
    found = {(d.quantity, d.arm): d for d in distributions(frame, ("ads",))}
    treated = frame[frame["arm"] == "treatment"]
    assert found["ads", "treatment"].mean == treated["ads"].mean()
    expected = np.quantile(treated["clicks"] / treated["impressions"], QUANTILES)
    assert found["CTR", "treatment"].quantiles == pytest.approx(expected)


def test_the_short_bootstrap_has_the_spread_of_a_plain_one():
    data = np.sort(np.random.default_rng(1).exponential(size=501))
    rng = np.random.default_rng(2)
    short = bootstrapped_quantile(data, 0.5, rng)
    plain = np.median(rng.choice(data, (4000, 501)), axis=1)
    assert short.mean() == pytest.approx(plain.mean(), abs=0.01)
    assert short.std() == pytest.approx(plain.std(), rel=0.08)


def test_a_shifted_quantile_is_found_with_its_interval():
    frame = experiment(3000, seed=2)
    effects = [effect for effect in quantile_effects(frame, ("variations",)) if effect.quantity == "variations"]
    assert len(effects) == len(QUANTILES)
    assert all(effect.low <= effect.difference <= effect.high for effect in effects)
    assert all(effect.low > 0 for effect in effects)
