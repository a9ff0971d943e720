"""When a difference may be called one."""

from __future__ import annotations

import math
import random

import pytest
from scipy.stats import ttest_ind

from resnetlab.studies.frame.statistics import (
    CONTRADICTED,
    DIRECTION,
    NOT_JUDGED,
    REPRODUCED,
    UNDECIDED,
    Difference,
    Ratio,
    Sample,
    Verdict,
    difference,
    ratio,
    weakest,
)


def test_the_interval_is_welchs() -> None:
    a, b = [52.0, 61.0, 40.0, 55.5], [1.0, 0.5, 2.0]
    wanted = ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    found = difference(a, b)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))


def test_one_sample_without_spread_leaves_that_of_the_other() -> None:
    """A deviation of 1 in three seeds: 1/√3 · t(0.975; 2 degrees of freedom) = 2.484 on either side."""
    for found, mean in ((difference([5, 5], [1, 2, 3]), 3), (difference([1, 2, 3], [5, 5]), -3)):
        assert (found.mean, found.low, found.high) == pytest.approx((mean, mean - 2.4841, mean + 2.4841), abs=1e-4)


def test_verdicts_follow_the_interval_and_not_the_mean_alone() -> None:
    clear, weak = difference([10, 11, 12], [1, 2, 3]), difference([10, 0, 14], [1, 2, 3])
    none = difference([1, 2, 3], [10, 11, 12])
    assert [d.verdict_above(0) for d in (clear, weak, none)] == [REPRODUCED, DIRECTION, CONTRADICTED]
    assert [d.verdict_below(0) for d in (none, clear)] == [REPRODUCED, CONTRADICTED]


@pytest.mark.parametrize(
    ("mean", "low", "high", "above", "below", "within"),
    [
        (2.0, 1.1, 2.9, REPRODUCED, CONTRADICTED, CONTRADICTED),  # all beyond the bound, which is 1
        (2.0, 1.0, 3.0, DIRECTION, UNDECIDED, UNDECIDED),  # an interval that ends at the bound includes it
        (2.0, 0.9, 3.1, DIRECTION, UNDECIDED, UNDECIDED),
        (1.0, 0.5, 1.5, UNDECIDED, UNDECIDED, UNDECIDED),  # a mean at the bound lies on neither side
        (1.0, 1.0, 1.0, UNDECIDED, UNDECIDED, UNDECIDED),  # so does a difference without spread
        (0.5, -0.1, 1.1, UNDECIDED, DIRECTION, DIRECTION),
        (0.5, 0.0, 1.0, UNDECIDED, DIRECTION, DIRECTION),
        (0.5, 0.1, 0.9, CONTRADICTED, REPRODUCED, REPRODUCED),
        (-1.0, -1.9, -0.1, CONTRADICTED, REPRODUCED, UNDECIDED),
        (-1.5, -2.0, -1.0, CONTRADICTED, REPRODUCED, UNDECIDED),
        (-1.5, -1.9, -1.1, CONTRADICTED, REPRODUCED, CONTRADICTED),
        (2.0, -math.inf, math.inf, DIRECTION, UNDECIDED, UNDECIDED),  # one seed decides nothing
        (0.0, -math.inf, math.inf, UNDECIDED, DIRECTION, DIRECTION),
    ],
)
def test_a_rule_has_two_sides(
    mean: float, low: float, high: float, above: Verdict, below: Verdict, within: Verdict
) -> None:
    found = Difference(mean, low, high)
    assert (found.verdict_above(1), found.verdict_below(1), found.verdict_within(1)) == (above, below, within)


@pytest.mark.parametrize(
    ("mean", "low", "high", "side"),
    [(1, 0.5, 1.5, 1), (-1, -1.5, -0.5, -1), (1, -0.5, 2.5, 0), (-1, -2.5, 0.5, 0), (1, 0, 2, 0), (-1, -2, 0, 0)],
)
def test_the_side_of_0_is_that_of_the_whole_interval(mean: float, low: float, high: float, side: int) -> None:
    assert Difference(mean, low, high).side == side


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_contradiction_is_reproduction_of_the_contrary(seeds: int) -> None:
    """Whatever the numbers: what shows one side excludes the other, and where one is open so is the other."""
    mirrored = {REPRODUCED: {CONTRADICTED}, CONTRADICTED: {REPRODUCED}} | dict.fromkeys(
        (DIRECTION, UNDECIDED), {DIRECTION, UNDECIDED}
    )
    drawn = random.Random(seeds)
    met = set()
    for spread in (0.1, 0.5, 2.0):
        for _ in range(100):
            a, b = ([drawn.gauss(mean, spread) for _ in range(seeds)] for mean in (drawn.choice((0.0, 1.0)), 0.5))
            found = difference(a, b)
            met.add(found.verdict_above(0))
            assert found.verdict_below(0) in mirrored[found.verdict_above(0)]
            assert difference(b, a).verdict_below(0) == found.verdict_above(0)
    assert met == {REPRODUCED, DIRECTION, UNDECIDED, CONTRADICTED}


def test_what_is_true_is_seldom_contradicted() -> None:
    """With three seeds of normal errors the interval misses the truth on one side in 2.5 % of all cases."""
    drawn = random.Random(0)
    wrong = 0
    for _ in range(1000):
        a, b = ([drawn.gauss(mean, 1.0) for _ in range(3)] for mean in (0.001, 0.0))
        wrong += difference(a, b).verdict_above(0) == CONTRADICTED
    assert wrong <= 40


def test_one_seed_has_no_interval() -> None:
    found = difference([10], [1])
    assert found.verdict_above(0) == DIRECTION
    assert difference([1], [10]).verdict_above(0) == UNDECIDED, "it can't contradict"
    assert str(found) == "+9.0 (one seed: no interval)"
    for one_sided in (difference([10, 11], [1]), difference([10], [1, 2])):
        assert (one_sided.low, one_sided.high) == (-math.inf, math.inf)


