"""The study `responses`: its plan, its claims, and what it shows."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from resnetlab.studies.figures.figure import Figure, Panel, Table, table
from resnetlab.studies.figures.series import over_seeds
from resnetlab.studies.frame.claims import Claim, claim, less, more, rows
from resnetlab.studies.frame.evidence import Evidence, Group, Groups, Metric
from resnetlab.studies.frame.measurement import Weights, named
from resnetlab.studies.frame.networks import Asked, Net, measured_networks, measuring
from resnetlab.studies.frame.statistics import Sample
from resnetlab.studies.frame.study import Plan, StudyResult, stated
from resnetlab.studies.frame.text import Catalogue, Words, joined
from resnetlab.studies.responses.measure import measure

TEXT = Catalogue.of(__name__)
MEASURE = named(measure)
COUNTS = {"quick": 360, "cifar": 2000, "paper": 2000, "weights": 2000}  # test images
GENERALLY = 50.0  # %: of the ranks at which a smaller curve has to lie lower


def plan(scale: str, data: str | None, weights: tuple[Weights, ...] = ()) -> Plan:
    """The responses of every net."""
    images = {"images": COUNTS[scale]}
    return measuring(TEXT, scale, data, weights, Asked(MEASURE, images), **images)


def judge(evidence: Evidence) -> StudyResult:
    """Compare the deviations' means, and their sorted curves, over seeds."""
    nets = measured_networks(evidence, MEASURE)
    figures = [_figure(nets)] if nets.done("plain") or nets.done("residual") else []
    return StudyResult(rows(TEXT, claims(nets, evidence.scale)), figures, [_table(nets)], TEXT("words"), _answer(nets))


def claims(nets: Groups[Net], scale: str) -> Iterator[Claim]:
    """That residual nets' responses are smaller: than plain nets', layer by layer, with depth, and than their input."""
    pairs, residual = nets.pairs(), nets.of("residual")
    trained = scale != "quick"  # for long enough that batch norm's scales have moved
    both_kinds = [net for pair in pairs for net in pair]
    yield claim("smaller", [less(mean_std, r, than=p) for p, r in pairs], tested=trained)
    below = [more(share_below(p), r, than=GENERALLY, plain=p) for p, r in pairs]
    yield claim("ranks", below, needs=both_kinds, tested=trained)
    yield claim(
        "deeper",
        [less(mean_std, b, than=a) for a, b in pairwise(residual)],
        needs=residual,
        cell=lambda: {"nets": [f"{net} {Sample(net.of(mean_std)):.2f}" for net in residual]},
        tested=trained,
    )
    yield claim("adds_less", [less(share, net, than=1.0) for net in residual[-1:]])


def mean_std(values: dict[str, Any]) -> float:
    """The mean standard deviation over the units' layers, without the stem's, which both kinds of net have."""
    return statistics.fmean(_of_units(values))


def share(values: dict[str, Any]) -> float:
    """‖F‖/‖h‖, mean over units."""
    return statistics.fmean(s for s in values["shares"] if s is not None)


def share_below(plain: Group[Net]) -> Metric:
    """The share of ranks in % at which a net's sorted curve lies below the mean curve of the plain nets."""

    def metric(values: dict[str, Any]) -> float:
        above = [statistics.fmean(ranked) for ranked in zip(*map(_sorted, plain.values), strict=True)]
        return 100 * statistics.fmean(a > b for a, b in zip(above, _sorted(values), strict=True))

    return metric


def _of_units(values: dict[str, Any]) -> list[float]:
    stem = sum(not name.startswith("layer") for name in values["layers"])
    stds: list[float] = values["stds"]
    return stds[stem:]


def _sorted(values: dict[str, Any]) -> list[float]:
    return sorted(values["stds"], reverse=True)


def _figure(nets: Groups[Net]) -> Figure:
    shown = [net for net in nets.values() if net.done]

    def panel(title: Words, x_label: str, ranked: bool) -> Panel:
        lines = []
        for colour, net in enumerate(shown):
            seeds = [_sorted(values) if ranked else values["stds"] for values in net.values]
            lines.append(over_seeds(str(net), colour, range(1, len(seeds[0]) + 1), seeds))
        return Panel(title, x_label, "std of the response", lines)

    panels = [
        panel(TEXT("figures.responses.ordered"), "layer", ranked=False),
        panel(TEXT("figures.responses.ranked"), "rank", ranked=True),
    ]
    shares = [
        over_seeds(str(net), shown.index(net), range(1, len(seeds[0]) + 1), seeds)
        for net in nets.done("residual")
        if (seeds := [values["shares"] for values in net.values])
    ]
    if shares:
        panels.append(Panel(TEXT("figures.responses.shares"), "unit", "‖F‖ / ‖h‖", shares))
    return Figure("responses", TEXT("figures.responses.caption"), panels)


def _table(nets: Groups[Net]) -> Table:
    cells: list[list[Words]] = []
    for net in nets.values():
        if not net.done:
            cells.append([str(net), "–", "–", "–", "–", "0"])
            continue
        stds = [statistics.fmean(seeds) for seeds in zip(*map(_of_units, net.values), strict=True)]
        cells.append(
            [
                str(net),
                net.cell(mean_std),
                f"{statistics.median(stds):.2f}",
                f"{max(stds):.2f}",
                net.cell(share) if net.key.kind == "residual" else "–",
                str(len(net.done)),
            ]
        )
    return table(TEXT, "deviations", cells)


def _answer(nets: Groups[Net]) -> Words:
    if not (pairs := nets.whole_pairs()):
        return TEXT("answer.open")
    plain, residual = pairs[-1]
    smaller, ratio = plain.mean(mean_std) > residual.mean(mean_std), residual.mean(share)
    size = TEXT(
        "answer.smaller" if smaller else "answer.no_smaller",
        depth=residual.key.depth,
        plain=Sample(plain.of(mean_std)),
        residual=Sample(residual.of(mean_std)),
    )
    adds = "answer.adds_no_less"
    if ratio < 1:
        adds = "answer.adds_less" if ratio > 0.05 else "answer.adds_about_nothing"
    return joined([size, TEXT(adds, share=ratio)])


STUDY = stated(TEXT, plan=plan, judge=judge, takes_weights=True)
