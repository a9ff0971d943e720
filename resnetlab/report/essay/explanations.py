"""The problem and the explanations of it: what the records say about each."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from resnetlab.report.essay.facts import LOST, Facts, Library, deepest_row, panel_of, points, seeds_of, series_at
from resnetlab.report.essay.values import Book, Number, Place, named
from resnetlab.report.page import data_words
from resnetlab.studies.figures.figure import Panel
from resnetlab.studies.frame.text import both

STAYS = 1.0  # points of training error within which a network that is trained on stays where it was


def depths(lines: dict[str, Place], kind: str) -> dict[int, str]:
    """The lines of training errors by the depth of their networks, shallowest first."""
    found = {int(m[1]): label for label in lines if (m := re.fullmatch(rf"{kind}-(\d+) training", label))}
    return dict(sorted(found.items()))


def problem(library: Library) -> Facts:
    """Degradation: training errors of plain and of residual nets at a shallow and at the deepest depth.

    They come from the record that is drawn; if another record is the one to judge by, its errors are given as well.
    """
    book, judged = library.pictured("degradation"), library.best("degradation")
    values: dict[str, Any] = dict(_errors(book))
    plain, residual = values["plain_deep"].value, values["residual_deep"].value
    fits = plain > values["plain_shallow"].value + LOST and residual < plain - LOST
    panels = (panel_of(book, "curves", 0), panel_of(book, "curves", 1))
    if judged is book:
        return Facts(book, values, fits, panels)
    again = {f"again_{key}": value for key, value in _errors(judged).items()}
    values |= again | {"again_data": data_words(judged.record)}
    return Facts(book, values, fits, panels, further=("again",))


def _errors(book: Book) -> dict[str, Number]:
    """The final training errors of degradation's networks, with their depths, seeds and epochs."""
    kinds = {"plain": book.lines("curves", 0), "residual": book.lines("curves", 1)}
    both_have = [d for d in depths(kinds["plain"], "plain") if d in depths(kinds["residual"], "residual")]
    deep, shallow = both_have[-1], max([d for d in both_have[:-1] if d <= 20] or both_have[:1])
    values = {"seeds": seeds_of(book)}
    for kind, lines in kinds.items():
        for name, depth in (("deep", deep), ("shallow", shallow)):
            line = lines[f"{kind}-{depth} training"]
            values[name] = book.number((*line, "label"), ".0f")
            values[f"{kind}_{name}"] = book.end(line)
    last: Place = (*kinds["plain"][f"plain-{deep} training"], "x")
    values["epochs"] = book.number((*last, len(book.at(last)) - 1), ".0f")
    return values


def summary_panel(facts: Facts) -> Panel:
    """The first figure: training errors of a shallow and the deepest depth, plain and residual, in one picture."""
    book = facts.book
    deep, shallow = (int(facts.values[name].value) for name in ("deep", "shallow"))
    series = []
    for panel, kind in enumerate(("plain", "residual")):
        lines = book.lines("curves", panel)
        for rank, depth in enumerate((shallow, deep)):
            label = f"{kind}-{depth}"
            series.append(
                series_at(
                    book, lines[f"{label} training"], label=label, colour=2 * panel + rank, dashed=depth == shallow
                )
            )
    return Panel("", "epoch", "training error (%)", series, (0.0, 100.0))


def vanishing(library: Library) -> Facts:
    """How a plain net's gradient changes from layer to layer, and which nets start to learn."""
    book = library.best("signal")
    plain = [row[0] for row in book.rows(0).values() if row[0].startswith("plain-")]
    deep = max(int(name.removeprefix("plain-")) for name in plain)

    def factor(start: str, norm: str) -> Number:
        return book.cell(0, book.row(0, lambda r: r[:3] == [f"plain-{deep}", start, norm]), "gradient", ".2f")

    def started(start: str, norm: str) -> Number:
        return book.cell(
            1, book.row(1, lambda r: r[0].startswith("plain") and r[1:3] == [start, norm]), "started", ".0f"
        )

    with_bn = book.row(0, lambda r: r[:3] == [f"plain-{deep}", "He", "BN"])
    values = {
        "deep": book.number((*with_bn, 0), ".0f"),
        "small": factor("gaussian", "no BN"),
        "he": factor("He", "no BN"),
        "bn": factor("He", "BN"),
        "small_started": started("gaussian", "no BN"),
        "bn_started": started("gaussian", "BN"),
        "seeds": book.cell(0, with_bn, "seeds", ".0f"),
        "start": book.number((*book.row(1, lambda r: r[0].startswith("plain")), 0), ".0f"),
    }
    fits = values["small"].value < 0.5 and values["bn"].value >= 1 and values["small_started"].value == 0
    lines = []
    wanted = ((1, "gaussian", "no BN, small weights"), (1, "He", "no BN, He"), (4, "He", "BN, He"))
    for rank, (place, start, label) in enumerate(wanted):
        lines.append(series_at(book, book.lines("signals", place)[f"{start} measured"], label=label, colour=rank))
    panel = Panel("", "unit", "gradient norm", lines, y_log=True)
    return Facts(book, values, fits and values["bn_started"].value > 0, (panel,))


