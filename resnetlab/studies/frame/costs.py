"""What the studies of cost share: reading their measurements, ratios of times, and the table and figure of costs."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from resnetlab.measuring.cost import network_costs
from resnetlab.measuring.load import BUSY_CORES, BUSY_WAIT, busy_load
from resnetlab.nets.zoo import spec as named_spec
from resnetlab.studies.figures.figure import Panel, Series, Table
from resnetlab.studies.frame.evidence import Evidence
from resnetlab.studies.frame.measurement import Measurement, Subject
from resnetlab.studies.frame.statistics import NOT_JUDGED, NOT_REPRODUCED, REPRODUCED, Ratio, Verdict, ratio
from resnetlab.studies.frame.text import Both, Words

Cost = dict[str, Any]  # as NetCost or UnitCost, with seconds
Costs = dict[str, Cost]  # by network or unit
Measure = Callable[[Costs], tuple[Words, Verdict]]  # what is measured, and the verdict

# Part of the rule of each study that judges times.
BUSY_RULE = Both(
    " Times are not judged if the machine was busy: if, before or while they were taken, other work took more than "
    f"{BUSY_CORES:g} cores on average, or the one thread that computed did not run for more than {BUSY_WAIT:.0%} of "
    "the time.",
    f"若机器繁忙，则不对时间作出判定：即计时之前或期间其他工作平均占用超过 {BUSY_CORES:g} 个核，"
    f"或唯一的计算线程有超过 {BUSY_WAIT:.0%} 的时间未在运行。",
)


def measure_networks(subject: Subject) -> Costs:
    """Exact counts of each network of the settings' "nets", and seconds of each round, by name.

    "batch" images; "training" says whether a training step or a forward pass in evaluation is timed.
    """
    s = subject.settings
    specs = [named_spec(name) for name in s["nets"]]
    costs = network_costs(
        specs, s["batch"], s["rounds"], training=s["training"], device=subject.device, seed=subject.seed
    )
    return {name: cost.to_dict() for name, cost in zip(s["nets"], costs, strict=True)}


def measured_by(evidence: Evidence, function: str) -> tuple[list[dict[str, Any]], list[Measurement]]:
    """What the measurements of a function found, and those of them that failed."""
    found = [m.values for m in evidence.measured if m.measurement.function.endswith(f":{function}")]
    failed = [m for m in evidence.failed if isinstance(m, Measurement) and m.function.endswith(f":{function}")]
    return found, failed


def exact(holds: bool) -> Verdict:
    """The verdict on a count."""
    return REPRODUCED if holds else NOT_REPRODUCED


def times(costs: Costs, one: str, other: str) -> Ratio:
    """How many times as long `one` takes as `other`."""
    return ratio(costs[one]["seconds"], costs[other]["seconds"])


def busy(costs: Costs) -> Words | None:
    """That the machine was busy when these were timed, if it was, and so their times mean little."""
    load = busy_load(costs)
    if load is None:
        return None
    if (load.others or 0.0) > BUSY_CORES:
        why = Both(
            f"other work took {load.others:.1f} of {load.cores} cores",
            f"其他工作占用了 {load.cores} 个核中的 {load.others:.1f} 个",
        )
    else:
        why = Both(
            f"what was timed had to wait for {load.waited:.0%} of the time",
            f"计时线程有 {load.waited:.0%} 的时间在等待",
        )
    return (
        Both("the machine was busy: ", "机器繁忙：")
        + why
        + Both("; the same command times again", "；再次运行同一命令会重新计时")
    )


def if_quiet(measure: Measure) -> Measure:
    """The measure of times, which gives 'the machine was busy' in place of a verdict where it was, by BUSY_RULE."""

    def measured(costs: Costs) -> tuple[Words, Verdict]:
        words = busy(costs)
        return (words, NOT_JUDGED) if words else measure(costs)

    return measured


def sentence_of_times(costs: Costs, sentence: Words) -> Words:
    """The sentence about these times; of a busy machine's, that it was one."""
    return (
        sentence
        if busy(costs) is None
        else Both("The machine was busy: its times are not told.", "机器繁忙：不作时间比较。")
    )


def base_name(costs: Costs) -> str:
    """The name that networks have in common, e.g. resnet34 for resnet34(shortcut=A)."""
    return next(iter(costs)).partition("(")[0]


def milliseconds(cost: Cost) -> float:
    """The median of the rounds."""
    return 1000 * statistics.median(cost["seconds"])


# Columns of a table of costs: header, and the cell of a cost that has what it needs.
_COLUMNS: tuple[tuple[str, Words, float, str], ...] = (
    ("weights", Both("weights", "权重"), 1, ",.0f"),
    ("parameters", Both("parameters", "参数"), 1, ",.0f"),
    ("multiply_adds", Both("multiply-adds (M)", "乘加（百万）"), 1e6, ",.1f"),
    ("training_bytes", Both("kept for the backward pass (MiB)", "为反向保留（MiB）"), 2**20, ",.1f"),
    ("inference_bytes", Both("inference, at most (MiB)", "推理峰值（MiB）"), 2**20, ",.1f"),
    ("peak_bytes", Both("peak on the GPU (MiB)", "GPU 峰值（MiB）"), 2**20, ",.1f"),
)


def cost_table(caption: Words, costs: Costs, first: Words) -> Table:
    """A row for each network or unit: what it counts, per image, and the median of its time."""
    some = next(iter(costs.values()))
    columns = [c for c in _COLUMNS if some.get(c[0]) is not None]
    return Table(
        caption,
        [first, *(header for _, header, _, _ in columns), Both("time (ms)", "时间（毫秒）")],
        [
            [name, *(format(cost[key] / unit, form) for key, _, unit, form in columns), f"{milliseconds(cost):,.1f}"]
            for name, cost in costs.items()
        ],
    )


def quartiles(cost: Cost) -> tuple[float, float]:
    """Milliseconds between which half of the rounds lie."""
    low, _, high = statistics.quantiles(cost["seconds"], n=4, method="inclusive")
    return 1000 * low, 1000 * high


def time_panel(title: Words, costs: Costs, reference: str) -> Panel:
    """Each median time over multiply-adds as a mark, with bars between the quartiles, and a line.

    The line is what each would take if time were in proportion to multiply-adds and the reference on it.
    """
    xs = {name: cost["multiply_adds"] / 1e6 for name, cost in costs.items()}
    low, high = min(xs.values()), max(xs.values())
    wide = high > 10 * low
    ends = [low / 1.2, high * 1.2] if wide else [low - 0.05 * (high - low), high + 0.05 * (high - low)]
    line = [round(milliseconds(costs[reference]) / xs[reference] * x, 4) for x in ends]
    series = [Series("in proportion", True, 0, ends, line, line, line)]
    for colour, (name, cost) in enumerate(costs.items(), 1):
        first, third = (round(end, 4) for end in quartiles(cost))
        middle = [round(milliseconds(cost), 4)]
        series.append(Series(name, False, colour, [xs[name]], middle, [first], [third], marks=True))
    return Panel(title, "multiply-adds (M)", "time (ms)", series, x_log=wide, y_log=wide)
