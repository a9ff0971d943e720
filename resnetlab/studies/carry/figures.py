"""What the study `carry` shows: the gates as figures, and the tables of errors and of theory."""

from __future__ import annotations

from resnetlab.measuring.gates import initial_carry
from resnetlab.studies.figures.figure import Figure, Panel, Table, table
from resnetlab.studies.figures.series import over_seeds
from resnetlab.studies.frame.cases import ADD, CASES, printed, signed
from resnetlab.studies.frame.evidence import Groups, Metric, test_error, train_error
from resnetlab.studies.frame.text import Catalogue, Words

TEXT = Catalogue.of(__name__)
BIASES, UNITS = (0.0, -1.0, -3.0, -5.0, -6.0, -7.0), (1, 27, 54)  # of the table of theory
PLAIN = "plain"
GATES = [name for name, case in CASES.items() if case.bias is not None]


def called(name: str) -> Words:
    """A case in words, or the plain net."""
    return CASES[name].words if name in CASES else TEXT("plain")


def bias_of(name: str) -> float:
    """The bias that a gate starts with."""
    return CASES[name].bias or 0.0


def left(when: str) -> Metric:
    """The share of the signal that passes all units, at the "start" or the "end" of training."""
    return lambda values: float(values[when][0]["left"])


def expected_left(name: str) -> Metric:
    """The share of the signal that should pass all units at the start, by theory."""
    return lambda values: initial_carry(bias_of(name), len(values["start"]))


def unit_figure(gates: Groups[str]) -> Figure:
    """How much each unit carries, and how much of its input all units from it on carry, before and after training."""

    def panel(title: Words, label: str, key: str, log: bool) -> Panel:
        series = [
            over_seeds(
                f"{name} {when}",
                colour,
                range(1, len(net.values[0][when]) + 1),
                [[unit[key] for unit in values[when]] for values in net.values],
                dashed=when == "start",
            )
            for colour, (name, net) in enumerate(gates.items())
            if net.done
            for when in ("start", "end")
        ]
        return Panel(title, "unit", label, series, None if log else (0.0, 1.0), y_log=log)

    panels = [
        panel(TEXT("figures.units.carry"), "mean of 1 − g", "mean", False),
        panel(TEXT("figures.units.left"), "mean of the product", "left", True),
    ]
    return Figure("units", TEXT("figures.units.caption"), [p for p in panels if p.series])


def start_figure(gates: Groups[str]) -> Figure:
    """What untrained gates leave of the signal, beside theory: all biases, and those below 0 on their own axis."""
    biases = sorted({bias_of(name) for name, net in gates.items() if net.done}, reverse=True)

    def panel(title: Words, shown: list[float], log: bool) -> Panel:
        series = []
        for name, net in gates.items():
            bias = bias_of(name)
            if net.done and bias in shown:
                label, colour, count = f"b = {signed(bias)}", biases.index(bias), len(net.values[0]["start"])
                units = range(1, count + 1)
                theory = [initial_carry(bias, count - i) for i in range(count)]
                found = [[unit["left"] for unit in values["start"]] for values in net.values]
                series.append(over_seeds(label, colour, units, [theory]))
                series.append(over_seeds(label, colour, units, found, marks=True))
        return Panel(title, "unit", "mean of the product", series, None if log else (0.0, 1.0), y_log=log)

    panels = [
        panel(TEXT("figures.start.all"), biases, True),
        panel(TEXT("figures.start.below_0"), [b for b in biases if b < 0], False),
    ]
    return Figure("start", TEXT("figures.start.caption"), [p for p in panels if p.series])


def epoch_figure(watched: Groups[str]) -> Figure:
    """How the gates change from epoch to epoch, in the runs that were trained again to watch them."""

    def panel(title: Words, label: str, key: str) -> Panel:
        by_epoch = {name: [values[key] for values in net.values] for name, net in watched.items() if net.done}
        series = [
            over_seeds(name, colour, range(len(seeds[0])), seeds)
            for colour, (name, seeds) in enumerate(by_epoch.items())
        ]
        return Panel(title, "epoch", label, series)

    panels = [
        panel(TEXT("figures.epochs.carry"), "mean of 1 − g", "mean"),
        panel(TEXT("figures.epochs.left"), "mean of the product", "left"),
    ]
    return Figure("epochs", TEXT("figures.epochs.caption"), [p for p in panels if p.series])


def errors_table(nets: Groups[str], gates: Groups[str]) -> Table:
    """A row for each case: what is left of the signal, and the errors."""

    def shares(name: str) -> list[Words]:
        if name not in GATES:
            return ["1", "1", "1"] if name == ADD else ["0", "0", "0"]
        measured = (expected_left(name), left("start"), left("end"))
        return [f"{gates[name].mean(metric):.2g}" if gates[name].done else "–" for metric in measured]

    cells = [
        [
            called(name),
            *shares(name),
            *(net.cell(error) for error in (train_error, test_error)),
            printed(CASES[name]) if name in CASES else "> 20",
        ]
        for name, net in nets.items()
    ]
    return table(TEXT, "errors", cells)


def theory_table() -> Table:
    """(1 − σ(b))^units for some biases and depths."""
    return table(TEXT, "theory", [[signed(bias), *(f"{initial_carry(bias, n):.4g}" for n in UNITS)] for bias in BIASES])
