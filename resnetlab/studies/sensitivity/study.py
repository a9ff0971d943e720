"""The study `sensitivity`: its plan, its claims, and what it shows."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from resnetlab.studies.figures.figure import Figure, Panel, Series, Table, table
from resnetlab.studies.figures.series import over_seeds
from resnetlab.studies.frame.claims import Claim, Comparison, Judged, claim, holds, more, rows
from resnetlab.studies.frame.evidence import Evidence, Group, Groups, Metric
from resnetlab.studies.frame.measurement import Weights, named
from resnetlab.studies.frame.networks import Asked, Net, measured_networks, measuring
from resnetlab.studies.frame.statistics import Sample, difference
from resnetlab.studies.frame.study import Plan, StudyResult, stated
from resnetlab.studies.frame.text import Catalogue, Words, joined
from resnetlab.studies.sensitivity.measure import measure

TEXT = Catalogue.of(__name__)
MEASURE = named(measure)
COUNTS = {"quick": 360, "cifar": 500, "paper": 2000, "weights": 500}  # test images
CHANGE = 0.01  # relative size of the change of weights or input
X, H_BEFORE, H_AFTER = 5.0, 5.1, 5.2  # the usual example: F = H − x goes from 0.1 to 0.2
PERCENT = {"change": 100 * CHANGE}


def plan(scale: str, data: str | None, weights: tuple[Weights, ...] = ()) -> Plan:
    """The reactions of every unit of every net."""
    settings = {"images": COUNTS[scale], "change": CHANGE}
    return measuring(TEXT, scale, data, weights, Asked(MEASURE, settings), images=COUNTS[scale])


def judge(evidence: Evidence) -> StudyResult:
    """Compare the reactions of F and H, in logarithms: a factor above 1 is a logarithm above 0."""
    nets = measured_networks(evidence, MEASURE)
    figures = [_figure(nets)] if any(net.done for net in nets.values()) else []
    return StudyResult(rows(TEXT, claims(nets)), figures, [_table(nets)], TEXT("words"), _answer(nets))


def claims(nets: Groups[Net]) -> Iterator[Claim]:
    """The arithmetic of the usual example; that F reacts more than H; and that it reacts more than a plain net's H."""
    deepest, pairs = nets.of("residual")[-1:], nets.pairs()
    yield claim("arithmetic", [Comparison((), _arithmetic)], values={"x": X, "before": H_BEFORE, "after": H_AFTER})
    yield claim(
        "weights",
        [more(_log_factor("weights"), net, than=0.0) for net in deepest],
        values=PERCENT,
        cell=lambda: {
            "factor": _factor(deepest[0].of(_log_factor("weights"))),
            "deviation": 100 * max(deepest[0].of(_deviation)),
        },
    )
    yield claim(
        "input",
        [more(_log_factor("input"), net, than=0.0) for net in deepest],
        values=PERCENT,
        cell=lambda: {"factor": _factor(deepest[0].of(_log_factor("input")))},
    )
    yield claim("than_plain", [_against_plain(plain, residual) for plain, residual in pairs], values=PERCENT)


def _arithmetic() -> Judged:
    of_H = 100 * (H_AFTER - H_BEFORE) / H_BEFORE
    of_F = 100 * (H_AFTER - H_BEFORE) / (H_BEFORE - X)
    return holds(f"{of_H:.0f} {of_F:.0f}" == "2 100"), {"of_H": of_H, "of_F": of_F}


def _against_plain(plain: Group[Net], residual: Group[Net]) -> Comparison:
    """Compare F of a residual net with H of the plain one by their logarithms; in words by geometric means in %."""
    logs = _log_mean("weights_F")
    compared = more(logs, residual, than=plain)

    def judge() -> Judged:
        of_F, of_H = (100 * math.exp(net.mean(logs)) for net in (residual, plain))
        return compared.verdict, {**compared.words, "of_F": of_F, "of_H": of_H}

    return Comparison((residual, plain), judge, asks=compared.asks)