WHITENING = (
    ("plain", "plain, BN"),
    ("beta_1", "residual, BN, β = 1"),
    ("beta_small", "residual, BN, β = 0.1"),
)


def gradients(library: Library) -> Facts:
    """How alike the gradients at neighbouring inputs are, in deep nets with and without shortcuts."""
    book = library.best("shattered")
    _, figure = book.figure("autocorrelation")
    places = {both(p["title"]).en: i for i, p in enumerate(figure["panels"])}
    lines = {name: book.lines("autocorrelation", places[title]) for name, title in WHITENING}
    deepest = max(lines["plain"], key=lambda label: int(label.removeprefix("L = ")))
    values: dict[str, Any] = {name: book.value_at(found[deepest], 1.0) for name, found in lines.items()}
    noise = book.lines("autocorrelation", places["noise"])
    trap = book.lines("autocorrelation", places["plain, not centred"])[deepest]
    values |= {
        "layers": book.number((*lines["plain"][deepest], "label"), ".0f"),
        "white": book.value_at(noise["white"], 1.0),
        "brown": book.value_at(noise["brown"], 1.0),
        "trap": book.value_at(trap, 1.0),
    }
    values |= _pixels(book)
    labels = {"plain": "plain", "beta_1": "residual, β = 1", "beta_small": "residual, β = 0.1"}
    series = [
        series_at(book, found[deepest], label=labels[name], colour=rank)
        for rank, (name, found) in enumerate(lines.items(), 2)
    ]
    series += [
        series_at(book, noise[name], label=f"{name} noise", colour=i, dashed=True)
        for i, name in enumerate(("white", "brown"))
    ]
    fits = values["plain"].value < 0.2 < values["beta_1"].value < values["beta_small"].value
    fits = fits and values["residual_pixels"].value - values["plain_pixels"].value < 0.1
    return Facts(book, values, fits, (Panel("", "lag (grid points)", "autocorrelation", series),))


def _pixels(book: Book) -> dict[str, Number]:
    """How alike a gradient's neighbouring pixels are in the deepest convolutional nets."""
    for table in range(len(book.values["tables"])):
        names = [row[0] for row in book.rows(table).values()]
        depths = [int(m[1]) for name in names if (m := re.fullmatch(r"plain-(\d+)", name))]
        if depths and "lag 1" in book.header(table):
            place = book.row(table, named(f"plain-{max(depths)}"))
            return {
                "pixel_layers": book.number((*place, 0), ".0f"),
                "plain_pixels": book.cell(table, place, "lag 1", ".2f"),
                "residual_pixels": book.cell(table, book.row(table, named(f"residual-{max(depths)}")), "lag 1", ".2f"),
            }
    raise LookupError("no table of the pixels' gradients")


def reaction(library: Library) -> Facts:
    """How much F and H react to a small change of the weights and of the input."""
    book = library.best("sensitivity")
    deep, residual = deepest_row(book, "residual")
    columns = {"weights_f": "weights: F", "weights_h": "weights: H", "input_f": "input: F", "input_h": "input: H"}
    values: dict[str, Any] = {name: book.cell(0, residual, column, ".2f") for name, column in columns.items()}
    values["deep"] = book.number((*residual, 0), ".0f")
    values["seeds"] = book.cell(0, residual, "seeds", ".0f")
    fits = values["weights_f"].value > values["weights_h"].value and values["input_f"].value < values["input_h"].value
    return Facts(book, values, fits, (panel_of(book, "reactions", 0), panel_of(book, "reactions", 1)))


def identity(library: Library) -> Facts:
    """A deep net that is made of a shallow one and trained on, and stacks fitted to the identity."""
    book = library.best("identity")
    plain, residual = (book.row(0, named(kind)) for kind in ("plain", "residual"))
    header = book.header(0)
    values: dict[str, Any] = {"shallow": book.number(("tables", 0, "header", 3), ".0f")}
    for kind, row in (("plain", plain), ("residual", residual)):
        values[f"{kind}_built"] = book.cell(0, row, "construction", ".0f")
        values[f"{kind}_on"] = book.cell(0, row, header[4])
    rows = book.rows(1)
    solved = [place for place, r in rows.items() if float(r[5]) < 0.01]  # less than 1 % of the variance of x
    plain_solved = [place for place, r in rows.items() if float(r[2]) < 0.01]
    most, last = solved[-1], [*rows][-1]
    values |= {
        "stack": book.number((*most, 0), ".0f"),
        "plain_fit": book.cell(1, most, "plain, final", ".2f"),
        "residual_fit": book.cell(1, most, "residual, final", "sci"),
        "deepest": book.number((*last, 0), ".0f"),
        "deepest_fit": book.cell(1, last, "residual, final", ".2f"),
        "deepest_first": book.cell(1, last, "residual, first", ".0f"),
        "deep": book.number(("tables", 0, "header", 5), ".0f"),
    }
    values |= _responses(library)
    shallow = {kind: book.cell(0, row, header[3]).value for kind, row in (("plain", plain), ("residual", residual))}
    fits = values["residual_on"].value <= shallow["residual"] + STAYS and values["plain_on"].value > shallow["plain"]
    fits = fits and values["plain_on"].value >= values["residual_on"].value
    fits = fits and most not in plain_solved and values["deepest_fit"].value > 0.1
    fits = fits and values["plain_built"].value == 0 == values["residual_built"].value
    panel = replace(panel_of(book, "fits", 0), title="")
    return Facts(book, values, fits, (panel,), also=("responses",))


