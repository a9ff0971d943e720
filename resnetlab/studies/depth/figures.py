"""What the study `depth` shows: errors by depth, the first steps of the deepest nets, and what a step costs."""

from __future__ import annotations

import statistics

from resnetlab.measuring.reported import REPORTED
from resnetlab.studies.depth.measure import FIRST
from resnetlab.studies.figures.figure import Figure, Panel, Series, Table, table
from resnetlab.studies.figures.series import over_seeds
from resnetlab.studies.frame.costs import Cost, Costs, cost_table, milliseconds, quartiles
from resnetlab.studies.frame.evidence import Group, Groups, Metric, test_error, train_error
from resnetlab.studies.frame.text import Catalogue, Words

TEXT = Catalogue.of(__name__)
SMOOTHED = 8  # steps over which the error of batches is averaged for the eye


def error_figure(nets: Groups[int]) -> Figure:
    """Error by depth."""
    series = [_by_depth("training", nets, train_error, dashed=True), _by_depth("test", nets, test_error)]
    panel = Panel(TEXT("figures.errors.by_depth"), "layers", "error (%)", series, x_log=True)
    return Figure("errors", TEXT("figures.errors.caption"), [panel])


def _by_depth(part: str, nets: Groups[int], error: Metric, dashed: bool = False) -> Series:
    """A line of errors by depth: mean and range over seeds, whose number may differ from depth to depth."""
    errors = {depth: net.of(error) for depth, net in nets.items() if net.done}
    return Series(
        f"ResNet {part}",
        dashed,
        0,
        [float(depth) for depth in errors],
        [round(statistics.fmean(seeds), 4) for seeds in errors.values()],
        [round(min(seeds), 4) for seeds in errors.values()],
        [round(max(seeds), 4) for seeds in errors.values()],
    )


def step_figure(first: Groups[str]) -> Figure:
    """The errors of the first steps, step by step."""
    series = [_by_step(first[net], colour) for colour, net in enumerate(FIRST) if first[net].done]
    panel = Panel(TEXT("figures.first_steps.by_step"), "step", "training error (%)", series, (0.0, 100.0))
    return Figure("first-steps", TEXT("figures.first_steps.caption", smoothed=SMOOTHED), [panel])


def _by_step(net: Group[str], colour: int) -> Series:
    """A net's errors, where each point is the mean over a step and the steps before it."""
    seeds = [values["errors"] for values in net.values]
    width = min(SMOOTHED, len(seeds[0]))
    steps = range(width, len(seeds[0]) + 1)
    return over_seeds(net.key, colour, steps, [[statistics.fmean(e[i - width : i]) for i in steps] for e in seeds])


def cost_figure(nets: Costs) -> Figure:
    """What a step costs at each depth, beside what it would cost in proportion to multiply-adds."""
    costs = list(nets.values())
    depths = [float(cost["depth"]) for cost in costs]
    growth = [cost["multiply_adds"] / costs[0]["multiply_adds"] for cost in costs]

    def panel(
        title: Words, label: str, y_label: str, low: list[float], middle: list[float], high: list[float]
    ) -> Panel:
        line = [round(middle[0] * g, 4) for g in growth]
        series = [
            Series("in proportion", True, 0, depths, line, line, line),
            Series(label, False, 1, depths, middle, low, high, marks=True),
        ]
        return Panel(title, "layers", y_label, series, x_log=True, y_log=True)

    low, high = ([round(quartiles(cost)[end] / cost["batch"], 4) for cost in costs] for end in (0, 1))
    middle = [round(time_per_image(cost), 4) for cost in costs]
    kept = [round(cost["training_bytes"] / 2**20, 4) for cost in costs]
    return Figure(
        "costs",
        TEXT("figures.costs.caption"),
        [
            panel(TEXT("figures.costs.time"), "time", "time per image (ms)", low, middle, high),
            panel(TEXT("figures.costs.activations"), "activations", "memory per image (MiB)", kept, kept, kept),
        ],
    )


def time_per_image(cost: Cost) -> float:
    """Milliseconds of a step for each of its images."""
    return milliseconds(cost) / cost["batch"]


def tables(nets: Groups[int], costs: list[Costs]) -> list[Table]:
    """Errors by depth beside what the paper prints; and what each depth costs, counted and timed."""
    cells: list[list[Words]] = []
    for depth, net in nets.items():
        on_paper = REPORTED.get(f"cifar_resnet{depth}")
        cells.append(
            [
                f"{depth:,}",
                *(net.cell(error) for error in (train_error, test_error)),
                f"{on_paper.error:.2f}" if on_paper and on_paper.error else "–",
                str(len(net.done)),
            ]
        )
    found = [table(TEXT, "errors", cells)] if cells else []
    for measured in costs:
        batch = next(iter(measured.values()))["batch"]
        caption = TEXT("costs.caption", batch=batch)
        found.append(cost_table(caption, measured, TEXT("costs.first")))
    return found
