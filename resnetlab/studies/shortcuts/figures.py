"""What the study `shortcuts` shows: its networks, their errors beside the paper's, and times of the options."""

from __future__ import annotations

from typing import NamedTuple

from resnetlab.studies.figures.figure import Figure, Table, table
from resnetlab.studies.frame.costs import Costs, base_name, time_panel
from resnetlab.studies.frame.evidence import Groups, test_error, train_error
from resnetlab.studies.frame.text import Catalogue, Words

TEXT = Catalogue.of(__name__)
OPTIONS = ("A", "B", "C")
KINDS = ("plain", *OPTIONS)
REPORTED = {"plain": 28.54, "A": 25.03, "B": 24.52, "C": 24.19}  # %, ImageNet, 34 layers, 10 crops: He 2015, Table 3


class Net(NamedTuple):
    """A network that is trained."""

    kind: str  # one of KINDS
    depth: int

    def __str__(self) -> str:
        return f"{self.kind}-{self.depth}"


def net_of(kind: str, depth: int) -> str:
    """The name of the network of a depth that is plain, or has option A, B or C."""
    if kind == "plain":
        return f"cifar_plain{depth}"
    return f"cifar_resnet{depth}" if kind == "A" else f"cifar_resnet{depth}(shortcut={kind})"


def error_table(nets: Groups[Net]) -> Table:
    """A row for each network: its training and test errors over seeds, and the paper's."""
    cells: list[list[Words]] = [
        [
            net_of(*net.key),
            net.cell(train_error),
            net.cell(test_error),
            f"{REPORTED[net.key.kind]:.2f}",
            str(len(net.done)),
        ]
        for net in nets.values()
    ]
    return table(TEXT, "errors", cells)


def times_figure(measured: list[Costs]) -> Figure:
    """The time of a step by its multiply-adds; the line of proportion runs through option A."""
    panels = [time_panel(base_name(nets), dict(zip(OPTIONS, nets.values(), strict=True)), "A") for nets in measured]
    return Figure("times", TEXT("figures.times.caption"), panels)
