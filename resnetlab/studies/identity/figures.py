"""What the study `identity` shows: stacks fitted to x → x and training errors as figures, and tables of all parts."""

from __future__ import annotations

import statistics
from typing import Any

from resnetlab.studies.figures.figure import Figure, Panel, Table, table
from resnetlab.studies.figures.series import along, over_seeds
from resnetlab.studies.frame.evidence import Group, Groups, value
from resnetlab.studies.frame.networks import KINDS, Net
from resnetlab.studies.frame.text import Catalogue, Words

TEXT = Catalogue.of(__name__)
SHALLOW, DEEP = 20, 56  # layers
SIZES: dict[str, Any] = {"shallow": SHALLOW, "deep": DEEP}
SMALLEST = 2.0**-24  # what float32 can just tell from 1: smaller losses count as this


def loss(values: dict[str, Any]) -> float:
    """The final loss of a stack."""
    return max(float(values["last"]), SMALLEST)


def ends(values: dict[str, Any]) -> float:
    """Training error at the end, in %: of a run, or of a net that was trained on."""
    return float(values["train_errors"][-1] if "train_errors" in values else values["train_error"])


def fit_figure(stacks: Groups[Net]) -> Figure:
    """The final losses of stacks by their depth."""
    series = [
        along(kind, colour, [(n.key.depth, n.of(loss)) for n in stacks.done(kind)], mean=statistics.geometric_mean)
        for colour, kind in enumerate(KINDS)
        if stacks.done(kind)
    ]
    panel = Panel(TEXT("figures.fits.stacks"), "layers", "loss / variance of x", series, x_log=True, y_log=True)
    return Figure("fits", TEXT("figures.fits.caption"), [panel] if series else [])


def training_figure(nets: Groups[Net], trained: Groups[Net]) -> Figure:
    """Training error by epoch of constructed deep nets, and of deep nets from scratch."""
    series = []
    for colour, kind in enumerate(KINDS):
        scratch = [[line["train_error"] for line in run.epochs] for run in nets[Net(kind, DEEP)].runs]
        constructed = [values["train_errors"] for values in trained[Net(kind, SHALLOW)].values]
        for how, errors in (("scratch", scratch), ("constructed", constructed)):
            if errors:
                epochs = range(1, len(errors[0]) + 1)
                label = f"{Net(kind, DEEP)} {how}"
                series.append(over_seeds(label, colour, epochs, errors, dashed=how == "scratch"))
    panel = Panel(TEXT("figures.training.error", **SIZES), "epoch", "error (%)", series, (0.0, 100.0))
    return Figure("training", TEXT("figures.training.caption", **SIZES), [panel] if series else [])


def construction_table(nets: Groups[Net], built: Groups[Net], trained: Groups[Net]) -> Table:
    """What the construction changes, and where further training leads."""

    def differences(net: Group[Net], how: str) -> str:
        values = [values[how] for values in net.values]
        return f"{max(v['largest'] for v in values):.2g}; {sum(v['changed'] for v in values)}" if values else "–"

    cells: list[list[Words]] = []
    for kind in KINDS:
        shallow, deep = Net(kind, SHALLOW), Net(kind, DEEP)
        changes = [differences(built[shallow], how) for how in ("exact", "calibrated")]
        three = (nets[shallow], trained[shallow], nets[deep])
        cells.append([TEXT(f"kinds.{kind}"), *changes, *(net.cell(ends) for net in three)])
    return table(TEXT, "construction", cells, **SIZES)


def fit_table(stacks: Groups[Net]) -> Table:
    """First and final losses of stacks, and which rate was the better."""

    def of(net: Group[Net]) -> list[str]:
        if not net.done:
            return ["–"] * 3
        rates = sorted({values["rate"] for values in net.values}, reverse=True)
        last = statistics.geometric_mean(net.of(loss))
        return [f"{net.mean(value('first')):.2g}", f"{last:.2g}", ", ".join(f"{rate:g}" for rate in rates)]

    depths = sorted({net.depth for net in stacks})
    cells = [[str(depth), *(cell for kind in KINDS for cell in of(stacks[Net(kind, depth)]))] for depth in depths]
    return table(TEXT, "fits", cells)
