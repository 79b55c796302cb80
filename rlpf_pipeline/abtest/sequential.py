"""Looking early and often: a confidence sequence that holds at every look at once, and the p-value that goes with it.

A normal mixture over the effect (Robbins 1970; Johari et al. 2017; Waudby-Smith et al. 2024, asymptotic confidence
sequences): with the standard error s of a look and a mixture of standard deviation tau,

    estimate +- s sqrt((1 + s^2 / tau^2) log((1 + tau^2 / s^2) / alpha^2))

holds at all looks together with probability 1 - alpha, where the estimate moves as if its information grew by
independent pieces. Cumulative estimates on the same advertisers move less than that. It is asymptotic: a look at few
advertisers is no look (`may_look`).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rlpf_pipeline.abtest.log_binomial import RelativeRisk, ratio_at
from rlpf_pipeline.abtest.maximum import Array

MIXTURE = 0.1
"""tau, of the log relative risk: effects of up to about 10 % are what an experiment of this kind is for. Fixed before
the data: a tau chosen after looking would not be valid."""

LEAST_ADVERTISERS = 50
"""Effective advertisers of each arm that a look needs; fixed before the data, as the mixture is."""


def may_look(impressions: Array, treated: npt.NDArray[np.bool_]) -> bool:
    """Whether the impressions so far of each arm count as LEAST_ADVERTISERS or more: (sum n)^2 / sum n^2 (Kish).

    Both (advertisers,).
    """
    arms = impressions[treated], impressions[~treated]
    return all(count_as(LEAST_ADVERTISERS, n) for n in arms)


def effective_number(impressions: Array) -> float:
    """How many advertisers of equal size these count as: (sum n)^2 / sum n^2 (Kish)."""
    return float(impressions.sum()) ** 2 / float(impressions @ impressions)


def count_as(least: int, impressions: Array) -> bool:
    return 0 < least * float(impressions @ impressions) <= float(impressions.sum()) ** 2


class AnytimeInterval(NamedTuple):
    low: float
    high: float
    """Of the relative risk; valid at every look."""
    p_value: float
    """Of this look alone; the smallest so far is valid at any time."""


def anytime_interval(risk: RelativeRisk, mixture: float = MIXTURE) -> AnytimeInterval:
    centre, error = math.log(risk.estimate), risk.standard_error
    reach = error * critical_value(error, mixture)
    return AnytimeInterval(ratio_at(centre - reach), ratio_at(centre + reach), anytime_p_value(risk.z, error, mixture))


def critical_value(error: float, mixture: float = MIXTURE) -> float:
    """How many standard errors the 95 % sequence reaches, at a standard error of `error`."""
    ratio = (mixture / error) ** 2
    return math.sqrt((1 + 1 / ratio) * math.log((1 + ratio) / 0.05**2))


def anytime_p_value(z: float, error: float, mixture: float = MIXTURE) -> float:
    """One over the mixture's likelihood ratio, at most 1."""
    ratio = (mixture / error) ** 2
    log_evidence = 0.5 * z * z * ratio / (1 + ratio) - 0.5 * math.log1p(ratio)
    return math.exp(-max(log_evidence, 0.0))
