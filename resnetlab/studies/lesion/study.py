"""The study `lesion`: its plan, its claims, and what it says of them."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from resnetlab.measuring.paths import decay, gradient_shares, mean_length, middle, share_of_paths
from resnetlab.studies.figures.figure import Table, table
from resnetlab.studies.frame.claims import (
    Claim,
    Comparison,
    Instead,
    Interval,
    Judged,
    asked,
    claim,
    holds,
    less,
    more,
    rows,
)
from resnetlab.studies.frame.evidence import Evidence, Group, Groups, value
from resnetlab.studies.frame.measurement import Weights, named
from resnetlab.studies.frame.networks import Asked, Net, measured_networks, measuring
from resnetlab.studies.frame.scales import WEIGHTS
from resnetlab.studies.frame.statistics import NOT_JUDGED, Sample, difference
from resnetlab.studies.frame.study import Plan, StudyResult, stated
from resnetlab.studies.frame.text import Catalogue, Words, joined
from resnetlab.studies.lesion.figures import error_figure, path_figure
from resnetlab.studies.lesion.measure import STEPS, measure, paths

TEXT = Catalogue.of(__name__)
MEASURE, PATHS = named(measure), named(paths)
# Test images; those on which many units are deleted or moved; those of path gradients; draws of each.
SETTINGS = {
    "quick": {"images": 360, "fewer": 360, "few": 64, "draws": 5},
    "cifar": {"images": 2000, "fewer": 500, "few": 32, "draws": 4},
    "paper": {"images": 10000, "fewer": 1000, "few": 64, "draws": 5},
    WEIGHTS: {"images": 2000, "fewer": 500, "few": 32, "draws": 4},
}
BARELY = 1.0  # points that the error may rise by, on average, if one unit is deleted; as for "as well" in all studies
LINE = 0.9  # of the variance of the gradient's logarithm that a line has to explain, if it falls exponentially
LOST = 80.0  # %: the error from which a net of ten classes counts as near chance, 90 %
JUMP = 0.5  # share of the whole rise that no single step may reach if it is smooth

intact = value("intact")  # the error in % before any lesion


def plan(scale: str, data: str | None, weights: tuple[Weights, ...] = ()) -> Plan:
    """Lesions of every net, and the paths of the residual ones."""
    s = SETTINGS[scale]
    lesions = Asked(MEASURE, {key: s[key] for key in ("images", "fewer", "draws")})
    gradients = Asked(PATHS, {"images": s["few"], "draws": s["draws"]}, kinds=("residual",))
    return measuring(TEXT, scale, data, weights, lesions, gradients, **s)


def judge(evidence: Evidence) -> StudyResult:
    """Compare what one deletion costs each kind of net, how errors grow with more, and which paths carry gradient."""
    nets, gradients = measured_networks(evidence, MEASURE), measured_networks(evidence, PATHS)
    shown, unrolled = [*nets.done("plain"), *nets.done("residual")], gradients.done("residual")
    figures = [draw(lines) for draw, lines in ((error_figure, shown), (path_figure, unrolled)) if lines]
    found = rows(TEXT, [*lesion_claims(nets, evidence.scale), *path_claims(gradients)])
    return StudyResult(found, figures, [_table(nets)], TEXT("words"), _answer(nets, gradients))


def lesion_claims(nets: Groups[Net], scale: str) -> Iterator[Claim]:
    """What deleting one unit costs nets of each kind, and what deleting or moving several costs residual nets."""
    deepest, plain = nets.of("residual")[-1:], nets.done("plain")[-1:]
    changing = [net for net in deepest if not net.done or not all(all(values["same_size"]) for values in net.values)]
    yield claim("barely", [less(rise, net, than=BARELY) for net in deepest], values={"barely": BARELY})
    yield claim("lost", [more(error_without_one, net, than=LOST) for net in nets.of("plain")])
    yield claim("costs_less", [less(rise, residual, than=plain) for plain, residual in nets.pairs()])
    yield claim("changing", [_missed_more(net) for net in changing], tested=scale != "quick")
    yield claim("smooth", [_smooth(net, plain) for net in deepest], values={"jump": JUMP, "count": STEPS})
    yield claim("permuted", [less(tau_correlation, net, than=0.0) for net in deepest])


def path_claims(nets: Groups[Net]) -> Iterator[Claim]:
    """The paper's counts of paths, from the binomial distribution, and the paths along which the gradient comes."""
    deepest = nets.of("residual")[-1:]
    yield claim("arithmetic", [Comparison((), _arithmetic)])
    yield claim(
        "falls",
        [one for net in deepest for one in (less(_slope, net, than=0.0), more(_fit, net, than=LINE))],
        values={"line": 100 * LINE},
        cell=lambda: {"slope": Sample(deepest[0].of(_slope)), "fit": 100 * deepest[0].mean(_fit)},
    )
    yield claim("shorter", [less(_beyond_half, net, than=0.0) for net in deepest], cell=lambda: _where_from(deepest[0]))


def rises(values: dict[str, Any], same_size: bool = True) -> list[float]:
    """Points by which the error rises without each unit that keeps sizes, or without each that changes them."""
    kept = zip(values["without"], values["same_size"], strict=True)
    return [error - values["intact"] for error, same in kept if error is not None and same is same_size]


