"""The unit that a reader assembles: what each choice adds to the diagram, the equation, the code and the cost."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from resnetlab.nets.orders import ORDERS
from resnetlab.report.essay.design import trained_depth
from resnetlab.report.essay.facts import Library
from resnetlab.report.essay.values import TEXT, Book, Number
from resnetlab.report.numbers import mathml
from resnetlab.report.page import data_words
from resnetlab.studies.frame.cases import SCALES as MIXING

CHANNELS, MAP = 64, 56  # of the unit whose cost is shown: the paper's, He 2015, Figure 5, left
DEPTH = 56  # of the network named for such units, if none was trained

LAYERS = {"c": "conv 3×3", "b": "BN", "r": "ReLU"}  # by the letters of an order

# How h and F are combined: the equation, the line of code, and its part of a network's name.
MIXES = {
    "add": (r"y = h(x) + F(x)", "y = h(x) + F(x)", ""),
    "half": (r"y = \frac{1}{2}\, h(x) + F(x)", "y = 0.5 * h(x) + F(x)", "Scale(0.5, 1)"),
    "frozen": (r"y = \frac{1}{2}\, h(x) + \frac{1}{2}\, F(x)", "y = 0.5 * h(x) + 0.5 * F(x)", "Scale(0.5, 0.5)"),
    "plain": (r"y = F(x)", "y = F(x)", "Plain()"),
    "exclusive": (
        r"y = (1 - g)\, h(x) + g\, F(x), \quad g = \sigma(W x + b)",
        "g = sigmoid(gate(x))\ny = (1 - g) * h(x) + g * F(x)",
        "ExclusiveGate(-6)",
    ),
    "shortcut_only": (
        r"y = (1 - g)\, h(x) + F(x), \quad g = \sigma(W x + b)",
        "g = sigmoid(gate(x))\ny = (1 - g) * h(x) + F(x)",
        "ShortcutGate(-6)",
    ),
    "dropout": (r"y = \mathrm{dropout}(h(x)) + F(x)", "y = dropout(h(x), 0.5) + F(x)", "DropoutShortcut(0.5)"),
}
GATED = ("exclusive", "shortcut_only")

# The shortcut h: the text of its box, the equation, the line of code, the option, and whether the unit changes sizes.
SHORTCUTS: dict[str, tuple[str, str, str, str, bool]] = {
    "identity": ("x", "h(x) = x", "def h(x): return x", "A", False),
    "pad": ("A: 0", r"h(x) = [x, 0]", "def h(x): return pad(x[:, :, ::2, ::2], channels=128)", "A", True),
    "project": ("1×1", r"h(x) = W_s\, x", "def h(x): return bn(conv1x1(x, 128, stride=2))", "B", True),
    "everywhere": ("1×1", r"h(x) = W_s\, x", "def h(x): return bn(conv1x1(x, 64))", "C", False),
}


def cost(mix: str, shortcut: str) -> tuple[int, int]:
    """Weights and multiply-adds of a unit's convolutions: those of the branch and of any projection and gate."""
    _, _, _, option, changes = SHORTCUTS[shortcut]
    after, pixels = (2 * CHANNELS, (MAP // 2) ** 2) if changes else (CHANNELS, MAP**2)
    weights = 9 * CHANNELS * after + 9 * after * after
    if option != "A" and mix != "plain":
        weights += CHANNELS * after
    if mix in GATED:
        weights += CHANNELS * after
    return weights, weights * pixels


def network(mix: str, shortcut: str, order: str, depth: int = DEPTH) -> str:
    """The network of such units, as the command line calls it."""
    options = [f"mix={MIXES[mix][2]}"] if MIXES[mix][2] else []
    options += [f"order='{order}'"] if order != "post" else []
    option = SHORTCUTS[shortcut][3]
    options += [f"shortcut='{option}'"] if option != "A" and mix != "plain" else []
    name = f"cifar_resnet{depth}"
    return f"{name}({', '.join(options)})" if options else name


def choices(library: Library) -> dict[str, Any]:
    """Everything that the reader can choose, for the template and the script."""
    errors = _errors(library)
    usual = max((one["depth"] for one in errors.values()), default=DEPTH)
    return {
        "orders": {name: {"branch": [*o.each, *o.last], "after": list(o.postact)} for name, o in ORDERS.items()},
        "layers": LAYERS,
        "mixes": {name: {"math": mathml(math), "code": code} for name, (math, code, _) in MIXES.items()},
        "shortcuts": {
            name: {"box": box, "math": mathml(math), "code": code}
            for name, (box, math, code, _, _) in SHORTCUTS.items()
        },
        "costs": {f"{m} {s}": cost(m, s) for m in MIXES for s in SHORTCUTS},
        "networks": {
            key: network(m, s, o, errors[key]["depth"] if key in errors else usual)
            for m in MIXES
            for s in SHORTCUTS
            for o in ORDERS
            for key in [f"{m} {s} {o}"]
        },
        "errors": errors,
    }


def _errors(library: Library) -> dict[str, dict[str, Any]]:
    """Test errors of the networks that were trained, where the unit differs from the original in one thing.

    Each error comes with its depth and data, as records differ in both. Of a study's depths, the one nearest to DEPTH
    counts.
    """
    found: dict[str, dict[str, Any]] = {}
    for study, (depth_in, cases) in _TRAINED.items():
        try:
            book = library.best(study)
            rows = book.rows(0).items()
            for name, change in cases.items():
                fitting = [(depth, place) for place, cells in rows if (depth := depth_in(book, name, cells))]
                if fitting:
                    depth, place = min(fitting, key=lambda row: abs(row[0] - DEPTH))
                    one = _error(book, book.cell(0, place, "test error (%)"), depth)
                    for key in _keys(**change):
                        found.setdefault(key, one)
        except (LookupError, ValueError):
            continue
    return found


def _error(book: Book, number: Number, depth: int) -> dict[str, Any]:
    """An error for the page: its value, its place, and words that say which network has it."""
    about = TEXT("things.unit.error", deep=depth, data=data_words(book.record))
    words = {"en": about.en, "zh": about.zh}
    return {"value": number.value, "record": number.record, "at": number.at, "depth": depth, "about": words}


def _keys(mix: str = "add", shortcut: str = "identity", order: str = "post") -> list[str]:
    """The keys of the choices that a network stands for; where sizes differ, the original pads with zeros."""
    names = ("identity", "pad") if shortcut == "identity" else (shortcut,)
    return [f"{mix} {name} {order}" for name in names]


def _of_scaling(book: Book, name: str, cells: list[str]) -> int | None:
    return trained_depth(book) if cells[0] == name else None


def _of_mixing(book: Book, name: str, cells: list[str]) -> int | None:
    return MIXING[book.record.scale].depth if cells[0] == name else None


def _of_shortcuts(book: Book, name: str, cells: list[str]) -> int | None:
    match = re.fullmatch(rf"cifar_resnet(\d+)\(shortcut={name}\)", cells[0])
    return int(match[1]) if match else None


def _of_orders(book: Book, name: str, cells: list[str]) -> int | None:
    match = re.fullmatch(r"(\d+), basic", cells[2])
    return int(match[1]) if match and cells[0] == name else None


# By study: the depth of the network in a row, if the row is of a case, and each case's change of the unit.
_TRAINED: dict[str, tuple[Callable[[Book, str, list[str]], int | None], dict[str, dict[str, str]]]] = {
    "scaling": (
        _of_scaling,
        {
            "Add": {},
            "Scale(0.5, 1)": {"mix": "half"},
            "Scale(0.5, 0.5)": {"mix": "frozen"},
            "Plain": {"mix": "plain"},
        },
    ),
    "mixing": (
        _of_mixing,
        {
            "exclusive gate, b = −6": {"mix": "exclusive"},
            "shortcut-only gate, b = −6": {"mix": "shortcut_only"},
            "dropout 0.5": {"mix": "dropout"},
        },
    ),
    "shortcuts": (_of_shortcuts, {"B": {"shortcut": "project"}, "C": {"shortcut": "everywhere"}}),
    "orders": (
        _of_orders,
        {
            "BN after addition": {"order": "bn_after_add"},
            "ReLU before addition": {"order": "relu_before_add"},
            "ReLU-only pre-activation": {"order": "relu_preact"},
            "full pre-activation": {"order": "full_preact"},
        },
    ),
}
