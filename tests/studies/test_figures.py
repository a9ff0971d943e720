"""Figures: the ticks of logarithmic axes."""

from __future__ import annotations

import pytest

from resnetlab.studies.figures.draw import draw, tick
from resnetlab.studies.figures.figure import Figure, Panel, Series


@pytest.mark.parametrize(
    ("value", "text"), [(1, "1"), (0.001, "0.001"), (1000, "1000"), (1e4, "10⁴"), (1e-12, "10⁻¹²"), (20, "20")]
)
def test_a_tick_of_a_logarithmic_axis(value: float, text: str) -> None:
    assert tick(value) == text


@pytest.mark.parametrize(("x_log", "y_log"), [(True, False), (False, True)])
def test_a_logarithmic_axis_shows_numbers_not_formulas(x_log: bool, y_log: bool) -> None:
    values = [1e-8, 1.0, 1e6]
    line = Series("line", False, 0, values, values, values, values)
    drawn = draw(Figure("f", "c", [Panel("p", "x", "y", [line], x_log=x_log, y_log=y_log)]), "x")
    assert "mathdefault" not in drawn
    assert "10⁻⁸" in drawn
