"""Numbers as pages write them."""

from __future__ import annotations

import math

NARROW = "\u202f"  # a space at which no line breaks
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def scientific(value: float) -> str:
    """A number as a page writes it, with three digits: 0.0581, 13.1, 7.45 × 10⁻⁹."""
    if value == 0 or not math.isfinite(value) or 1e-3 <= abs(value) < 1e5:
        return f"{float(f'{value:.3g}'):g}".replace("-", "−")
    mantissa, _, power = f"{value:.2e}".partition("e")
    raised = str(int(power)).translate(_RAISED)
    return f"{float(mantissa):g}{NARROW}×{NARROW}10{raised}".replace("-", "−")


def written(value: float, form: str) -> str:
    """A value in a format: one of str.format, or "sci"."""
    return scientific(value) if form == "sci" else f"{value:{form}}".replace("-", "−")
