"""What the studies of cost share: reading their measurements, ratios of times, and the table and figure of costs."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any

from resnetlab.measuring.cost import network_costs
from resnetlab.measuring.load import BUSY_CORES, BUSY_WAIT, busy_load
from resnetlab.nets.zoo import spec as named_spec
from resnetlab.studies.figures.figure import Panel, Series, Table
from resnetlab.studies.frame.claims import Comparison, Instead
from resnetlab.studies.frame.evidence import Group
from resnetlab.studies.frame.measurement import MeasurementContext
from resnetlab.studies.frame.statistics import NOT_JUDGED, Ratio, Verdict, ratio
from resnetlab.studies.frame.text import SHARED, Words

Cost = dict[str, Any]  # as NetCost or UnitCost, with seconds
Costs = dict[str, Cost]  # by network or unit

# Part of the rule of each study that judges times.
BUSY_RULE = SHARED("busy.rule", cores=BUSY_CORES, wait=100 * BUSY_WAIT)


def measure_networks(subject: MeasurementContext) -> Costs:
    """Exact counts of each network of the settings' "nets", and seconds of each round, by name.

    "batch" images; "training" says whether a training step or a forward pass in evaluation is timed.
    """
    s = subject.settings
    specs = [named_spec(name) for name in s["nets"]]
    costs = network_costs(
        specs, s["batch"], s["rounds"], training=s["training"], device=subject.device, seed=subject.seed
    )
    return {name: asdict(cost) for name, cost in zip(s["nets"], costs, strict=True)}


def times(costs: Costs, one: str, other: str) -> Ratio:
    """How many times as long `one` takes as `other`."""
    return ratio(costs[one]["seconds"], costs[other]["seconds"])


def busy(costs: Costs) -> Words | None:
    """That the machine was busy when these were timed, if it was, and so their times mean little."""
    load = busy_load(costs)
    if load is None:
        return None
    if (load.others or 0.0) > BUSY_CORES:
        return SHARED("busy.others", others=load.others, cores=load.cores)
    return SHARED("busy.waited", waited=100 * (load.waited or 0.0))


def longer(costs: Group[Any], one: str, *, than: str, **words: Any) -> Comparison:
    """That one network or unit takes longer than another, by BUSY_RULE; the cell has their ratio as {clock}.

    costs: what `measure_networks` (or the like) gave.
    """
    asks = SHARED("asks.longer", one=one, other=than)
    return _timed(costs, one, than, lambda clock: clock.verdict_above(1), asks, words)


def as_long(costs: Group[Any], one: str, *, as_: str, factor: float, **words: Any) -> Comparison:
    """That one network or unit takes as long as another, within a factor, by BUSY_RULE."""
    asks = SHARED("asks.as_long", one=one, other=as_, factor=factor)
    return _timed(costs, one, as_, lambda clock: clock.verdict_within(factor), asks, words)


def _timed(
    costs: Group[Any],
    one: str,
    other: str,
    verdict: Callable[[Ratio], Verdict],
    asks: Words,
    words: Mapping[str, Any],
) -> Comparison:
    def judge() -> tuple[Verdict, Mapping[str, Any]]:
        if why := busy(costs.values[0]):
            raise Instead(why, NOT_JUDGED)
        clock = times(costs.values[0], one, other)
        return verdict(clock), {"one": one, "other": other, "clock": clock, **words}

    return Comparison((costs,), judge, over_seeds=False, asks=asks)


def sentence_of_times(costs: Costs, sentence: Words) -> Words:
    """The sentence about these times; of a busy machine's, that it was one."""
    return sentence if busy(costs) is None else SHARED("busy.untold")


def base_name(nets: Iterable[str]) -> str:
    """The name that networks have in common, e.g. resnet34 for resnet34(shortcut=A)."""
    return next(iter(nets)).partition("(")[0]


def milliseconds(cost: Cost) -> float:
    """The median of the rounds."""
    return 1000 * statistics.median(cost["seconds"])


# Columns of a table of costs whose header is in the shared catalogue: the unit of the number and its format.
_COLUMNS = {
    "weights": (1, ",.0f"),
    "parameters": (1, ",.0f"),
    "multiply_adds": (1e6, ",.1f"),
    "training_bytes": (2**20, ",.1f"),
    "inference_bytes": (2**20, ",.1f"),
    "peak_bytes": (2**20, ",.1f"),
}


def cost_table(caption: Words, costs: Costs, first: Words) -> Table:
    """A row for each network or unit: what it counts, per image, and the median of its time."""
    some = next(iter(costs.values()))
    columns = {key: form for key, form in _COLUMNS.items() if some.get(key) is not None}
    return Table(
        caption,
        [first, *(SHARED(f"costs.{key}") for key in columns), SHARED("costs.time")],
        [
            [
                name,
                *(format(cost[key] / unit, form) for key, (unit, form) in columns.items()),
                f"{milliseconds(cost):,.1f}",
            ]
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
