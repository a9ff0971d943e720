"""Formulas as pages write them: signs stay, and no LaTeX of a record becomes markup of the page."""

from __future__ import annotations

import re

import pytest

from resnetlab.report.numbers import formulas


@pytest.mark.parametrize(
    "formula", [r"\text{<script>x</script>}", r"\href{javascript:x}{y}", r'\color{"><script>}{y}', r"\style{x}{y}"]
)
def test_a_formula_of_a_record_is_no_markup(formula: str) -> None:
    made = formulas(f"${formula}$")
    assert made.startswith("<math")
    assert not re.search("<script|href|style=", made)


def test_signs_of_formulas_stay() -> None:
    assert "<mo>&lt;</mo>" in formulas("$a < b$")
    assert "<mo>\u2211</mo>" in formulas(r"$\sum$")
