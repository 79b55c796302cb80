"""Power at the study's published standard error of 0.0299 (design facts: 58 % at +6.7 %, MDE +8.7 %)."""

from __future__ import annotations

import pytest

from rlpf_pipeline.abtest.power import minimum_detectable_effect, power_at, realised_power


def test_the_studys_own_error_gives_its_power_and_detectable_effect():
    power = realised_power(0.0299)
    assert power.power_at_study_effect == pytest.approx(0.58, abs=0.005)
    assert power.minimum_detectable_effect == pytest.approx(0.087, abs=0.0005)


def test_power_at_no_effect_is_the_significance_level():
    assert power_at(0.0, 0.03) == pytest.approx(0.05)


def test_the_detectable_effect_has_the_power_it_names():
    assert power_at(minimum_detectable_effect(0.02, power=0.9), 0.02) == pytest.approx(0.9, abs=1e-6)
