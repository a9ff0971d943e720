"""Means, spreads, intervals, and the verdicts based on them: the only place in which a rule becomes a verdict."""

from __future__ import annotations

import math
import statistics
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum


class Verdict(IntEnum):
    """From strong to weak: a claim about several things has the weakest of their verdicts.

    NOT_REPRODUCED occurs only in older records, whose rule had one side; it means contradicted or undecided.
    """

    REPRODUCED = 0  # the interval lies on the claim's side
    DIRECTION = 1  # the interval includes the bound, and the mean lies on the claim's side
    UNDECIDED = 2  # the interval includes the bound, and the mean does not lie on the claim's side
    NOT_JUDGED = 3
    CONTRADICTED = 4  # the interval lies on the other side
    NOT_REPRODUCED = 5
    NOT_TESTED = 6

    @property
    def word(self) -> str:
        """Its word in records."""
        return _RECORDED[self]

    @classmethod
    def of(cls, word: str) -> Verdict:
        """The verdict with this word. Raises ValueError for an unknown word."""
        for verdict, recorded in _RECORDED.items():
            if recorded == word:
                return verdict
        raise ValueError(f"a verdict is one of {', '.join(_RECORDED.values())}")


REPRODUCED, DIRECTION, UNDECIDED, NOT_JUDGED, CONTRADICTED, NOT_REPRODUCED, NOT_TESTED = VERDICTS = tuple(Verdict)
_RECORDED = {
    REPRODUCED: "reproduced",
    DIRECTION: "direction only",
    UNDECIDED: "undecided",
    NOT_JUDGED: "not judged",
    CONTRADICTED: "contradicted",
    NOT_REPRODUCED: "not reproduced",
    NOT_TESTED: "not tested at this scale",
}


def decide(*, shown: bool, on_average: bool, excluded: bool) -> Verdict:
    """The verdict of an interval, which may show the claim, exclude it, or include the bound; then the mean decides.

    on_average: whether the mean, or the median, lies on the claim's side.
    """
    if shown:
        return REPRODUCED
    return CONTRADICTED if excluded else DIRECTION if on_average else UNDECIDED


def weakest(verdicts: Iterable[Verdict]) -> Verdict:
    """The weakest of some verdicts, which is that of a claim about several things."""
    return max(verdicts)


def tally(verdicts: Iterable[Verdict]) -> dict[Verdict, int]:
    """The number of claims with each verdict, from strong to weak, without zeros."""
    counts = Counter(verdicts)
    return {verdict: counts[verdict] for verdict in VERDICTS if counts[verdict]}


@dataclass(frozen=True)
class Difference:
    """mean(a) − mean(b) with its 95 % confidence interval (Welch's t); infinite with fewer than two seeds."""

    mean: float
    low: float
    high: float

    def verdict_above(self, bound: float) -> Verdict:
        """Whether the difference lies above `bound`. An interval that ends at the bound includes it."""
        return decide(shown=self.low > bound, on_average=self.mean > bound, excluded=self.high < bound)

    def verdict_below(self, bound: float) -> Verdict:
        """Whether the difference lies below `bound`. An interval that ends at the bound includes it."""
        return decide(shown=self.high < bound, on_average=self.mean < bound, excluded=self.low > bound)

    def verdict_within(self, bound: float) -> Verdict:
        """Whether the difference lies between −`bound` and `bound`."""
        return decide(
            shown=-bound < self.low and self.high < bound,
            on_average=abs(self.mean) < bound,
            excluded=self.low > bound or self.high < -bound,
        )

    @property
    def has_interval(self) -> bool:
        """Whether there were two seeds or more of both."""
        return math.isfinite(self.low)

    @property
    def side(self) -> int:
        """The side of 0 on which the interval lies: 1 above, −1 below, 0 if it includes 0."""
        return (self.low > 0) - (self.high < 0)

    def rounded(self, digits: int, bound: float = 0.0) -> str:
        """The difference and its interval, if it has one, with `digits` decimals; the same in every language.

        One of the three that would be rounded to 0 or to ±`bound` has up to two more, since its side of them decides a
        verdict.
        """
        mean, low, high = (
            _apart(value, (0.0, bound, -bound), "+", digits) for value in (self.mean, self.low, self.high)
        )
        if not self.has_interval:
            return mean
        return f"{mean} [{low}, {high}]"

    def __str__(self) -> str:
        return self.rounded(1) if self.has_interval else f"{self.rounded(1)} (one seed: no interval)"


def _apart(value: float, bounds: Sequence[float], sign: str, digits: int) -> str:
    """The value with `digits` decimals, or up to two more if it would read as one of the bounds."""
    shown = [_fixed(value, sign, more) for more in range(digits, digits + 3)]
    return next((text for text in shown if float(text) not in bounds), shown[0])


def _fixed(value: float, sign: str, digits: int) -> str:
    return f"{round(value, digits) + 0.0:{sign}.{digits}f}"  # adding zero turns -0.0 into +0.0


def difference(a: Sequence[float], b: Sequence[float]) -> Difference:
    """The difference of two samples, e.g. the errors of some seeds of two networks."""
    mean = statistics.fmean(a) - statistics.fmean(b)
    if len(a) < 2 or len(b) < 2:
        return Difference(mean, -math.inf, math.inf)
    if statistics.pvariance(a) == statistics.pvariance(b) == 0:
        return Difference(mean, mean, mean)
    from scipy.stats import ttest_ind  # takes a second to import

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # about samples without spread, such as a bound
        interval = ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    return Difference(mean, float(interval.low), float(interval.high))


@dataclass(frozen=True)
class Sample:
    """Values over seeds, for a text: their mean ± standard deviation, or the one value."""

    values: Sequence[float]

    @property
    def mean(self) -> float:
        """Their mean alone."""
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float | None:
        """Their standard deviation; None for one value."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def __format__(self, form: str) -> str:
        mean = format(self.mean, form)
        return mean if self.deviation is None else f"{mean} ± {format(self.deviation, form.lstrip('+'))}"


@dataclass(frozen=True)
class Ratio:
    """Median of a / b over rounds, with a 95 % interval of the median; infinite with fewer than six rounds."""

    median: float
    low: float
    high: float

    def verdict_above(self, bound: float) -> Verdict:
        """Whether the ratio lies above `bound`."""
        return decide(shown=self.low > bound, on_average=self.median > bound, excluded=self.high < bound)

    def verdict_within(self, factor: float) -> Verdict:
        """Whether it lies within `factor` of 1 on either side."""
        return decide(
            shown=self.low >= 1 / factor and self.high <= factor,
            on_average=1 / factor <= self.median <= factor,
            excluded=self.high < 1 / factor or self.low > factor,
        )

    def __str__(self) -> str:
        if not math.isfinite(self.high):
            return f"{self.median:.2f} (too few rounds: no interval)"
        low, high = (_apart(end, (1.0,), "", 2) for end in (self.low, self.high))  # its side of 1 decides a verdict
        return f"{self.median:.2f} [{low}, {high}]"


def ratio(a: Sequence[float], b: Sequence[float]) -> Ratio:
    """Compare times that were taken in turn, round by round: a busy round slows both, and the median ignores outliers.

    The interval is that of the sign test, between two of the sorted ratios; it assumes no particular distribution.
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
    """The probability that fewer than `count` of `of` values lie below their true median."""
    return sum(math.comb(of, k) for k in range(count)) / 2**of