def _responses(library: Library) -> dict[str, Any]:
    """How large F is relative to what it is added to, in the deepest trained net."""
    book = library.best("responses")
    _, row = deepest_row(book, "residual")
    return {
        "size_deep": book.number((*row, 0), ".0f"),
        "size": book.cell(0, row, "‖F‖/‖h‖", ".2f"),
        "size_data": data_words(book.record),
    }


def deletion(library: Library) -> Facts:
    """The error of trained nets without one unit, and without several."""
    book = library.best("lesion")
    one, several = book.lines("errors", 0), book.lines("errors", 1)
    deep, residual = deepest_row(book, "residual")
    _, plain = deepest_row(book, "plain")
    values: dict[str, Any] = {
        "deep": book.number((*residual, 0), ".0f"),
        "residual_whole": book.cell(0, residual, "intact (%)"),
        "residual_more": book.cell(0, residual, "without a unit of equal sizes"),
        "plain_whole": book.cell(0, plain, "intact (%)"),
        "plain_more": book.cell(0, plain, "without a unit of equal sizes"),
        "seeds": book.cell(0, residual, "seeds", ".0f"),
    }
    nets = {f"{kind}-{deep}": values[f"{kind}_whole"] for kind in ("plain", "residual")}
    data = {
        name: {
            "whole": {"value": whole.value, "at": whole.at},
            "one": points(
                book, [i for i, s in enumerate(book.at(one[name][:-1])) if s["label"] == name], one[name][:-1]
            ),
            "several": points(book, [several[name][-1]], several[name][:-1]),
        }
        for name, whole in nets.items()
    }
    fits = values["residual_more"].value < values["plain_more"].value
    panel = panel_of(book, "errors", 0)
    kept = [replace(s, colour=list(nets).index(s.label)) for s in panel.series if s.label in nets]
    return Facts(
        book,
        values,
        fits,
        (replace(panel, title="", series=kept),),
        data={"record": book.file, "nets": data},
    )


def carry(library: Library) -> Facts:
    """What gates leave of the signal, and the errors of nets with them."""
    book = library.best("carry")
    gates = {row[0]: place for place, row in book.rows(0).items() if "gate" in row[0]}
    add = book.row(0, lambda cells: "(Add)" in cells[0])
    plain = book.row(0, lambda cells: "(plain)" in cells[0])
    test = "test error (%)"
    exclusive = {name: place for name, place in gates.items() if name.startswith("exclusive")}
    widest = exclusive[max(exclusive, key=lambda name: book.cell(0, exclusive[name], "start", "sci").value)]
    best = min(gates.values(), key=lambda place: book.cell(0, place, test).value)
    shut = exclusive[min(exclusive, key=lambda name: book.cell(0, exclusive[name], "start", "sci").value)]
    values: dict[str, Any] = {
        "add": book.cell(0, add, test),
        "plain": book.cell(0, plain, test),
        "widest": book.cell(0, widest, test),
        "widest_left": book.cell(0, widest, "start", ".2f"),
        "shut": book.cell(0, shut, test),
        "shut_left": book.cell(0, shut, "start", "sci"),
        "best": book.cell(0, best, test),
        "best_left": book.cell(0, best, "start", ".2f"),
        "best_name": both(book.at((*best, 0))),
        "seeds": seeds_of(library.best("mixing")),  # whose runs it shares
    }
    fits = values["widest"].value > values["add"].value and values["shut"].value > values["add"].value + LOST
    return Facts(book, values, fits, (_gated(library),), also=("mixing",))


def _gated(library: Library) -> Panel:
    """Training errors of nets with and without gates, from the study `mixing`."""
    mixing = library.best("mixing")
    lines = mixing.lines("curves", 0) | mixing.lines("curves", 1)
    wanted = {
        "Add": "no gate",
        "exclusive 0": "exclusive, b = 0",
        "exclusive −6": "exclusive, b = −6",
        "shortcut-only 0": "shortcut-only, b = 0",
        "shortcut-only −6": "shortcut-only, b = −6",
    }
    there = {label: lines[f"{name} training"] for name, label in wanted.items() if f"{name} training" in lines}
    series = [
        series_at(mixing, line, label=label, colour=rank, dashed=False)
        for rank, (label, line) in enumerate(there.items())
    ]
    return Panel("", "epoch", "training error (%)", series, (0.0, 100.0))
