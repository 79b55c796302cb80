"""Ratios of CTR without a likelihood: the delta method, CUPED, Lin's regression adjustment, advertiser means.

An arm's CTR R = sum k / sum n has, to first order, the influences u_i = (k_i - R n_i) / (R mean n) on log R. Log
ratios of arms then have the variance var(u) / N of each arm, added. Tested against tea-tasting and gbstats.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rlpf_pipeline.abtest.log_binomial import RelativeRisk, risk_from
from rlpf_pipeline.abtest.maximum import Array
from rlpf_pipeline.abtest.sandwich import OWN_LEVEL

Bools = npt.NDArray[np.bool_]


class ArmCounts(NamedTuple):
    """Clicks and impressions of one arm's advertisers, (advertisers,) each."""

    k: Array
    n: Array

    @property
    def ctr(self) -> float:
        return float(self.k.sum() / self.n.sum())

    @property
    def influence(self) -> Array:
        """On the log of the CTR, times the number of advertisers; its mean is 0."""
        return np.asarray((self.k - self.ctr * self.n) / self.k.mean())


def by_arm(k: Array, n: Array, treated: Bools) -> tuple[ArmCounts, ArmCounts]:
    """Control, treatment."""
    return ArmCounts(k[~treated], n[~treated]), ArmCounts(k[treated], n[treated])


def delta_method(k: Array, n: Array, treated: Bools) -> RelativeRisk:
    """Ratio of pooled CTRs (Deng, Knoblich and Lu 2018), variances with N - 1."""
    arms = by_arm(k, n, treated)
    variance = sum(arm.influence.var(ddof=1) / len(arm.k) for arm in arms)
    return risk_from(math.log(arms[1].ctr / arms[0].ctr), math.sqrt(variance))


def cuped(k: Array, n: Array, treated: Bools, covariate: Array) -> RelativeRisk | None:
    """Ratio of pooled CTRs, each minus theta times its arm's deviation of a covariate's mean (Deng et al. 2013).

    theta is the covariance of linearised CTR and covariate over the covariate's variance, both arms together. None
    where an adjusted CTR is not positive.
    """
    ctr = k.sum() / n.sum()
    linear = (k - ctr * n) / n.mean()
    spread = float(covariate.var(ddof=1))
    theta = float(np.cov(linear, covariate)[0, 1]) / spread if spread > 0 else 0.0
    means, variances = [], []
    for arm, x in zip(by_arm(k, n, treated), (covariate[~treated], covariate[treated]), strict=True):
        adjusted = arm.ctr - theta * (x.mean() - covariate.mean())
        residual = arm.influence * arm.ctr - theta * (x - x.mean())
        means.append(adjusted)
        variances.append(residual.var(ddof=1) / len(x) / adjusted**2)
    return risk_from(math.log(means[1] / means[0]), math.sqrt(sum(variances))) if min(means) > 0 else None


def regression_adjusted(k: Array, n: Array, treated: Bools, covariates: Array) -> RelativeRisk | None:
    """Lin's (2013) adjustment of the log CTR ratio: slopes of the influences on centred covariates, arm by arm.

    covariates: (advertisers, columns) without an intercept. Each residual is over what its advertiser leaves of 1, by
    its leverage in its arm's regression (HC3) and by its share of the arm's impressions, which the arm's CTR follows.
    None where that fits every advertiser of an arm by a column of its own.
    """
    centred = covariates - covariates.mean(axis=0)
    log_means, variances = [], []
    for arm, x in zip(by_arm(k, n, treated), (centred[~treated], centred[treated]), strict=True):
        design = np.column_stack([np.ones(len(x)), x])
        pseudo_inverse = np.linalg.pinv(design)
        slopes = pseudo_inverse @ arm.influence
        if len(x) == int(np.linalg.matrix_rank(design)):
            return None
        leverage = (design * pseudo_inverse.T).sum(axis=1)
        left = (1 - leverage) * (1 - arm.n / arm.n.sum())
        residual = (arm.influence - design @ slopes) / np.where(left > OWN_LEVEL, left, np.inf)
        log_means.append(math.log(arm.ctr) + slopes[0])
        variances.append(float(((pseudo_inverse[0] * residual) ** 2).sum()))
    return risk_from(log_means[1] - log_means[0], math.sqrt(sum(variances)))


def advertiser_means(k: Array, n: Array, treated: Bools) -> RelativeRisk:
    """Ratio of the arms' mean CTRs over advertisers, each counting once."""
    ctr = k / n
    arms = ctr[~treated], ctr[treated]
    variance = sum(arm.var(ddof=1) / len(arm) / arm.mean() ** 2 for arm in arms)
    return risk_from(math.log(arms[1].mean() / arms[0].mean()), math.sqrt(variance))


def winsorised(k: Array, n: Array, treated: Bools) -> RelativeRisk:
    """The delta method with impressions capped at their 99 % quantile; an advertiser above it keeps its CTR."""
    weight = np.minimum(1.0, np.quantile(n, 0.99) / n)
    return delta_method(k * weight, n * weight, treated)
