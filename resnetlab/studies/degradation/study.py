"""The study `degradation`: its plan, its claims, and what it shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from resnetlab.measuring.reported import REPORTED
from resnetlab.studies.figures.figure import Figure, Panel, Table, table
from resnetlab.studies.figures.series import error_lines
from resnetlab.studies.frame.claims import Claim, claim, less, more, no_more, rows
from resnetlab.studies.frame.evidence import Evidence, Group, Groups, Metric, runs_by, test_error, train_error
from resnetlab.studies.frame.measurement import Weights
from resnetlab.studies.frame.networks import KINDS, Net, net_named, of_both_kinds
from resnetlab.studies.frame.scales import base
from resnetlab.studies.frame.statistics import difference
from resnetlab.studies.frame.study import Plan, Scale, StudyResult, planned, stated
from resnetlab.studies.frame.text import Catalogue, Words, joined

TEXT = Catalogue.of(__name__)
TOLERANCE = 1.0  # points by which a deeper residual net's training error may be higher
FAIL = 60.0  # %: plain-110's error is above this (He 2015, Figure 6, caption)
FIRST, LAST = 20, 56  # layers of the plain nets whose curves the paper compares (Figure 6, left): 20, 32, 44, 56
SCALES = {
    "quick": Scale((8, 20, 56), seeds=5),
    "cifar": Scale((20, 56), seeds=3),
    "paper": Scale((20, 32, 44, 56, 110), seeds=5),
}


def plan(scale: str, data: str | None, weights: tuple[Weights, ...] = ()) -> Plan:
    """Plain and residual nets at every depth and seed."""
    s = SCALES[scale]
    return planned(TEXT, scale, of_both_kinds(base(scale, data), s.depths, s.seeds))


def judge(evidence: Evidence) -> StudyResult:
    """Compare nets of each kind with the next shallower ones, and the kinds with each other, over seeds."""
    nets = runs_by(evidence, lambda recipe: net_named(recipe.net))
    words = _words(nets)
    figures = [_figure(nets)] if evidence.outcomes else []
    return StudyResult(rows(TEXT, claims(nets, evidence.scale)), figures, [_table(nets)], words, answer=words)


def claims(nets: Groups[Net], scale: str) -> Iterator[Claim]:
    """How errors change from each depth to the next, in the paper's order, and how the kinds compare at 56 layers."""
    plain = [net for net in nets.of("plain") if FIRST <= net.key.depth <= LAST]
    residual = [net for net in nets.of("residual") if net.key.depth >= FIRST]
    twins = [(p, r) for p, r in nets.pairs() if p.key.depth == LAST]
    enough_images = scale != "quick"  # for residual nets to improve with depth

    def along(kind: Sequence[Group[Net]], error: Metric) -> Callable[[], dict[str, Any]]:
        return lambda: {"errors": [f"{net.key.depth}: {net.cell(error, '.1f')} %" for net in kind]}

    yield claim(
        "plain_rises",
        [more(train_error, deeper, than=net) for net, deeper in pairwise(plain)],
        cell=along(plain, train_error),
    )
    yield claim(
        "residual_does_not",
        [no_more(train_error, deeper, than=residual[0], by=TOLERANCE) for deeper in residual[1:]],
        values={"tolerance": TOLERANCE},
        cell=along(residual, train_error),
    )
    yield claim(
        "residual_trains_lower",
        [less(train_error, deeper, than=net) for net, deeper in pairwise(residual)],
        tested=enough_images,
        cell=along(residual, train_error),
    )
    yield claim("trains_better", [less(train_error, r, than=p) for p, r in twins], values={"high": LAST})
    yield claim("tests_better", [less(test_error, r, than=p) for p, r in twins], values={"high": LAST})
    yield claim(
        "residual_falls",
        [less(test_error, deeper, than=net) for net, deeper in pairwise(residual)],
        tested=enough_images,
        cell=along(residual, test_error),
    )
    deep = [net for net in nets.of("plain") if net.key.depth == 110]
    yield claim("plain_110", [more(test_error, net, than=FAIL) for net in deep])


def _figure(nets: Groups[Net]) -> Figure:
    depths = sorted({net.depth for net in nets})
    panels = []
    for kind in KINDS:
        by_depth = [error_lines(f"{kind}-{d}", i, nets[Net(kind, d)].runs) for i, d in enumerate(depths)]
        if series := [line for lines in by_depth for line in lines]:
            panels.append(Panel(TEXT(f"figures.curves.{kind}"), "epoch", "error (%)", series, (0.0, 100.0)))
    caption = [TEXT("figures.curves.caption")]
    if any(net.failed for net in nets.values()):
        caption.append(TEXT("figures.curves.failed"))
    return Figure("curves", joined(caption), panels)


def _table(nets: Groups[Net]) -> Table:
    cells: list[list[Words]] = []
    for key, net in nets.items():
        on_paper = REPORTED.get(f"cifar_{KINDS[key.kind]}{key.depth}")
        cells.append(
            [
                str(key),
                *(net.cell(error) for error in (train_error, test_error)),
                f"{on_paper.error:.2f}" if on_paper and on_paper.error else "–",
                str(len(net.done)),
                f"{net.mean(lambda result: result['seconds']):.0f}" if net.done else "–",
            ]
        )
    return table(TEXT, "errors", cells)


def _words(nets: Groups[Net]) -> Words:
    plain, residual = nets.of("plain")[-1], nets.of("residual")[-1]
    if plain.failed or residual.failed:
        return TEXT("words.open")
    seeds, behind = plain.of(train_error), difference(plain.of(train_error), residual.of(train_error)).mean
    beyond = difference(plain.of(test_error), seeds).mean
    means = {"plain": plain.mean(train_error), "residual": residual.mean(train_error)}
    if len(seeds) > 1:
        ends = TEXT("words.ends_with_range", **means, lowest=min(seeds), highest=max(seeds))
    else:
        ends = TEXT("words.ends", **means)
    test = TEXT("words.test_above" if beyond >= 0 else "words.test_below", points=abs(beyond))
    if behind <= TOLERANCE:
        meaning = TEXT("words.no_degradation")
    else:
        meaning = TEXT("words.optimisation" if behind > beyond else "words.generalisation")
    return joined([ends, test, meaning])


STUDY = stated(TEXT, plan=plan, judge=judge)
