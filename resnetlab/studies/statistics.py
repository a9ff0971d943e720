"""Means, spreads, and when a difference may be called one."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from resnetlab.studies.study import DIRECTION, NOT_REPRODUCED, REPRODUCED


@dataclass(frozen=True)
class Difference:
    """mean(a) − mean(b) with its 95 % confidence interval (Welch's t); infinite with fewer than two seeds."""

    mean: float
    low: float
    high: float

    def verdict_above(self, bound: float) -> str:
        """Whether the difference lies above `bound`: with its interval, with its mean only, or not."""
        return REPRODUCED if self.low > bound else DIRECTION if self.mean > bound else NOT_REPRODUCED

    def verdict_below(self, bound: float) -> str:
        """Whether the difference lies below `bound`: with its interval, with its mean only, or not."""
        return REPRODUCED if self.high < bound else DIRECTION if self.mean < bound else NOT_REPRODUCED

    def __str__(self) -> str:
        if not math.isfinite(self.low):
            return f"{_signed(self.mean)} (one seed: no interval)"
        return f"{_signed(self.mean)} [{_signed(self.low)}, {_signed(self.high)}]"


def _signed(value: float) -> str:
    return f"{round(value, 1) + 0.0:+.1f}"  # adding zero turns -0.0 into +0.0


def difference(a: Sequence[float], b: Sequence[float]) -> Difference:
    """Compare two samples, e.g. the errors of some seeds of two networks."""
    mean = statistics.fmean(a) - statistics.fmean(b)
    if len(a) < 2 or len(b) < 2:
        return Difference(mean, -math.inf, math.inf)
    squared = [statistics.variance(s) / len(s) for s in (a, b)]
    if sum(squared) == 0:
        return Difference(mean, mean, mean)
    from scipy.stats import t  # takes a second to import

    # Welch-Satterthwaite degrees of freedom
    freedom = sum(squared) ** 2 / sum(v**2 / (len(s) - 1) for v, s in zip(squared, (a, b), strict=True))
    half = float(t.ppf(0.975, freedom)) * math.sqrt(sum(squared))
    return Difference(mean, mean - half, mean + half)


def mean_std(values: Sequence[float]) -> str:
    """Mean ± standard deviation as text, or the one value."""
    if len(values) < 2:
        return f"{values[0]:.2f}"
    return f"{statistics.fmean(values):.2f} ± {statistics.stdev(values):.2f}"
