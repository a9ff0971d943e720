"""Numbers and formulas as pages write them."""

from __future__ import annotations

import html
import math
from xml.etree.ElementTree import tostring

NARROW = "\u202f"  # a space at which no line breaks
_DROPPED = ("xmlns", "href", "style", "class", "id")  # HTML knows the first by itself; LaTeX may set the others
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


def formulas(text: str) -> str:
    """A text as HTML; LaTeX between $ and $ becomes MathML. Raises ValueError for an invalid formula."""
    parts = text.split("$")
    if len(parts) % 2 == 0:
        raise ValueError(f"a formula that begins with $ has to end with one: {text[:60]!r}")
    return "".join(mathml(part) if i % 2 else html.escape(part) for i, part in enumerate(parts))


def mathml(latex: str, display: str = "inline") -> str:
    """LaTeX as a MathML element, inline or as a "block". Raises ValueError for an invalid formula."""
    from latex2mathml.converter import convert_to_element

    try:
        element = convert_to_element(latex, display=display)
    except Exception as error:  # as many kinds as there are ways to write no formula
        raise ValueError(f"a formula can't be read: {latex[:60]!r} ({error!r})") from error
    # Not its `convert`, which undoes the escaping of text: a record is a file, and \text{<script>} stays text.
    for part in element.iter():
        part.text = html.unescape(part.text or "")  # signs are written as entities
        for name in _DROPPED:
            part.attrib.pop(name, None)
    return tostring(element, encoding="unicode")
