"""What an experiment could see, or will: power, minimum detectable effect, exaggeration, sample size.

All from the standard error of the log relative risk, two-sided Wald test. It falls with the root of the advertisers.

    needed_advertisers(0.05, standard_error=0.0299, advertisers=34_849)
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from rlpf_pipeline.abtest import normal
from rlpf_pipeline.abtest.frames import MINIMUM_ADVERTISERS
from rlpf_pipeline.abtest.log_binomial import LARGEST_LOG
from rlpf_pipeline.abtest.maximum import Array
from rlpf_pipeline.abtest.ratio import ArmCounts
from rlpf_pipeline.abtest.sequential import effective_number
from rlpf_pipeline.errors import UserError

STUDY_EFFECT = 0.067
"""The study's relative change of CTR: +6.7 %."""
CURVE_EFFECTS = (0.01, 0.02, 0.03, 0.05, STUDY_EFFECT, 0.1, 0.15, 0.2)
SMALLEST, LARGEST = 1e-9, 1e3
"""Of what is planned with: beyond them no number means anything."""
BOOTSTRAP, BOOTSTRAP_SEED = 200, 1
CURVE_SIZES = (0.25, 0.5, 1.0, 2.0, 4.0)


class Past(NamedTuple):
    """What advertisers before an experiment say of one on advertisers like them, without covariates."""

    advertisers: int
    """With impressions."""
    effective_advertisers: float
    """Kish: (sum n)^2 / sum n^2 over impressions n."""
    standard_error: float
    """Of the log relative risk, if the experiment has as many."""
    cautious_error: float
    """What it may well be: large advertisers make most of it, and a sample has few of them, so that the past's error is
    more often too small. Upper end of the basic bootstrap, 95 %, by the log."""


class Power(NamedTuple):
    standard_error: float
    """Of the log relative risk, as realised."""
    minimum_detectable_effect: float
    """Relative change of CTR that is found with 80 % probability; 0.087 is +8.7 %."""
    study_effect: float
    power_at_study_effect: float
    """Probability of p < 0.05 if the true relative change is `study_effect`."""
    exaggeration: float
    """Type M (Gelman and Carlin 2014): how many times too large a significant log relative risk is on average, if the
    true relative change is `study_effect`."""
    sign_risk: float
    """Type S: probability that a significant estimate then has the wrong sign."""


class CurvePoint(NamedTuple):
    advertisers: int
    standard_error: float
    minimum_detectable_effect: float
    powers: tuple[float, ...]
    """At CURVE_EFFECTS."""


class Plan(NamedTuple):
    """A power curve before the experiment."""

    effect: float
    level: float
    power: float
    treatment_share: float | None
    """Where the error is of pre-period data; None: the shares that gave it."""
    needed_advertisers: int
    """In all, for `power` at `effect`."""
    past: Past | None
    """What it is made from; None: from a known standard error."""
    cautious_advertisers: int | None
    """By the past's cautious error."""
    curve: tuple[CurvePoint, ...]
    curve_effects: tuple[float, ...]


def realised_power(standard_error: float) -> Power:
    exaggeration, sign_risk = significant_errors(STUDY_EFFECT, standard_error)
    return Power(
        standard_error=standard_error,
        minimum_detectable_effect=minimum_detectable_effect(standard_error),
        study_effect=STUDY_EFFECT,
        power_at_study_effect=power_at(STUDY_EFFECT, standard_error),
        exaggeration=exaggeration,
        sign_risk=sign_risk,
    )


def power_at(effect: float, standard_error: float, level: float = 0.95) -> float:
    """Probability that the interval of `level` leaves out no effect, when the relative change is `effect`."""
    shift = math.log1p(effect) / standard_error
    critical = normal.quantile(0.5 + level / 2)
    return normal.cumulative(shift - critical) + normal.cumulative(-shift - critical)


def minimum_detectable_effect(standard_error: float, power: float = 0.8, level: float = 0.95) -> float:
    """exp((z_level + z_power) standard_error) - 1, the usual form that neglects rejecting on the wrong side."""
    log_ratio = (normal.quantile(0.5 + level / 2) + normal.quantile(power)) * standard_error
    return math.expm1(min(log_ratio, LARGEST_LOG))


def significant_errors(effect: float, standard_error: float) -> tuple[float, float]:
    """Type M and type S of an estimate significant at 5 %, at the true relative change `effect`, in closed form.

    With Z ~ N(d, 1), c the critical value: E|Z| over Z > c is d P + phi(c - d), over Z < -c it is -d Q + phi(c + d).
    """
    shift = abs(math.log1p(effect)) / standard_error
    critical = normal.quantile(0.975)
    above, below = normal.cumulative(shift - critical), normal.cumulative(-shift - critical)
    mean = shift * (above - below) + density(critical - shift) + density(critical + shift)
    return mean / (above + below) / shift, below / (above + below)


