"""Figures and table of the study `lesion`."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from typing import Any

from resnetlab.measuring.paths import gradient_shares
from resnetlab.studies.figures.figure import Figure, Panel, Series, Table
from resnetlab.studies.figures.series import over_seeds
from resnetlab.studies.frame.networks import Net, Taken
from resnetlab.studies.frame.statistics import spread
from resnetlab.studies.frame.text import Both, Words


def figures(found: Taken, paths: Taken) -> list[Figure]:
    """Errors after lesions, of all nets; gradient by path length, of the residual ones. None of what is missing."""
    made = []
    nets = [*found.done("plain"), *found.done("residual")]
    if nets:
        made.append(_lesions(found, nets))
    if paths.done("residual"):
        made.append(_paths(paths, paths.done("residual")))
    return made


def _lesions(found: Taken, nets: list[Net]) -> Figure:
    singles, several, swaps = [], [], []
    for colour, net in enumerate(nets):
        values = found.values[net]
        same = values[0]["same_size"]
        for marks in (False, True):  # lines: the units that keep their size; marks: those that change it
            kept = [i for i, error in enumerate(values[0]["without"]) if error is not None and same[i] is not marks]
            if kept:
                errors = [[v["without"][i] for i in kept] for v in values]
                singles.append(over_seeds(str(net), colour, [i + 1 for i in kept], errors, marks=marks))
        counts = [step["count"] for step in values[0]["deleted"]]
        several.append(over_seeds(str(net), colour, counts, [_means(v["deleted"]) for v in values]))
        swaps.append(_by_tau(str(net), colour, values))
    y, limits = "error (%)", (0.0, 100.0)
    return Figure(
        "errors",
        Both(
            "Test error after lesions, mean over seeds and draws, bands from the lowest to the highest seed. One unit "
            "deleted: lines are units that keep their maps' size, points those that change it (a plain net can't do "
            "without these). Kendall's τ is 1 for the order that was trained.",
            "损伤后的测试误差，为各种子与各次抽取的均值，色带为最低到最高的种子。删除一个单元："
            "曲线为不改变尺寸的单元，圆点为改变尺寸的单元（普通网络无法移除）。τ = 1 即训练时的次序。",
        ),
        [
            Panel(Both("one unit deleted", "删除一个单元"), "unit", y, singles, limits),
            Panel(Both("several units deleted", "删除多个单元"), "deleted units", y, several, limits),
            Panel(Both("units permuted", "打乱单元次序"), "Kendall's tau", y, swaps, limits),
        ],
    )


def _means(steps: list[dict[str, Any]], key: str = "errors") -> list[float]:
    return [statistics.fmean(step[key]) for step in steps]


def _by_tau(label: str, colour: int, values: list[dict[str, Any]]) -> Series:
    """Error against the mean τ of each number of swaps, from much permuted to not at all; as points."""
    taus = [statistics.fmean(seeds) for seeds in zip(*(_means(v["swapped"], "taus") for v in values), strict=True)]
    order = sorted(range(len(taus)), key=lambda i: taus[i])
    errors = [_means(v["swapped"]) for v in values]
    x = [round(taus[i], 4) for i in order]
    return over_seeds(label, colour, x, [[e[i] for i in order] for e in errors], marks=True)


def _paths(paths: Taken, nets: list[Net]) -> Figure:
    def lines(of: Callable[[list[float]], list[float]]) -> list[Series]:
        made = []
        for colour, net in enumerate(nets):
            seeds = [of(values["norms"]) for values in paths.values[net]]
            made.append(over_seeds(str(net), colour, range(len(seeds[0])), seeds))
        return made

    shares = [panel for net in nets[-1:] for panel in [_shares(paths, net)]]
    title = Both("gradient along one path", "单条路径上的梯度")
    return Figure(
        "paths",
        Both(
            "Left: mean norm of the loss's gradient at the image along single paths, by the number of units in which "
            "the path goes through F. Right, of the deepest net: the share of all paths that have this length (a "
            "binomial distribution), and the share of the gradient that they carry.",
            "左：损失对图像的梯度沿单条路径的平均范数，横轴为路径经过 F 的单元数。右（最深网络）："
            "该长度的路径所占比例（二项分布），及其承载的梯度比例。",
        ),
        [Panel(title, "length of the path (units)", "mean norm", lines(list), y_log=True), *shares],
    )


def _shares(paths: Taken, net: Net) -> Panel:
    carried = [[100 * s for s in gradient_shares(values["norms"])] for values in paths.values[net]]
    units = len(carried[0]) - 1
    all_paths = [100 * math.comb(units, k) / 2**units for k in range(units + 1)]
    lengths = range(units + 1)
    return Panel(
        Both(f"where {net}'s gradient comes from", f"{net} 的梯度来源"),
        "length of the path (units)",
        "share (%)",
        [over_seeds("paths", 2, lengths, [all_paths]), over_seeds("gradient", 0, lengths, carried)],
    )


def table(found: Taken, rise: Callable[[dict[str, Any], bool], float | None]) -> Table:
    """Errors of every net, intact and without one unit."""
    rows: list[list[Words]] = []
    for net in [*found.nets("plain"), *found.nets("residual")]:
        values = found.values[net]
        cells = [spread([v["intact"] for v in values], 1) if values else "–"]
        for same_size in (True, False):
            rises = [r for v in values if (r := rise(v, same_size)) is not None]
            cells.append(spread(rises, 1) if rises else "–")
        rows.append([str(net), *cells, str(len(values))])
    return Table(
        Both(
            "Test error, and points by which it rises without one unit: mean over the units, ± deviation over seeds.",
            "测试误差，及缺少一个单元时上升的百分点：对单元取均值，± 为各种子间的标准差。",
        ),
        [
            Both("network", "网络"),
            Both("intact (%)", "完整 (%)"),
            Both("without a unit of equal sizes", "缺一个等尺寸单元"),
            Both("without one that changes sizes", "缺一个改变尺寸的单元"),
            Both("seeds", "种子数"),
        ],
        rows,
    )
