"""Linear effects against the difference of means."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from rlpf_pipeline.abtest.linear import linear_effect


def test_without_covariates_it_is_the_difference_and_the_ratio_of_means():
    rng = np.random.default_rng(3)
    treatment = np.repeat([0.0, 1.0], [90, 110])
    y = rng.gamma(2.0, 3.0 + treatment)
    design = pd.DataFrame({"Intercept": 1.0, "treatment": treatment})
    effect = linear_effect("ads", pd.Series(y), design)
    y0, y1 = y[treatment == 0], y[treatment == 1]
    hc1 = 200 / 198
    variance0, variance1 = y0.var() / 90 * hc1, y1.var() / 110 * hc1
    assert effect.control_mean == pytest.approx(y0.mean())
    assert effect.difference == pytest.approx(y1.mean() - y0.mean())
    assert effect.standard_error == pytest.approx((variance0 + variance1) ** 0.5)
    assert effect.ratio.estimate == pytest.approx(y1.mean() / y0.mean())
    delta = variance0 / y0.mean() ** 2 + variance1 / y1.mean() ** 2
    assert effect.ratio.standard_error == pytest.approx(delta**0.5)


def test_a_mean_that_is_not_positive_has_no_ratio():
    treatment = np.tile([0.0, 1.0], 20)
    y = pd.Series(np.where(treatment == 1, 1.0, -1.0) + np.linspace(0, 0.1, 40))
    effect = linear_effect("gain", y, pd.DataFrame({"Intercept": 1.0, "treatment": treatment}))
    assert effect.ratio is None
    assert effect.difference == pytest.approx(2.0, abs=0.1)
