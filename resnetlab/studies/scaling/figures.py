"""What the study `scaling` shows: factors beside theory, gradients and errors as figures, and the tables of both."""

from __future__ import annotations

import itertools
import math
import statistics
from dataclasses import dataclass
from typing import Any, NamedTuple

from resnetlab.measuring.propagation import shortcut_scale
from resnetlab.nets.mixing import Add, Mix, Plain, Scale
from resnetlab.nets.spec import NetSpec
from resnetlab.nets.zoo import spec
from resnetlab.studies.figures.figure import Figure, Panel, Series, Table, table
from resnetlab.studies.figures.series import error_lines, over_seeds
from resnetlab.studies.frame.evidence import Group, Groups, Metric, test_error, train_error, value
from resnetlab.studies.frame.measurement import Measurement
from resnetlab.studies.frame.text import Catalogue, Words
from resnetlab.training.recipe import Recipe

TEXT = Catalogue.of(__name__)
ADD, HALF, FROZEN, PLAIN = Add(), Scale(0.5, 1), Scale(0.5, 0.5), Plain()
NONE = Scale(0, 1)  # Plain as a function
FAIL = TEXT("tables.trained.fail")
TRAINED: dict[Mix, Words] = {ADD: "6.61", HALF: FAIL, FROZEN: "12.35", PLAIN: FAIL}  # He 2016, Table 1
AT_START: tuple[Mix, ...] = (ADD, Scale(1.1, 1), Scale(0.9, 1), HALF, PLAIN)
ORDERS = ("full_preact", "post")
DEPTHS = (20, 56, 110)  # that are measured at initialisation
_PASSED = {"gradient": "units back from the last", "signal": "units on from the first"}


class Net(NamedTuple):
    """A network: what its units do with shortcut and branch, its layers, and the order of a unit."""

    mix: Mix
    depth: int
    order: str = "post"

    @classmethod
    def of(cls, one: Recipe | Measurement) -> Net:
        """The network of a run, or of a measurement."""
        found = spec(one.net if isinstance(one, Recipe) else one.run.net if one.run else one.settings["net"])
        assert isinstance(found, NetSpec)
        return cls(found.mix, found.depth, found.order)

    def __str__(self) -> str:
        return called(self.mix)


NETS = [Net(*one) for one in itertools.product((*AT_START, FROZEN, NONE), DEPTHS, ORDERS)]


@dataclass(frozen=True)
class Nets:
    """The results for every network: its runs, and what was measured before and after training."""

    depth: int  # of those that are trained
    runs: Groups[Net]
    starts: Groups[Net]
    trained: Groups[Net]
    same: Group[Net]  # Scale(0, 1), beside the plain net

    def run(self, mix: Mix) -> Group[Net]:
        """The runs with these shortcuts."""
        return self.runs[Net(mix, self.depth)]

    def start(self, mix: Mix, order: str = "post") -> Group[Net]:
        """The untrained networks as deep as those that are trained."""
        return self.starts[Net(mix, self.depth, order)]


def called(mix: Mix) -> str:
    """A mix as the study's words call it: Scale(0.5, 1)."""
    return f"Scale({mix.a:g}, {mix.b:g})" if isinstance(mix, Scale) else type(mix).__name__


def units(net: Group[Net]) -> int:
    """How many units the batch passed."""
    return len(net.values[0]["gradient"]) - 1


def product(net: Group[Net]) -> float:
    """∏λ over all units (He 2016, eq. 8)."""
    return shortcut_scale(net.key.mix) ** units(net)


def factors(values: dict[str, Any], what: str) -> list[float | None]:
    """What shortcuts alone do to the "signal" or the "gradient", by the number of units that it has passed."""
    found: list[float | None] = values[f"{what}_factor"]
    return found[::-1] if what == "gradient" else found


def deviation(net: Group[Net]) -> float:
    """The largest relative deviation of a factor from ∏λ in any seed; infinite where a factor is missing."""
    found = [passed for values in net.values for what in _PASSED for passed in enumerate(factors(values, what))]
    return max(math.inf if f is None else abs(f / shortcut_scale(net.key.mix) ** count - 1) for count, f in found)


def whole_factor(values: dict[str, Any]) -> float:
    """The factor that all shortcuts alone multiply the gradient by; NaN where it is missing."""
    found = values["gradient_factor"][0]
    return math.nan if found is None else float(found)


def growth(values: dict[str, Any]) -> float:
    """‖∂E/∂x_0‖ / ‖∂E/∂x_L‖: how the whole gradient grows from the last unit to the first; NaN where it is missing."""
    return _ratio(values["gradient"][0], values["gradient"][-1])


def share(values: dict[str, Any]) -> float:
    """The share of the first unit's gradient that came through shortcuts only; NaN where it is missing."""
    return _ratio(values["shortcut_gradient"][0], values["gradient"][0])


largest_difference = value("largest_difference")  # of scores and gradients of Scale(0, 1) from the plain net's