def test_equal_seeds_without_spread_are_a_difference_without_spread() -> None:
    assert str(difference([0.0, 0.0], [0.0, 0.0])) == "+0.0 [+0.0, +0.0]"
    assert str(Difference(-0.6, -1.2, -0.046)) == "-0.6 [-1.2, -0.05]"  # the end's sign decides the verdict
    assert Difference(0.03, 0.0004, 0.05).rounded(2) == "+0.03 [+0.0004, +0.05]"
    assert Difference(0.04, -0.3, 0.4).rounded(1) == "+0.04 [-0.3, +0.4]"
    assert Difference(0.0, 0.0, 0.0).rounded(1) == "+0.0 [+0.0, +0.0]"
    assert str(Difference(-0.6, -1.2, -1e-9)) == "-0.6 [-1.2, +0.0]"  # what a sum's rounding leaves of 0
    assert difference([5, 5], [1, 1]).verdict_above(0) == REPRODUCED


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (0.2, 0.96, "+0.5 [+0.2, +0.96]"),  # within 1
        (0.2, 1.04, "+0.5 [+0.2, +1.04]"),  # not within 1
        (-0.998, 0.9996, "+0.5 [-0.998, +1.0]"),  # no nearer than three decimals can tell
        (-1.0, 1.0, "+0.5 [-1.0, +1.0]"),
        (0.04, 2.0, "+0.5 [+0.04, +2.0]"),
    ],
)
def test_an_end_that_is_not_at_the_bound_does_not_read_as_if_it_were(low: float, high: float, text: str) -> None:
    assert Difference(0.5, low, high).rounded(1, bound=1.0) == text


def test_the_end_of_a_ratio_is_told_apart_from_1() -> None:
    assert str(Ratio(1.02, 1.004, 1.1)) == "1.02 [1.004, 1.10]"
    assert str(Ratio(0.9, 0.8, 0.9996)) == "0.90 [0.80, 0.9996]"
    assert str(Ratio(1.02, 1.0, 1.1)) == "1.02 [1.00, 1.10]"


def test_equality_needs_the_whole_interval_within_the_bound() -> None:
    near, wide, far = (
        difference([1.0, 1.01, 0.99], [1, 1.01, 0.99]),
        difference([0, 2, 1.1], [1, 0, 2]),
        difference([3], [1]),
    )
    assert [d.verdict_within(0.1) for d in (near, wide, far)] == [REPRODUCED, DIRECTION, UNDECIDED]


def test_a_difference_as_text_with_so_many_decimals() -> None:
    assert difference([1.25, 1.25], [1, 1]).rounded(2) == "+0.25 [+0.25, +0.25]"
    assert difference([1], [1.25]).rounded(1) == "-0.2", "one seed has no interval"


def test_mean_and_deviation_as_text() -> None:
    assert f"{Sample([1.0, 3.0]):.2f}" == "2.00 ± 1.41"
    assert f"{Sample([1.0]):.2f}" == "1.00"
    assert f"{Sample([-1.0, -3.0]):+.2f}" == "-2.00 ± 1.41"
    assert f"{Sample([1.0, 3.0]):.1f}, {Sample([1.0, 3.0]).mean:.1f}" == "2.0 ± 1.4, 2.0"


def test_a_ratio_of_times_is_a_median_of_rounds() -> None:
    found = ratio([2.0, 4.0, 60.0, 2.2, 1.8, 2.0, 2.0], [1.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    assert found.median == 2
    assert (found.low, found.high) == (1.8, 60), "with seven rounds the interval takes them all"


def test_the_interval_of_a_median_is_the_sign_tests() -> None:
    found = ratio([float(i) for i in range(1, 16)], [1.0] * 15)
    assert (found.low, found.median, found.high) == (4, 8, 12)  # 2 · P(fewer than 4 of 15 heads) = 0.035


def test_few_rounds_give_no_interval() -> None:
    found = ratio([2.0] * 5, [1.0] * 5)
    assert (found.low, found.high) == (0, math.inf)
    assert found.verdict_above(1) == DIRECTION
    assert "no interval" in str(found)


@pytest.mark.parametrize(
    ("values", "above", "within"),
    [
        ((1.2, 1.1, 1.3), REPRODUCED, REPRODUCED),
        ((1.2, 0.9, 1.6), DIRECTION, DIRECTION),
        ((0.9, 0.5, 1.4), UNDECIDED, DIRECTION),
        ((0.5, 0.4, 0.9), CONTRADICTED, UNDECIDED),
        ((0.5, 0.4, 0.6), CONTRADICTED, CONTRADICTED),
        ((1.2, 1.0, 1.5), DIRECTION, REPRODUCED),  # an interval that ends at a bound
        ((0.8, 0.7, 1.0), UNDECIDED, REPRODUCED),
        ((1.6, 1.5, 2.0), REPRODUCED, UNDECIDED),
        ((2.0, 1.9, 2.1), REPRODUCED, CONTRADICTED),
    ],
)
def test_verdicts_of_ratios(values: tuple[float, float, float], above: str, within: str) -> None:
    assert Ratio(*values).verdict_above(1) == above
    assert Ratio(*values).verdict_within(1.5) == within


def test_of_several_verdicts_the_weakest_counts() -> None:
    assert weakest([REPRODUCED, DIRECTION, REPRODUCED]) == DIRECTION
    assert weakest([NOT_JUDGED, CONTRADICTED, DIRECTION]) == CONTRADICTED
    assert weakest([REPRODUCED]) == REPRODUCED
