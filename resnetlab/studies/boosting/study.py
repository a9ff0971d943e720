"""The study `boosting`: its plan, its claims, and what it shows."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from resnetlab.studies.boosting.measure import measure
from resnetlab.studies.figures.figure import Figure, Panel, Series, Table, table
from resnetlab.studies.figures.series import over_seeds
from resnetlab.studies.frame.claims import Claim, claim, less, more, rows
from resnetlab.studies.frame.evidence import Evidence, Group, Metric
from resnetlab.studies.frame.measurement import Weights, named
from resnetlab.studies.frame.networks import Asked, Net, measured_networks, measuring
from resnetlab.studies.frame.statistics import Sample
from resnetlab.studies.frame.study import Plan, StudyResult, stated
from resnetlab.studies.frame.text import Catalogue, Words

TEXT = Catalogue.of(__name__)
MEASURE = named(measure)
COUNTS = {"quick": 360, "cifar": 2000, "paper": 2000, "weights": 2000}  # test images
MOST = 50.0  # %: of the units, after which the head's loss has to be lower than before


def plan(scale: str, data: str | None, weights: tuple[Weights, ...] = ()) -> Plan:
    """Directions, read-outs and sizes of the residual nets; plain nets have no shortcut to read out through."""
    images = {"images": COUNTS[scale]}
    return measuring(TEXT, scale, data, weights, Asked(MEASURE, images, kinds=("residual",)), **images)


def judge(evidence: Evidence) -> StudyResult:
    """Compare cosines with zero and with those of other images; see whether the head's answers get better."""
    nets = measured_networks(evidence, MEASURE).of("residual")
    measured = [net for net in nets if net.done]
    figures = [_figure(measured)] if measured else []
    return StudyResult(rows(TEXT, claims(nets)), figures, [_table(nets)], TEXT("words"), _answer(nets))


def claims(nets: list[Group[Net]]) -> Iterator[Claim]:
    """That units of the deepest net step down the loss of their image, that it falls, and that each adds little."""
    deepest = nets[-1:]
    yield claim(
        "downhill",
        [more(cosine("own"), net, than=0.0) for net in deepest],
        cell=lambda: {"chance": _chance(deepest[0])},
    )
    yield claim(
        "of_its_image",
        [more(_beyond_other, net, than=0.0) for net in deepest],
        cell=lambda: {whose: Sample(deepest[0].of(cosine(whose))) for whose in ("own", "other")},
    )
    yield claim("falls", [more(falls, net, than=MOST) for net in deepest], cell=lambda: _errors(deepest[0]))
    yield claim("small", [less(share, net, than=1.0) for net in deepest])


def cosine(whose: str) -> Metric:
    """The cosine of F with the descent direction of its "own" image or an "other": mean over units that keep sizes."""
    return lambda values: statistics.fmean(a[whose] for a in values["alignments"].values() if a[whose] is not None)


def _beyond_other(values: dict[str, Any]) -> float:
    return cosine("own")(values) - cosine("other")(values)


def falls(values: dict[str, Any]) -> float:
    """The share of units in % after which the head's loss is lower than before."""
    losses = [r["loss"] for r in values["read_outs"]]
    return 100 * statistics.fmean(after < before for before, after in pairwise(losses))


def share(values: dict[str, Any]) -> float:
    """‖F‖/‖h‖, mean over units."""
    return statistics.fmean(s for s in values["shares"].values() if s is not None)


def _chance(net: Group[Net]) -> float:
    """The standard deviation of a random direction's cosine, mean over the units."""
    return statistics.fmean(a["chance"] for values in net.values for a in values["alignments"].values())


def _errors(net: Group[Net]) -> dict[str, float]:
    """The head's error right after the stem, before the last stage and after the last unit, mean over seeds."""
    seeds = [(values["stages"], [r["error"] for r in values["read_outs"]]) for values in net.values]
    return {
        "stem": statistics.fmean(errors[0] for _, errors in seeds),
        "before": statistics.fmean(errors[stages.index(max(stages))] for stages, errors in seeds),
        "last": statistics.fmean(errors[-1] for _, errors in seeds),
    }


def _figure(nets: list[Group[Net]]) -> Figure:
    cosines: dict[str, list[Series]] = {"own": [], "other": []}
    errors, shares = [], []
    for i, net in enumerate(nets):
        colour, units = 2 * i, net.values[0]["units"]
        aligned = {unit: name for unit, name in enumerate(units, 1) if name in net.values[0]["alignments"]}
        for whose, lines in cosines.items():
            seeds = [[values["alignments"][name][whose] for name in aligned.values()] for values in net.values]
            lines.append(over_seeds(f"{net} {whose}", colour + (whose == "other"), list(aligned), seeds))
        read = [[r["error"] for r in values["read_outs"]] for values in net.values]
        errors.append(over_seeds(str(net), colour, range(len(units) + 1), read))
        sizes = [[values["shares"][name] for name in units] for values in net.values]
        shares.append(over_seeds(str(net), colour, range(1, len(units) + 1), sizes))
    panels = [
        Panel(TEXT("figures.units.cosine"), "unit", "cosine", [*cosines["own"], *cosines["other"]]),
        Panel(TEXT("figures.units.read_out"), "unit (0: stem)", "error (%)", errors, (0.0, 100.0)),
        Panel(TEXT("figures.units.size"), "unit", "‖F‖ / ‖h‖", shares),
    ]
    return Figure("units", TEXT("figures.units.caption"), panels)


def _table(nets: list[Group[Net]]) -> Table:
    cells: list[list[Words]] = []
    for net in nets:
        shown = ["–"] * 6
        if net.done:
            cosines = [net.cell(cosine(whose), ".3f") for whose in ("own", "other")]
            shown = [*cosines, *(f"{error:.1f}" for error in _errors(net).values()), net.cell(share)]
        cells.append([str(net), *shown, str(len(net.done))])
    return table(TEXT, "units", cells)


def _answer(nets: list[Group[Net]]) -> Words:
    whole = [net for net in nets if net.whole]
    if not whole:
        return TEXT("answer.open")
    net = whole[-1]
    own, fall = (net.mean(metric) for metric in (cosine("own"), falls))
    key = "answer.down" if own > _chance(net) else "answer.hardly_down" if own > 0 else "answer.not_down"
    return TEXT(key, net=net, own=own, falls=fall, **_errors(net))


STUDY = stated(TEXT, plan=plan, judge=judge, takes_weights=True)
