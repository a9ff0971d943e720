"""What the essay quotes: numbers that the papers print, citations, and arithmetic that needs no record."""

from __future__ import annotations

from typing import Any

from resnetlab.report.essay.unit import CHANNELS, MAP
from resnetlab.report.essay.values import TEXT, Cite, Formula, Number

ADDRESSES = {
    "he2015": "https://arxiv.org/abs/1512.03385",
    "he2016": "https://arxiv.org/abs/1603.05027",
    "balduzzi": "https://arxiv.org/abs/1702.08591",
    "highway": "https://arxiv.org/abs/1505.00387",
    "veit": "https://arxiv.org/abs/1605.06431",
}

_TABLE_3, _TABLE_1 = "He et al. 2015, Table 3", "He et al. 2016, Table 1"
PRINTED = {
    "p_34": (34, ".0f", _TABLE_3),
    "p_a": (25.03, ".2f", _TABLE_3),
    "p_b": (24.52, ".2f", _TABLE_3),
    "p_c": (24.19, ".2f", _TABLE_3),
    "p_110": (110, ".0f", _TABLE_1),
    "p_conv": (12.22, ".2f", _TABLE_1),
    "p_add": (6.61, ".2f", _TABLE_1),
    "p_gate": (8.70, ".2f", _TABLE_1),
    "p_shortcut_gate": (6.91, ".2f", _TABLE_1),
    "p_152": (152, ".0f", "He et al. 2015, Table 1"),
    "year2015": (2015, ".0f", "He et al. 2015"),
}

PARAGRAPHS = ("7", "8")  # formulas that stand alone

X, BEFORE, AFTER = 5.0, 0.1, 0.2  # the usual example: F goes from 0.1 to 0.2 while x = 5
ARITHMETIC = {
    "x": (X, ".0f"),
    "f_before": (BEFORE, ".1f"),
    "f_after": (AFTER, ".1f"),
    "h_before": (X + BEFORE, ".1f"),
    "h_after": (X + AFTER, ".1f"),
    "f_percent": (100 * (AFTER - BEFORE) / BEFORE, ".0f"),
    "h_percent": (100 * (AFTER - BEFORE) / (X + BEFORE), ".2f"),
    "unit_channels": (CHANNELS, ".0f"),
    "unit_map": (MAP, ".0f"),
    "map": (MAP, ".0f"),
}


def quotations() -> dict[str, Any]:
    """Values that any text of the essay may use."""
    values: dict[str, Any] = {key: Number(v, form, printed=source) for key, (v, form, source) in PRINTED.items()}
    values |= {key: Number(v, form, printed="arithmetic") for key, (v, form) in ARITHMETIC.items()}
    for key in TEXT.leaves:
        group, _, name = key.partition(".")
        if group == "cites":
            values[f"cite_{name}"] = Cite(TEXT(key), ADDRESSES[name.partition("_")[0]])
        elif group == "formulas":
            values[f"eq_{name}"] = Formula(TEXT.leaves[key]["en"], "block" if name in PARAGRAPHS else "inline")
    return values
