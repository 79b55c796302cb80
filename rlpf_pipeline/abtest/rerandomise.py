"""The report's own estimator on the same advertisers, randomised again: an A/A certificate and a randomisation test.

Under a new assignment treatment has no effect, so 5 % of tests should reject and 95 % of intervals should hold 1. The
fits are those of refits.py.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

from rlpf_pipeline.abtest.design import Design
from rlpf_pipeline.abtest.log_binomial import SMALLEST_ERROR, RelativeRisk, one_thread, ratio_at
from rlpf_pipeline.abtest.maximum import Array
from rlpf_pipeline.abtest.refits import Arms, Prepared

ASSIGNMENTS = 1000
SEED = 20240216
LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99)
BLOCK = 250
"""Assignments worked on at once: (advertisers, BLOCK) numbers."""


class Coverage(NamedTuple):
    level: float
    covered: float
    """Share of A/A intervals of that level that hold a relative risk of 1."""


class Certificate(NamedTuple):
    assignments: int
    false_positive_rate: float
    """Share of A/A tests with p < 0.05."""
    low: float
    high: float
    """Of that share, the 95 % interval of so many assignments (Wilson)."""
    coverage: tuple[Coverage, ...]
    standard_deviation: float
    """Of the A/A estimates of the log relative risk: what the mean standard error should be."""
    mean_standard_error: float


class Randomisation(NamedTuple):
    p_value: float
    """(1 + assignments whose |z| is at least the observed) / (1 + assignments)."""
    critical_value: float
    """95 % quantile of |z| over the assignments; 1.96 for a normal one."""


class Effects(NamedTuple):
    log_risk: Array
    """(assignments,)"""
    standard_error: Array
    """HC3, as in the headline."""
    observed_z: float
    """Of the experiment's own assignment, computed as the others are."""


def rerandomise(design: Design, assignments: int = ASSIGNMENTS) -> Effects | None:
    """Effects under complete randomisations that treat as many advertisers as the experiment did.

    Assignments that leave an arm without clicks, and so without an estimate, are left out. None where most do, or where
    the covariates' fit has no inner maximum.
    """
    treated = design.treated > 0
    prepare = Prepared(design)
    if prepare.status != "converged":
        return None
    sizes = [min(BLOCK, assignments - first) for first in range(0, assignments, BLOCK)]
    seeds = np.random.SeedSequence(SEED).spawn(len(sizes))

    def block(size: int, own_seed: np.random.SeedSequence) -> tuple[Array, Array]:
        return prepare.effects(draw(treated, size, own_seed))

    with one_thread(), ThreadPoolExecutor(os.cpu_count()) as pool:
        log_risk, error = (np.concatenate(parts) for parts in zip(*pool.map(block, sizes, seeds), strict=True))
    usable = error > SMALLEST_ERROR
    if usable.sum() <= assignments / 2:
        return None
    own, own_error = prepare.effects(treated[:, None])
    return Effects(log_risk[usable], error[usable], float(own[0] / own_error[0]))


def draw(treated: npt.NDArray[np.bool_], assignments: int, seed: np.random.SeedSequence) -> Arms:
    """Assignments that treat as many advertisers as `treated` does: those of the smallest of as many random numbers.

    A third of the time of permutations.
    """
    rng, number = np.random.default_rng(seed), int(treated.sum())
    keys = (rng.random(len(treated)) for _ in range(assignments))
    return np.stack([key < np.partition(key, number)[number] for key in keys], axis=1)


def certify(effects: Effects) -> Certificate:
    z = np.abs(effects.log_risk / effects.standard_error)
    rejected = int((z > special.ndtri(0.975)).sum())
    low, high = wilson_interval(rejected, len(z))
    return Certificate(
        assignments=len(z),
        false_positive_rate=rejected / len(z),
        low=low,
        high=high,
        coverage=tuple(Coverage(level, float((z <= special.ndtri(0.5 + level / 2)).mean())) for level in LEVELS),
        standard_deviation=float(effects.log_risk.std(ddof=1)),
        mean_standard_error=float(effects.standard_error.mean()),
    )


def wilson_interval(hits: int, number: int) -> tuple[float, float]:
    """Of a share, 95 % (Wilson 1927)."""
    z = float(special.ndtri(0.975))
    centre = (hits + z * z / 2) / (number + z * z)
    reach = z / (number + z * z) * math.sqrt(hits * (number - hits) / number + z * z / 4)
    return max(centre - reach, 0.0), min(centre + reach, 1.0)


def randomisation_test(effects: Effects) -> Randomisation:
    """Studentised, so that it also holds where only the mean effect is zero (Chung and Romano 2013)."""
    z = np.abs(effects.log_risk / effects.standard_error)
    as_large = int((z >= abs(effects.observed_z)).sum())
    return Randomisation((1 + as_large) / (1 + len(z)), float(np.quantile(z, 0.95)))


def randomisation_interval(observed: RelativeRisk, test: Randomisation) -> RelativeRisk:
    """The observed estimate with the critical value of its randomisation distribution in place of 1.96."""
    centre, reach = math.log(observed.estimate), test.critical_value * observed.standard_error
    return observed._replace(low=ratio_at(centre - reach), high=ratio_at(centre + reach), p_value=test.p_value)