def _log_mean(key: str) -> Metric:
    """The mean logarithm over the units, that of their geometric mean; units without the value are left out."""
    return lambda values: statistics.fmean(math.log(unit[key]) for unit in values["units"] if unit[key])


def _log_factor(of: str) -> Metric:
    """The logarithm of how many times as much F reacts as H, mean over the units."""

    def metric(values: dict[str, Any]) -> float:
        kept = [u for u in values["units"] if u[f"{of}_F"] and u[f"{of}_H"]]
        return statistics.fmean(math.log(u[f"{of}_F"] / u[f"{of}_H"]) for u in kept)

    return metric


def _deviation(values: dict[str, Any]) -> float:
    """The largest relative deviation, over units, of the ratio of reactions to the weights from ‖H‖/‖F‖."""
    kept = [u for u in values["units"] if u["weights_F"] and u["weights_H"] and u["size"]]
    return max(abs(u["weights_F"] / u["weights_H"] * u["size"] - 1) for u in kept)


def _factor(logs: Sequence[float]) -> str:
    """Factors as text: their geometric mean, and from the lowest to the highest seed."""
    mean = f"{math.exp(statistics.fmean(logs)):.2f}"
    return mean if len(logs) < 2 else f"{mean} ({math.exp(min(logs)):.2f} – {math.exp(max(logs)):.2f})"


def _figure(nets: Groups[Net]) -> Figure:
    panels = []
    residual = nets.done("residual")[-1:]
    plain = [net for net in nets.done("plain") if not residual or net.key.depth == residual[0].key.depth][-1:]
    for of in ("weights", "input"):
        lines = [_line(n, f"{of}_{part}", f"{part} of {n}", c) for n in residual for c, part in enumerate("FH")]
        lines += [_line(net, f"{of}_H", f"H of {net}", 2) for net in plain]
        panels.append(Panel(TEXT(f"figures.reactions.{of}"), "unit", "relative change (%)", lines))
    sizes = [_line(net, "size", str(net), c) for c, net in enumerate(nets.done("residual"), 3)]
    if sizes:
        panels.append(Panel(TEXT("figures.reactions.size"), "unit", "100 ‖F‖ / ‖H‖", sizes))
    return Figure("reactions", TEXT("figures.reactions.caption", **PERCENT), panels)


def _line(net: Group[Net], key: str, label: str, colour: int) -> Series:
    seeds = [[None if unit[key] is None else 100 * unit[key] for unit in values["units"]] for values in net.values]
    return over_seeds(label, colour, range(1, len(seeds[0]) + 1), seeds)


def _table(nets: Groups[Net]) -> Table:
    keys = ("weights_F", "weights_H", "input_F", "input_H", "size")
    cells: list[list[Words]] = []
    for net in nets.values():
        shown = ["–"] * len(keys)
        if net.done:
            shown = [f"{Sample([100 * math.exp(log) for log in net.of(_log_mean(key))]):.2f}" for key in keys]
        cells.append([str(net), *shown, str(len(net.done))])
    return table(TEXT, "reactions", cells, **PERCENT)


def _answer(nets: Groups[Net]) -> Words:
    whole = [net for net in nets.of("residual") if net.whole]
    if not whole:
        return TEXT("answer.open")
    net = whole[-1]
    weights, change = (_factor(net.of(_log_factor(of))) for of in ("weights", "input"))
    sentences = [TEXT("answer.factors", net=net, weights=weights, input=change)]
    twins = [plain for plain, other in nets.pairs() if other is net and plain.whole]
    if twins:
        gap = difference(*(one.of(_log_mean("weights_F")) for one in (net, twins[0])))
        unclear = "answer.beside_plain_unclear" if gap.has_interval else "answer.beside_plain_once"
        key = "answer.beside_plain" if gap.side else unclear
        sentences.append(TEXT(key, plain=twins[0], factor=math.exp(gap.mean)))
    return joined(sentences)


STUDY = stated(TEXT, plan=plan, judge=judge, takes_weights=True, **PERCENT)
