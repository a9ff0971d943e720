"""Wilson's interval against published values and SciPy's."""

from __future__ import annotations

import pytest
from scipy.stats import binomtest

from resnetlab.measuring.intervals import wilson


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_published_values(count: int, total: int, low: float, high: float) -> None:
    """Newcombe 1998, Table I, method 3."""
    assert wilson(count, total) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@pytest.mark.parametrize(("count", "total"), [(0, 1), (1, 1), (3, 7), (9173, 10_000), (50_000, 50_000)])
def test_scipy_gives_the_same(count: int, total: int) -> None:
    theirs = binomtest(count, total).proportion_ci(0.95, method="wilson")
    assert wilson(count, total) == (pytest.approx(theirs.low, abs=1e-12), pytest.approx(theirs.high, abs=1e-12))


def test_ends_of_the_range() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    for total in range(1, 200):  # exactly, whatever rounding would make of some of them
        assert (wilson(0, total)[0], wilson(total, total)[1]) == (0.0, 1.0)
    for count, total in ((6, 5), (-1, 5)):
        with pytest.raises(ValueError, match=f"{count} of 5"):
            wilson(count, total)