def density(z: float) -> float:
    return math.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def needed_advertisers(
    effect: float, standard_error: float, advertisers: int, power: float = 0.8, level: float = 0.95
) -> int:
    """Advertisers to find `effect` with `power`, if `advertisers` give `standard_error`; enough to analyse."""
    wanted = abs(math.log1p(effect)) / (normal.quantile(0.5 + level / 2) + normal.quantile(power))
    return max(MINIMUM_ADVERTISERS, math.ceil(advertisers * (standard_error / wanted) ** 2))


def past_of(clicks: Array, impressions: Array, treatment_share: float = 0.5) -> Past:
    """Pre-period counts as a plan takes them. The error is the root of mean u^2 (1 / s + 1 / (1 - s)) / N, u the
    influence of an advertiser on the log CTR and s the share of treatment.

    Raises UserError where there are fewer than 10 advertisers with impressions, no clicks, or the same CTR everywhere.
    """
    shown = impressions > 0
    k, n = clicks[shown], impressions[shown]
    if len(k) < MINIMUM_ADVERTISERS or k.sum() == 0:
        raise UserError(
            f"{len(k)} advertisers with {k.sum():.0f} clicks are too few to plan from: at least "
            f"{MINIMUM_ADVERTISERS}, and clicks."
        )
    arms = 1 / treatment_share + 1 / (1 - treatment_share)
    error = float(np.sqrt((ArmCounts(k, n).influence ** 2).mean() * arms / len(k)))
    if error < SMALLEST:
        raise UserError(
            f"All {len(k)} advertisers have the same click-through rate: there is nothing to plan from. "
            "Check how the data were made."
        )
    moments, rng = np.column_stack([k, n, k * k, k * n, n * n]), np.random.default_rng(BOOTSTRAP_SEED)
    samples = np.array([rng.poisson(1.0, len(k)) @ moments for _ in range(BOOTSTRAP)])
    smallest = float(np.quantile(errors_of(samples[samples[:, 0] > 0], arms), 0.05))
    return Past(len(k), effective_number(n), error, error**2 / max(smallest, SMALLEST))


def errors_of(sums: Array, arms: float) -> Array:
    """Standard errors, (samples,), of sums over advertisers of k, n, k^2, k n and n^2, (samples, 5)."""
    k, n, kk, kn, nn = sums.T
    ctr = k / n
    return np.asarray(np.sqrt(np.maximum(kk - 2 * ctr * kn + ctr**2 * nn, 0.0) * arms) / k)


def plan(
    effect: float,
    standard_error: float,
    advertisers: int,
    power: float = 0.8,
    level: float = 0.95,
    treatment_share: float | None = None,
    past: Past | None = None,
) -> Plan:
    """Power by number of advertisers, if `advertisers` give `standard_error`. Raises UserError where impossible."""
    possible = -1 < effect <= LARGEST and abs(effect) >= SMALLEST and 0 < standard_error <= LARGEST and advertisers > 0
    shares = (power, level, 0.5 if treatment_share is None else treatment_share)
    if not possible or any(not SMALLEST <= share <= 1 - SMALLEST for share in shares):
        raise UserError(
            "An effect above -100 % that is not 0, a standard error and advertisers above 0, and power, level and "
            f"treatment share between 0 and 1 are needed; shares no nearer to 0 or 1 than {SMALLEST:g}, an effect or "
            f"error not above {LARGEST:g}."
        )
    if power <= 1 - level:
        raise UserError(
            f"A power of {power:g} is that of no effect at all at the level {level:g}, which rejects with probability "
            f"{1 - level:g}. Ask for more power: 0.8 is usual."
        )
    points = []
    for factor in CURVE_SIZES:
        size = max(2, round(factor * advertisers))
        error = standard_error * math.sqrt(advertisers / size)
        powers = tuple(power_at(at, error, level) for at in CURVE_EFFECTS)
        points.append(CurvePoint(size, error, minimum_detectable_effect(error, power, level), powers))
    needed = needed_advertisers(effect, standard_error, advertisers, power, level)
    cautious = needed_advertisers(effect, past.cautious_error, advertisers, power, level) if past else None
    return Plan(effect, level, power, treatment_share, needed, past, cautious, tuple(points), CURVE_EFFECTS)
