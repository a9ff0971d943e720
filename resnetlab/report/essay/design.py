"""The shortcut's options, the bottleneck and x/2: what the records say about each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from resnetlab.report.essay.facts import LOST, Facts, Library, panel_of, seeds_of, series_at
from resnetlab.report.essay.values import Book, Place, named, number_in, ratio, where
from resnetlab.report.page import data_words
from resnetlab.studies.figures.figure import Panel, Series
from resnetlab.studies.frame.text import both

OPTIONS = ("A", "B", "C")
SCALES = {"Add": 1.0, "Scale(1.1, 1)": 1.1, "Scale(0.9, 1)": 0.9, "Scale(0.5, 1)": 0.5}  # as tables call them


def shortcuts(library: Library) -> Facts:
    """Errors and costs of the three options for shortcuts, at each depth that was trained."""
    book = library.best("shortcuts")
    by_depth: dict[int, dict[str, Place]] = {}
    for place, row in book.rows(0).items():
        name, _, option = row[0].partition("(shortcut=")
        depth, option = int(number_in(name)), option[:1] or "A"
        by_depth.setdefault(depth, {})["plain" if "plain" in name else option] = place
    deep = max(by_depth)
    values: dict[str, Any] = {"seeds": seeds_of(book)}
    test = "test error (%)"
    values |= {f"test_{name.lower()}": book.cell(0, place, test) for name, place in by_depth[deep].items()}
    values["deep"] = book.number((*by_depth[deep]["A"], 0), ".0f")
    last = len(book.values["tables"]) - 1  # the larger network's costs
    costs = {option: book.row(last, _with_option(option)) for option in OPTIONS}
    for option, place in costs.items():
        name = option.lower()
        values[f"parameters_{name}"] = book.cell(last, place, "parameters", ",.0f")
        values[f"kept_{name}"] = book.cell(last, place, "kept for the backward pass (MiB)")
        values[f"time_{name}"] = book.cell(last, place, "time (ms)", ".0f")
    lines = []
    for rank, name in enumerate(("plain", *OPTIONS)):
        places = [(depth, found[name]) for depth, found in sorted(by_depth.items()) if name in found]
        errors = [book.cell(0, place, test).value for _, place in places]
        lines.append(Series(name, False, rank, [float(d) for d, _ in places], errors, errors, errors))
    panel = Panel("", "layers", "test error (%)", lines, y_log=True)
    fits = values["test_plain"].value > max(values[f"test_{o.lower()}"].value for o in OPTIONS) + LOST
    fits = fits and values["test_c"].value > values["test_a"].value and values["kept_c"].value > values["kept_a"].value
    return Facts(book, values, fits, (panel,))


def _with_option(option: str) -> Callable[[list[str]], bool]:
    return lambda cells: f"shortcut={option}" in cells[0]


def bottleneck(library: Library) -> Facts:
    """Weights, multiply-adds and times of the bottleneck and of the pairs beside it, and of whole networks."""
    book = library.best("bottleneck")
    units = {name: book.row(0, named(name)) for name in ("pair-256", "pair-64", "bottleneck")}
    values: dict[str, Any] = {}
    for name, place in units.items():
        key = name.replace("-", "_")
        values[f"{key}_weights"] = book.cell(0, place, "weights", ",.0f")
        values[f"{key}_time"] = book.cell(0, place, "time (ms)")
    for name in ("resnet152_v1", "vgg19"):
        place = book.row(1, named(name))
        values[f"{name}_adds"] = book.cell(1, place, "multiply-adds (M)", ",.0f")
        values[f"{name}_time"] = book.cell(1, place, "time (ms)", ".0f")
    values |= {
        "wide": book.number((*units["pair-256"], 0), ".0f"),
        "narrow": book.number((*units["pair-64"], 0), ".0f"),
        "batch": book.number(("note",), ".0f"),
        "ratio": ratio(values["pair_256_weights"], values["bottleneck_weights"], ".2f"),
        "ratio_64": ratio(values["pair_64_weights"], values["bottleneck_weights"], ".2f"),
        "time_ratio": ratio(values["pair_256_time"], values["bottleneck_time"], ".1f"),
    }
    wide, small, narrow = (values[f"{name}_time"].value for name in ("pair_256", "bottleneck", "pair_64"))
    fits = wide > small > narrow and values["vgg19_time"].value > values["resnet152_v1_time"].value
    return Facts(book, values, fits)


def trained_depth(book: Book) -> int:
    """The depth of the nets that the study `scaling` trained, from the caption of its table of errors."""
    return int(number_in(both(book.at(("tables", 0, "caption"))).en.partition(",")[2]))


def product(library: Library) -> Facts:
    """What shortcuts alone leave of the gradient, by λ and the number of units, beside the product of λ."""
    book = library.best("scaling")
    alone = "shortcuts only, pre-activation"
    measured: list[dict[str, Any]] = []
    for place, row in book.rows(1).items():
        if row[2] in SCALES:
            one = book.cell(1, place, alone, "sci")
            layers, units = int(number_in(row[0])), int(number_in(row[1]))
            measured.append(
                {"layers": layers, "units": units, "scale": SCALES[row[2]], "value": one.value, "at": one.at}
            )
    depth, deepest = trained_depth(book), max(one["layers"] for one in measured)
    half, deep_half = (book.row(1, where((0, str(d)), (2, "Scale(0.5, 1)"))) for d in (depth, deepest))
    values = {
        "deep": book.number((*half, 0), ".0f"),
        "units": book.number((*half, 1), ".0f"),
        "half": book.cell(1, half, alone, "sci"),
        "deepest": book.number((*deep_half, 0), ".0f"),
        "deepest_units": book.number((*deep_half, 1), ".0f"),
        "deepest_half": book.cell(1, deep_half, alone, "sci"),
        "off": book.number(("rows", 0, "measured", "en"), "sci"),
        "seeds": seeds_of(book),
    }
    lines = []
    most = max(one["units"] for one in measured)
    for rank, scale in enumerate(sorted(SCALES.values(), reverse=True)):
        xs = [float(n) for n in range(most + 1)]
        theory = [scale**n for n in range(most + 1)]
        lines.append(Series(f"λ = {scale:g} theory", True, rank, xs, theory, theory, theory))
        points = sorted((one["units"], one["value"]) for one in measured if one["scale"] == scale)
        at, ys = [float(n) for n, _ in points], [y for _, y in points]
        lines.append(Series(f"λ = {scale:g} measured", False, rank, at, ys, ys, ys, marks=True))
    panel = Panel("", "units passed", "what is left of the gradient", lines, y_log=True)
    data = {"record": book.file, "measured": measured, "depth": depth, "deepest": deepest}
    return Facts(book, values, values["off"].value < 1e-3, (panel,), data=data)


def left(library: Library) -> Facts:
    """What happens when the shortcut is scaled: to the whole gradient, and how such nets and gated ones train."""
    book, mixing = library.best("scaling"), library.best("mixing")
    depth = str(trained_depth(book))
    names = {"add": "Add", "half": "Scale(0.5, 1)", "plain": "Plain"}
    values: dict[str, Any] = {"seeds": seeds_of(book), "mixing_seeds": seeds_of(mixing)}
    for key, name in names.items():
        row = book.row(1, where((0, depth), (2, name)))
        values[f"{key}_growth"] = book.cell(1, row, "whole gradient, post-activation", ",.0f")
        values["deep"] = book.number((*row, 0), ".0f")
    for key, name in (*names.items(), ("frozen", "Scale(0.5, 0.5)")):
        values[f"{key}_error"] = book.cell(0, book.row(0, named(name)), "training error (%)")
    trained = {row[0]: (place, mixing.cell(0, place, "training error (%)")) for place, row in mixing.rows(0).items()}
    values |= {called: trained[case][1] for case, called in _CASES.items() if case in trained}
    least = min((name for name in trained if name != ADD), key=lambda name: trained[name][1].value)
    values |= {"least": trained[least][1], "least_name": both(mixing.at((*trained[least][0], 0)))}
    values["mixing_data"] = data_words(mixing.record)
    lines = book.lines("curves", 0)
    labels = {"Add": "x", "Scale(0.5, 1)": "x/2", "Scale(0.5, 0.5)": "x/2 + F/2", "Plain": "plain"}
    errors = [
        series_at(book, lines[f"{name} training"], label=label, colour=rank, dashed=False)
        for rank, (name, label) in enumerate(labels.items())
    ]
    growth = panel_of(book, "gradients", 1)
    kept = [
        replace(s, label=labels[s.label], colour=[*labels].index(s.label)) for s in growth.series if s.label in labels
    ]
    panels = (replace(growth, title="", series=kept), Panel("", "epoch", "training error (%)", errors, (0.0, 100.0)))
    g, e = ({key: values[f"{key}_{what}"].value for key in names} for what in ("growth", "error"))
    fits = g["add"] < g["half"] and g["add"] * g["plain"] < g["half"] ** 2 and e["half"] > e["add"] + LOST
    fits = fits and all(values[key].value > values["mixing_add"].value for key in ("shut_gate", "conv"))
    return Facts(book, values, fits, panels, also=("mixing",))


ADD = "identity (Add)"  # as the study `mixing` calls it
_CASES = {
    ADD: "mixing_add",
    "exclusive gate, b = 0": "shut_gate",
    "exclusive gate, b = −6": "open_gate",
    "1x1 convolution": "conv",
}
