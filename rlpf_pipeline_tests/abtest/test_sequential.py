"""The confidence sequence: its boundary by its own martingale, and peeking without harm."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rlpf_pipeline.abtest.log_binomial import risk_from
from rlpf_pipeline.abtest.sequential import anytime_interval, anytime_p_value, critical_value, may_look


def test_at_the_edge_of_the_interval_the_evidence_is_one_over_alpha():
    for error in (0.01, 0.03, 0.2):
        assert anytime_p_value(critical_value(error), error) == pytest.approx(0.05)


def test_no_evidence_is_a_p_value_of_one():
    assert anytime_p_value(0.0, 0.03) == 1.0


def test_the_interval_is_around_the_estimate_on_the_log_scale():
    interval = anytime_interval(risk_from(0.1, 0.03))
    assert math.log(interval.low) + math.log(interval.high) == pytest.approx(0.2)
    assert interval.high / interval.low > math.exp(2 * 1.96 * 0.03)


def test_an_error_beyond_numbers_leaves_everything_open():
    interval = anytime_interval(risk_from(0.1, 1e6))
    assert (interval.low < 1e-100, interval.high > 1e100) == (True, True)


def test_a_look_needs_fifty_effective_advertisers_in_each_arm():
    """Equal impressions count as many as they are; 99 of 1 and one of 40 count as 139^2 / (99 + 1600) = 11.4."""
    treated = np.arange(200) < 100
    assert may_look(np.where(np.arange(200) % 100 < 50, 7.0, 0.0), treated)
    assert not may_look(np.where(np.arange(200) % 100 < 49, 7.0, 0.0), treated)
    assert not may_look(np.where(np.arange(200) == 0, 40.0, 1.0), treated)
    assert not may_look(np.where(np.arange(200) == 150, 40.0, 1.0), treated)
    assert not may_look(np.where(treated, 1.0, 0.0), treated)


def test_peeking_70_times_rejects_at_most_5_percent():
    """A walk of independent increments, 4,000 times: 5 % and three standard errors of 0.34 %."""
    rng = np.random.default_rng(2)
    steps = rng.normal(size=(4000, 70)).cumsum(axis=1)
    looks = np.arange(1, 71)
    z = np.abs(steps) / np.sqrt(looks)
    errors = 0.25 / np.sqrt(looks)
    critical = np.array([critical_value(error) for error in errors])
    assert (z > critical).any(axis=1).mean() < 0.05 + 3 * 0.0034
    assert (z > 1.96).any(axis=1).mean() > 0.3
