"""What the experiment could see: minimum detectable effect and power of the two-sided Wald test on log RR."""

from __future__ import annotations

import math
from typing import NamedTuple

from scipy import stats

STUDY_EFFECT = 0.067
"""The study's relative change of CTR: +6.7 %."""


class Power(NamedTuple):
    standard_error: float
    """Of the log relative risk, as realised."""
    minimum_detectable_effect: float
    """Relative change of CTR that is found with 80 % probability; 0.087 is +8.7 %."""
    study_effect: float
    power_at_study_effect: float
    """Probability of p < 0.05 if the true relative change is `study_effect`."""


def realised_power(standard_error: float) -> Power:
    return Power(
        standard_error=standard_error,
        minimum_detectable_effect=minimum_detectable_effect(standard_error),
        study_effect=STUDY_EFFECT,
        power_at_study_effect=power_at(STUDY_EFFECT, standard_error),
    )


def power_at(effect: float, standard_error: float, level: float = 0.95) -> float:
    """Probability that the interval of `level` leaves out no effect, when the relative change is `effect`."""
    shift = math.log1p(effect) / standard_error
    critical = float(stats.norm.ppf(0.5 + level / 2))
    return float(stats.norm.cdf(shift - critical) + stats.norm.cdf(-shift - critical))


def minimum_detectable_effect(standard_error: float, power: float = 0.8, level: float = 0.95) -> float:
    """exp((z_level + z_power) standard_error) - 1, the usual form that neglects rejecting on the wrong side."""
    return math.expm1(float(stats.norm.ppf(0.5 + level / 2) + stats.norm.ppf(power)) * standard_error)
