"""The unit that a reader builds: what each choice adds to the diagram, the equation, the code and the cost."""

from __future__ import annotations

from typing import Any

from resnetlab.report.essay.library import Library
from resnetlab.report.essay.values import Book
from resnetlab.report.formulas import mathml
from resnetlab.studies.frame.text import both

CHANNELS, MAP = 64, 56  # of the unit whose cost is shown: the paper's, He 2015, Figure 5, left
DEPTH = 56  # of the networks whose errors stand beside it

# The layers of F in order, and what follows the sum, as letters: c convolution, b batch norm, r ReLU (He 2016, Fig. 4).
ORDERS = {
    "post": ("cbrcb", "r"),
    "bn_after_add": ("cbrc", "br"),
    "relu_before_add": ("cbrcbr", ""),
    "relu_preact": ("rcbrcb", ""),
    "full_preact": ("brcbrc", ""),
}
LAYERS = {"c": "conv 3×3", "b": "BN", "r": "ReLU"}

# How h and F meet: its equation, its line of code, and what it is called in the name of a network.
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

# The shortcut h: what its box says, its equation, its line of code, its option, and whether the unit changes sizes.
SHORTCUTS: dict[str, tuple[str, str, str, str, bool]] = {
    "identity": ("x", "h(x) = x", "def h(x): return x", "A", False),
    "pad": ("A: 0", r"h(x) = [x, 0]", "def h(x): return pad(x[:, :, ::2, ::2], channels=128)", "A", True),
    "project": ("1×1", r"h(x) = W_s\, x", "def h(x): return bn(conv1x1(x, 128, stride=2))", "B", True),
    "everywhere": ("1×1", r"h(x) = W_s\, x", "def h(x): return bn(conv1x1(x, 64))", "C", False),
}


def cost(mix: str, shortcut: str) -> tuple[int, int]:
    """Weights and multiply-adds of a unit's convolutions: the branch, the projection if there is one, and the gate."""
    _, _, _, option, changes = SHORTCUTS[shortcut]
    after, pixels = (2 * CHANNELS, (MAP // 2) ** 2) if changes else (CHANNELS, MAP**2)
    weights = 9 * CHANNELS * after + 9 * after * after
    if option != "A" and mix != "plain":
        weights += CHANNELS * after
    if mix in GATED:
        weights += CHANNELS * after
    return weights, weights * pixels


def network(mix: str, shortcut: str, order: str) -> str:
    """The network of such units, as the command line calls it."""
    options = [f"mix={MIXES[mix][2]}"] if MIXES[mix][2] else []
    options += [f"order='{order}'"] if order != "post" else []
    option = SHORTCUTS[shortcut][3]
    options += [f"shortcut='{option}'"] if option != "A" and mix != "plain" else []
    name = f"cifar_resnet{DEPTH}"
    return f"{name}({', '.join(options)})" if options else name


def choices(library: Library) -> dict[str, Any]:
    """All that the reader can choose, for the template and the script."""
    return {
        "orders": {name: {"branch": list(branch), "after": list(after)} for name, (branch, after) in ORDERS.items()},
        "layers": LAYERS,
        "mixes": {name: {"math": mathml(math), "code": code} for name, (math, code, _) in MIXES.items()},
        "shortcuts": {
            name: {"box": box, "math": mathml(math), "code": code}
            for name, (box, math, code, _, _) in SHORTCUTS.items()
        },
        "costs": {f"{m} {s}": cost(m, s) for m in MIXES for s in SHORTCUTS},
        "networks": {f"{m} {s} {o}": network(m, s, o) for m in MIXES for s in SHORTCUTS for o in ORDERS},
        "errors": _errors(library),
        "depth": DEPTH,
    }


def _errors(library: Library) -> dict[str, dict[str, Any]]:
    """Test errors of the networks that were trained, where the unit differs from the original in one thing."""
    found: dict[str, dict[str, Any]] = {}

    def keep(
        book: Book, row: int, cells: list[str], mix: str = "add", shortcut: str = "identity", order: str = "post"
    ) -> None:
        header = [both(one).en for one in book.at(("tables", 0, "header"))]
        place = ("tables", 0, "rows", row, header.index("test error (%)"))
        number = book.number(place, ".1f")
        one = {"value": number.value, "record": number.record, "at": number.at, "data": book.record.scale}
        for name in ("identity", "pad") if shortcut in ("identity", "pad") else (shortcut,):
            found.setdefault(f"{mix} {name} {order}", one)

    for study, cases in _TRAINED.items():
        try:
            book = library.best(study)
            for i, row in enumerate(book.at(("tables", 0, "rows"))):
                cells = [both(cell).en for cell in row]
                for fits, change in cases:
                    if fits(cells):
                        keep(book, i, cells, **change)
        except (LookupError, ValueError):
            continue
    return found


def _starts(name: str) -> Any:
    return lambda cells: cells[0] == name


def _deep(name: str) -> Any:
    return lambda cells: cells[0] == name and cells[2].startswith(f"{DEPTH},")


_TRAINED: dict[str, list[tuple[Any, dict[str, str]]]] = {
    "scaling": [
        (_starts("Add"), {}),
        (_starts("Scale(0.5, 1)"), {"mix": "half"}),
        (_starts("Scale(0.5, 0.5)"), {"mix": "frozen"}),
        (_starts("Plain"), {"mix": "plain"}),
    ],
    "mixing": [
        (_starts("exclusive gate, b = −6"), {"mix": "exclusive"}),
        (_starts("shortcut-only gate, b = −6"), {"mix": "shortcut_only"}),
        (_starts("dropout 0.5"), {"mix": "dropout"}),
    ],
    "shortcuts": [
        (_starts(f"cifar_resnet{DEPTH}(shortcut=B)"), {"shortcut": "project"}),
        (_starts(f"cifar_resnet{DEPTH}(shortcut=C)"), {"shortcut": "everywhere"}),
    ],
    "orders": [
        (_deep("BN after addition"), {"order": "bn_after_add"}),
        (_deep("ReLU before addition"), {"order": "relu_before_add"}),
        (_deep("ReLU-only pre-activation"), {"order": "relu_preact"}),
        (_deep("full pre-activation"), {"order": "full_preact"}),
    ],
}
