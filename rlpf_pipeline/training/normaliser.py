"""Running mean and deviation of rewards, so that the weight of the KL means the same whatever the reward's scale."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np


class RunningMoments(NamedTuple):
    """Of all values seen: how many, their mean, the sum of their squared deviations from it."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def including(self, values: np.ndarray) -> RunningMoments:
        """The moments with `values` too: two samples merged in one step (Chan, Golub & LeVeque 1983, eq. 2.1)."""
        count, gap = self.count + len(values), float(values.mean()) - self.mean
        own = float(((values - values.mean()) ** 2).sum())
        return RunningMoments(
            count,
            self.mean + gap * len(values) / count,
            self.squares + own + gap**2 * self.count * len(values) / count,
        )

    def normalised(self, values: np.ndarray) -> np.ndarray:
        """Values less the mean, over the standard deviation; all zero while nothing varies."""
        deviation = math.sqrt(self.squares / self.count)
        return (values - self.mean) / (deviation + 1e-8)
