"""LaTeX as MathML, which browsers show without a script."""

from __future__ import annotations

import html


def formulas(text: str) -> str:
    """A text as HTML; LaTeX between $ and $ becomes MathML. Raises ValueError for an invalid formula."""
    parts = text.split("$")
    if len(parts) % 2 == 0:
        raise ValueError(f"a formula that begins with $ has to end with one: {text[:60]!r}")
    return "".join(mathml(part) if i % 2 else html.escape(part) for i, part in enumerate(parts))


def mathml(latex: str, display: str = "inline") -> str:
    """LaTeX as a MathML element, inline or as a "block". Raises ValueError for an invalid formula."""
    from latex2mathml.converter import convert

    try:
        found = convert(latex, display=display)
    except Exception as error:  # as many kinds as there are ways to write no formula
        raise ValueError(f"a formula can't be read: {latex[:60]!r} ({error!r})") from error
    return found.replace(' xmlns="http://www.w3.org/1998/Math/MathML"', "")  # HTML knows it by itself