def _ratio(one: float | None, other: float | None) -> float:
    return one / other if one is not None and other else math.nan


def mean(net: Group[Net], metric: Metric) -> float:
    """The mean over seeds; NaN where one of them has no value, or nothing was measured."""
    return statistics.fmean(net.of(metric)) if net.done else math.nan


def number(value: float) -> str:
    """A number of any size with three digits, or a dash for NaN."""
    if math.isnan(value):
        return "–"
    shown = float(f"{value:.3g}")
    return f"{shown:,.0f}" if 1e3 <= abs(shown) < 1e6 else f"{value:.3g}"


def figures(nets: Nets) -> list[Figure]:
    """The shortcuts' factors beside theory, the whole gradient, and error curves; those without data are left out."""
    return [figure for figure in (_factors(nets), _gradients(nets), _curves(nets)) if figure.panels]


def _factors(nets: Nets) -> Figure:
    panels = []
    for order, (what, x_label) in itertools.product(ORDERS, _PASSED.items()):
        lines: list[Series] = []
        for colour, mix in enumerate(mix for mix in AT_START if shortcut_scale(mix)):
            if seeds := [factors(values, what) for values in nets.start(mix, order).values]:
                name, passed = f"λ = {shortcut_scale(mix):g}", range(len(seeds[0]))
                theory = [shortcut_scale(mix) ** count for count in passed]
                lines.append(over_seeds(f"{name} theory", colour, passed, [theory], dashed=True))
                lines.append(over_seeds(f"{name} measured", colour, passed, seeds, marks=True))
        if lines:
            panels.append(Panel(TEXT(f"figures.factors.{order}_{what}"), x_label, "factor", lines, y_log=True))
    return Figure("factors", TEXT("figures.factors.caption", depth=nets.depth), panels)


def _gradients(nets: Nets) -> Figure:
    shown = {order: [nets.start(mix, order) for mix in AT_START] for order in ORDERS}
    shown["trained"] = [nets.trained[Net(mix, nets.depth)] for mix in TRAINED]
    panels = []
    for title, groups in shown.items():
        lines = [_gradient(net) for net in groups if net.done]
        if drawn := [line for line in lines if line.x]:
            words = TEXT(f"figures.gradients.{title}")
            panels.append(Panel(words, _PASSED["gradient"], "gradient (last = 1)", drawn, y_log=True))
    return Figure("gradients", TEXT("figures.gradients.caption", depth=nets.depth), panels)


def _gradient(net: Group[Net]) -> Series:
    """The whole gradient at each unit beside that after the last one."""
    mix, seeds = net.key.mix, [values["gradient"][::-1] for values in net.values]
    seeds = [[norm / last if norm is not None and last else None for norm in (last, *rest)] for last, *rest in seeds]
    return over_seeds(called(mix), (*AT_START, FROZEN).index(mix), range(units(net) + 1), seeds)


def _curves(nets: Nets) -> Figure:
    lines = [line for i, mix in enumerate(TRAINED) for line in error_lines(called(mix), i, nets.run(mix).runs)]
    panel = Panel(TEXT("figures.curves.errors", depth=nets.depth), "epoch", "error (%)", lines, (0.0, 100.0))
    return Figure("curves", TEXT("figures.curves.caption"), [panel] if lines else [])


def tables(nets: Nets) -> list[Table]:
    """The trained networks beside Table 1, and the untrained ones by depth."""
    return [_trained(nets), _untrained(nets)]


def _trained(nets: Nets) -> Table:
    shown: list[tuple[Words, Mix]] = [(called(mix), mix) for mix in TRAINED]
    if set(nets.same.of(largest_difference)) == {0.0}:
        shown.append((TEXT("tables.trained.runs_of_plain", mix=called(NONE)), PLAIN))
    else:
        shown.append((called(NONE), NONE))
    cells: list[list[Words]] = []
    for name, mix in shown:
        runs, passed = nets.run(mix), nets.trained[Net(mix, nets.depth)]
        cells.append(
            [
                name,
                *(runs.cell(error) for error in (train_error, test_error)),
                TRAINED[PLAIN if mix == NONE else mix],
                number(mean(passed, whole_factor)),
                number(mean(passed, growth)),
                str(len(runs.done)),
            ]
        )
    return table(TEXT, "trained", cells, depth=nets.depth)


def _untrained(nets: Nets) -> Table:
    cells: list[list[Words]] = []
    for depth, mix in itertools.product(DEPTHS, sorted(AT_START, key=shortcut_scale)):
        groups = [nets.starts[Net(mix, depth, order)] for order in ORDERS]
        if all(net.done for net in groups):
            passed = [mean(net, metric) for metric in (whole_factor, growth) for net in groups]
            cells.append([str(depth), str(units(groups[0])), called(mix), *map(number, (product(groups[0]), *passed))])
    return table(TEXT, "untrained", cells)
