"""Means, spreads, and when a difference may be called one."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from resnetlab.studies.study import DIRECTION, NOT_REPRODUCED, REPRODUCED, VERDICTS


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

    def verdict_within(self, bound: float) -> str:
        """Whether the difference lies between −`bound` and `bound`: with its interval, with its mean only, or not."""
        if -bound < self.low and self.high < bound:
            return REPRODUCED
        return DIRECTION if abs(self.mean) < bound else NOT_REPRODUCED

    def rounded(self, digits: int) -> str:
        """The difference and its interval, if it has one, with so many decimals; the same in every language."""
        ends = [self.mean, self.low, self.high] if math.isfinite(self.low) else [self.mean]
        mean, *interval = (f"{round(end, digits) + 0.0:+.{digits}f}" for end in ends)
        return f"{mean} [{', '.join(interval)}]" if interval else mean

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


@dataclass(frozen=True)
class Ratio:
    """Median of a / b over rounds, with a 95 % interval of the median; infinite with fewer than six rounds."""

    median: float
    low: float
    high: float

    def verdict_above(self, bound: float) -> str:
        """Whether the ratio lies above `bound`: with its interval, with its median only, or not."""
        return REPRODUCED if self.low > bound else DIRECTION if self.median > bound else NOT_REPRODUCED

    def verdict_within(self, factor: float) -> str:
        """Whether it lies within `factor` of 1 on either side: with its interval, with its median only, or not."""
        if self.low >= 1 / factor and self.high <= factor:
            return REPRODUCED
        return DIRECTION if 1 / factor <= self.median <= factor else NOT_REPRODUCED

    def __str__(self) -> str:
        if not math.isfinite(self.high):
            return f"{self.median:.2f} (too few rounds: no interval)"
        return f"{self.median:.2f} [{self.low:.2f}, {self.high:.2f}]"


def ratio(a: Sequence[float], b: Sequence[float]) -> Ratio:
    """Compare times that were taken in turn, round by round: a busy round shifts both, and an odd one moves no median.

    The interval lies between two of the sorted ratios, the sign test's: it needs no shape of their distribution.
    """
    ratios = sorted(x / y for x, y in zip(a, b, strict=True))
    outside = 0  # ratios to leave out at each end
    while 2 * _share_below(outside + 1, len(ratios)) <= 0.05:
        outside += 1
    median = statistics.median(ratios)
    if not outside:
        return Ratio(median, 0.0, math.inf)
    return Ratio(median, ratios[outside - 1], ratios[-outside])


def _share_below(count: int, of: int) -> float:
    """How likely fewer than `count` of so many values lie below their median."""
    return sum(math.comb(of, k) for k in range(count)) / 2**of


def weakest(verdicts: Sequence[str]) -> str:
    """The weakest of some verdicts: that of a claim about all of several things."""
    return max(verdicts, key=VERDICTS.index)
