"""When a difference may be called one."""

from __future__ import annotations

import pytest
from scipy.stats import ttest_ind

from resnetlab.studies.statistics import difference, mean_std
from resnetlab.studies.study import DIRECTION, NOT_REPRODUCED, REPRODUCED


def test_the_interval_is_welchs() -> None:
    a, b = [52.0, 61.0, 40.0, 55.5], [1.0, 0.5, 2.0]
    wanted = ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    found = difference(a, b)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))


def test_verdicts_follow_the_interval_and_not_the_mean_alone() -> None:
    clear, weak = difference([10, 11, 12], [1, 2, 3]), difference([10, 0, 14], [1, 2, 3])
    none = difference([1, 2, 3], [10, 11, 12])
    assert [d.verdict_above(0) for d in (clear, weak, none)] == [REPRODUCED, DIRECTION, NOT_REPRODUCED]
    assert [d.verdict_below(0) for d in (none, clear)] == [REPRODUCED, NOT_REPRODUCED]


def test_one_seed_has_no_interval() -> None:
    found = difference([10], [1])
    assert found.verdict_above(0) == DIRECTION
    assert str(found) == "+9.0 (one seed: no interval)"


def test_equal_seeds_without_spread_are_a_difference_without_spread() -> None:
    assert str(difference([0.0, 0.0], [0.0, 0.0])) == "+0.0 [+0.0, +0.0]"
    assert difference([5, 5], [1, 1]).verdict_above(0) == REPRODUCED


def test_mean_and_deviation_as_text() -> None:
    assert mean_std([1.0, 3.0]) == "2.00 ± 1.41"
    assert mean_std([1.0]) == "1.00"
