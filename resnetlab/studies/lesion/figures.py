"""What the study `lesion` shows: errors after lesions, and the gradient by the length of its paths."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from resnetlab.measuring.paths import gradient_shares
from resnetlab.studies.figures.figure import Figure, Panel, Series
from resnetlab.studies.figures.series import over_seeds
from resnetlab.studies.frame.evidence import Group
from resnetlab.studies.frame.networks import Net
from resnetlab.studies.frame.text import Catalogue

TEXT = Catalogue.of(__name__)


def error_figure(nets: Sequence[Group[Net]]) -> Figure:
    """Errors without one unit, without several, and with units that changed places; all networks must be measured."""
    every = list(enumerate(nets))
    singles = [line for colour, net in every for line in _one_deleted(net, colour)]
    several = [_several_deleted(net, colour) for colour, net in every]
    swaps = [_permuted(net, colour) for colour, net in every]
    y, limits = "error (%)", (0.0, 100.0)
    return Figure(
        "errors",
        TEXT("figures.errors.caption"),
        [
            Panel(TEXT("figures.errors.one"), "unit", y, singles, limits),
            Panel(TEXT("figures.errors.several"), "deleted units", y, several, limits),
            Panel(TEXT("figures.errors.permuted"), "Kendall's tau", y, swaps, limits),
        ],
    )


def _one_deleted(net: Group[Net], colour: int) -> list[Series]:
    """The errors without each unit that can be deleted: a line for those that keep sizes, marks for the others."""
    without, same_size, lines = net.values[0]["without"], net.values[0]["same_size"], []
    for changing in (False, True):
        kept = [i for i, error in enumerate(without) if error is not None and same_size[i] is not changing]
        if kept:
            errors = [[values["without"][i] for i in kept] for values in net.values]
            lines.append(over_seeds(str(net), colour, [i + 1 for i in kept], errors, marks=changing))
    return lines


def _several_deleted(net: Group[Net], colour: int) -> Series:
    counts = [step["count"] for step in net.values[0]["deleted"]]
    return over_seeds(str(net), colour, counts, [_means(values["deleted"], "errors") for values in net.values])


def _permuted(net: Group[Net], colour: int) -> Series:
    """The error at each number of swaps by their mean τ, as points from the most permuted order to the original."""
    by_seed = zip(*(_means(values["swapped"], "taus") for values in net.values), strict=True)
    taus = [statistics.fmean(seeds) for seeds in by_seed]
    order = sorted(range(len(taus)), key=lambda i: taus[i])
    errors = [_means(values["swapped"], "errors") for values in net.values]
    x = [round(taus[i], 4) for i in order]
    return over_seeds(str(net), colour, x, [[seed[i] for i in order] for seed in errors], marks=True)


def _means(steps: list[dict[str, Any]], key: str) -> list[float]:
    return [statistics.fmean(step[key]) for step in steps]


def path_figure(nets: Sequence[Group[Net]]) -> Figure:
    """The gradient along single paths by their length, and of which lengths the deepest net's gradient comes."""
    length, deepest = "length of the path (units)", nets[-1]
    norms = [_by_length(str(net), colour, net, list) for colour, net in enumerate(nets)]
    units = len(deepest.values[0]["norms"]) - 1
    binomial = [100 * math.comb(units, k) / 2**units for k in range(units + 1)]
    shares = [
        over_seeds("paths", 2, range(units + 1), [binomial]),
        _by_length("gradient", 0, deepest, lambda norms: [100 * share for share in gradient_shares(norms)]),
    ]
    return Figure(
        "paths",
        TEXT("figures.paths.caption"),
        [
            Panel(TEXT("figures.paths.norms"), length, "mean norm", norms, y_log=True),
            Panel(TEXT("figures.paths.shares", net=deepest), length, "share (%)", shares),
        ],
    )


def _by_length(label: str, colour: int, net: Group[Net], of: Callable[[list[float]], list[float]]) -> Series:
    seeds = [of(values["norms"]) for values in net.values]
    return over_seeds(label, colour, range(len(seeds[0])), seeds)