def rise(values: dict[str, Any]) -> float:
    """Points by which the error rises if one unit is deleted, mean over the units that keep sizes."""
    return statistics.fmean(rises(values))


def error_without_one(values: dict[str, Any]) -> float:
    """The error in % without one unit, mean over the units that keep sizes."""
    return rise(values) + intact(values)


def _missed_more(net: Group[Net]) -> Comparison:
    """That the error rises more without a unit that changes sizes than without one that keeps them."""

    def judge() -> Judged:
        keeping = net.of(rise)
        changing = net.of(lambda values: statistics.fmean(rises(values, same_size=False)))
        gap = difference(changing, keeping)
        words = {"changing": Sample(changing), "keeping": Sample(keeping), "gap": Interval(gap)}
        return gap.verdict_above(0), words

    changing, keeping = (net.called(TEXT(f"sizes.{which}", net=net)) for which in ("changing", "keeping"))
    return Comparison((net,), judge, asks=asked("above", changing, keeping))


def _smooth(net: Group[Net], beside: list[Group[Net]]) -> Comparison:
    """That no step is a large share of the rise; some other networks are shown beside it."""

    def judge() -> Judged:
        if not (steps := _largest_steps(net)):
            raise Instead(TEXT("claims.smooth.no_rise"), NOT_JUDGED)
        shown = [(one, _largest_steps(one)) for one in (net, *beside)]
        told = [TEXT("claims.smooth.step", net=one, share=f"{Sample(s):.2f}" if s else "–") for one, s in shown]
        return difference(steps, [JUMP] * len(steps)).verdict_below(0), {"steps": told}

    return Comparison((net,), judge, asks=asked("below", net, JUMP))


def _largest_steps(net: Group[Net]) -> list[float]:
    """The largest step of each seed whose error rises."""
    return [step for values in net.values if (step := largest_step(values)) is not None]


def largest_step(values: dict[str, Any]) -> float | None:
    """The largest rise from one number of deleted units to the next, as a share of the whole rise; None without one."""
    means = [statistics.fmean(step["errors"]) for step in values["deleted"]]
    whole = means[-1] - means[0]
    return max(b - a for a, b in pairwise(means)) / whole if whole > 0 else None


def tau_correlation(values: dict[str, Any]) -> float:
    """Pearson's correlation of Kendall's tau with the error, over all draws of swaps; 0 where either is constant."""
    pairs = [pair for step in values["swapped"] for pair in zip(step["taus"], step["errors"], strict=True)]
    taus, errors = zip(*pairs, strict=True)
    return statistics.correlation(taus, errors) if len(set(taus)) > 1 and len(set(errors)) > 1 else 0.0


def _arithmetic() -> Judged:
    short, most = 100 * share_of_paths(54, 5, 17), 100 * share_of_paths(54, 19, 35)
    return holds(f"{short:.2f}" == "0.45" and most > 95), {"short": short, "most": most}


def _slope(values: dict[str, Any]) -> float:
    """log10 of the factor by which one more unit on a path changes its gradient."""
    return decay(values["norms"])[0]


def _fit(values: dict[str, Any]) -> float:
    """How much of the variance of the gradient's logarithm a line with that slope explains."""
    return decay(values["norms"])[1]


def _length(values: dict[str, Any]) -> float:
    return mean_length(values["norms"])


def _beyond_half(values: dict[str, Any]) -> float:
    """By how many units the gradient's paths are longer, on average, than all paths are: half the units."""
    return _length(values) - (len(values["norms"]) - 1) / 2


def _where_from(net: Group[Net]) -> dict[str, Any]:
    """For a text: how long the gradient's paths are, and between which lengths almost all of it comes."""
    every = [values["norms"] for values in net.values]
    first, last = middle([statistics.fmean(seeds) for seeds in zip(*map(gradient_shares, every), strict=True)])
    return {"lengths": Sample(net.of(_length)), "units": len(every[0]) - 1, "first": first, "last": last}


def _table(nets: Groups[Net]) -> Table:
    cells: list[list[Words]] = []
    for net in nets.values():
        shown = [net.of(intact)]
        for same_size in (True, False):
            shown.append([statistics.fmean(found) for v in net.values if (found := rises(v, same_size))])
        errors = [f"{Sample(seeds):.1f}" if seeds else "–" for seeds in shown]
        cells.append([str(net), *errors, str(len(net.done))])
    return table(TEXT, "errors", cells)


def _answer(nets: Groups[Net], gradients: Groups[Net]) -> Words:
    if not (whole := nets.whole_pairs()):
        return TEXT("answer.open")
    plain, residual = whole[-1]
    costs = TEXT(
        "answer.costs",
        plain=plain,
        residual=residual,
        plain_rise=plain.mean(rise),
        plain_intact=plain.mean(intact),
        residual_rise=residual.mean(rise),
        residual_intact=residual.mean(intact),
    )
    unrolled = gradients[residual.key]
    if not unrolled.whole:
        return costs
    length, units = unrolled.mean(_length), len(unrolled.values[0]["norms"]) - 1
    key = "answer.shorter" if length < units / 2 else "answer.no_shorter"
    return joined([costs, TEXT(key, length=length, half=units / 2, units=units)])


STUDY = stated(TEXT, plan=plan, judge=judge, takes_weights=True, lost=LOST)
