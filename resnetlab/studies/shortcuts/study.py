"""The study `shortcuts`: its plan, its claims, and what it says of them."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

from resnetlab.studies.frame.claims import Claim, Interval, Judged, claim, comparison, holds, more, rows
from resnetlab.studies.frame.costs import (
    BUSY_RULE,
    Costs,
    base_name,
    cost_table,
    longer,
    measure_networks,
    sentence_of_times,
    times,
)
from resnetlab.studies.frame.evidence import Evidence, Group, Groups, all_measured, measured_by, runs_by, test_error
from resnetlab.studies.frame.measurement import Measurement, Weights, named
from resnetlab.studies.frame.scales import base, for_depth
from resnetlab.studies.frame.statistics import CONTRADICTED, REPRODUCED, decide, difference
from resnetlab.studies.frame.study import Plan, StudyResult, planned, stated
from resnetlab.studies.frame.text import Catalogue, Words, joined
from resnetlab.studies.shortcuts.figures import KINDS, OPTIONS, Net, error_table, net_of, times_figure
from resnetlab.studies.shortcuts.measure import measure_padding

TEXT = Catalogue.of(__name__)
MEASURE_PADDING, MEASURE_NETWORKS = named(measure_padding), named(measure_networks)
SHARE = 0.5  # of what a shortcut gains over none: what the options may differ by and be called alike
COUNTS = ("parameters", "multiply_adds", "training_bytes")
Names = tuple[str, ...]  # of networks that are alike but for the option, in the order of OPTIONS


@dataclass(frozen=True)
class Scale:
    """What is trained, and how steps are timed."""

    depths: tuple[int, ...]
    seeds: int
    batch: int  # images of a timed step of the CIFAR nets; of ResNet-34 an eighth
    rounds: int


SCALES = {
    "quick": Scale((20, 56), seeds=3, batch=8, rounds=15),
    "cifar": Scale((20,), seeds=3, batch=32, rounds=25),
    "paper": Scale((56, 110), seeds=5, batch=128, rounds=51),
}
DEPTHS = sorted({depth for scale in SCALES.values() for depth in scale.depths})
NETS = {net_of(kind, depth): Net(kind, depth) for depth in DEPTHS for kind in KINDS}  # by their names in the zoo


def plan(scale: str, data: str | None, weights: tuple[Weights, ...] = ()) -> Plan:
    """Every option and the plain net at every depth and seed; A's padded channels; what the options cost."""
    s, recipe = SCALES[scale], base(scale, data)
    recipes = [
        for_depth(recipe.override(net=net_of(kind, depth), seed=seed), depth)
        for seed in range(s.seeds)
        for depth in s.depths
        for kind in KINDS
    ]
    padded = [
        Measurement(MEASURE_PADDING, {"images": 256}, run=r, seed=r.seed) for r in recipes if NETS[r.net].kind == "A"
    ]
    timed = [
        Measurement(MEASURE_NETWORKS, {"nets": nets, "batch": batch, "rounds": s.rounds, "training": True}, alone=True)
        for nets, batch in (
            ([net_of(option, s.depths[0]) for option in OPTIONS], s.batch),
            ([f"resnet34(shortcut={option})" for option in OPTIONS], s.batch // 8),
        )
    ]
    return planned(TEXT, scale, recipes, [*padded, *timed])


def judge(evidence: Evidence) -> StudyResult:
    """Compare the options' errors over seeds, their counts exactly, their times within one run."""
    nets = runs_by(evidence, lambda recipe: NETS[recipe.net], NETS.values())
    depth = max(net.depth for net in nets)
    deepest = [nets[Net(kind, depth)] for kind in KINDS]
    costs: Groups[Names] = measured_by(evidence, MEASURE_NETWORKS, lambda m: tuple(m.settings["nets"]))
    padded = all_measured(evidence, MEASURE_PADDING)
    found = [*claims_of_costs(costs), *claims_of_errors(deepest), claim("padding", [_carries_nothing(padded)])]
    measured = [one for family in costs.values() for one in family.values]
    tables = [
        cost_table(TEXT("costs.caption", batch=next(iter(one.values()))["batch"]), one, TEXT("costs.first"))
        for one in measured
    ]
    return StudyResult(
        rows(TEXT, found),
        [times_figure(measured)] if measured else [],
        [error_table(nets), *tables],
        _words(deepest, _units(padded)),
        _answer(measured, deepest, _units(padded)),
    )


def claims_of_costs(costs: Groups[Names]) -> Iterator[Claim]:
    """That C costs the most, by counts and by the clock."""
    yield claim("most", [_most(nets) for nets in costs.values()])
    longest = [
        longer(nets, nets.key[-1], than=other, net=base_name(nets.key), option=option)
        for nets in costs.values()
        for option, other in zip(OPTIONS[:-1], nets.key[:-1], strict=True)
    ]
    yield claim("longest", longest)


def claims_of_errors(deepest: Sequence[Group[Net]]) -> Iterator[Claim]:
    """That the deepest nets err less from option A to C, but that this is little beside what any shortcut gains."""
    plain, *options = deepest
    steps = [more(test_error, net, than=following) for net, following in pairwise(options)]
    yield claim("ordered", steps, cell=lambda: {"means": [f"{n.key.kind} {n.mean(test_error):.2f} %" for n in options]})
    yield claim("alike", [_alike(plain, *options)], values={"share": SHARE, "depth": plain.key.depth})


@comparison
def _most(costs: Group[Names]) -> Judged:
    """That nets with C have more of everything that is counted than those with A and B."""
    a, b, c = costs.values[0].values()
    most = all(c[count] > max(a[count], b[count]) for count in COUNTS)
    return holds(most), {"net": base_name(costs.key), "times_as_much": [c[count] / a[count] for count in COUNTS]}


@comparison
def _alike(plain: Group[Net], *options: Group[Net]) -> Judged:
    """That the options differ by less than SHARE of what the first of them gains over the plain net."""
    gain = difference(plain.of(test_error), options[0].of(test_error))
    between = [difference(one.of(test_error), other.of(test_error)) for one, other in combinations(options, 2)]
    largest = max(abs(gap.mean) for gap in between)
    verdict = decide(
        shown=all(gap.verdict_within(SHARE * gain.low) == REPRODUCED for gap in between),
        on_average=largest < SHARE * gain.mean,
        excluded=any(gap.verdict_within(SHARE * gain.high) == CONTRADICTED for gap in between),
    )
    return verdict, {"largest": largest, "gain": Interval(gain)}


@comparison
def _carries_nothing(padded: Group[str]) -> Judged:
    """That h = 0 and y = F in the channels that A pads, beside others where h is not 0."""
    units = _units(padded)
    shortcut, gap = (max((u[key] for u in units), default=0.0) for key in ("largest_shortcut", "largest_gap"))
    kept = min((u["shortcut_rms_kept"] for u in units), default=0.0)
    counts = {"units": len(units), "nets": len(padded.done)}
    return holds(shortcut == 0 == gap and kept > 0), {**counts, "shortcut": shortcut, "gap": gap, "kept": kept}


def _units(padded: Group[str]) -> list[dict[str, Any]]:
    """The units that pad, of all networks that were measured."""
    return [unit for values in padded.values for unit in values["units"]]


def _words(deepest: Sequence[Group[Net]], units: list[dict[str, Any]]) -> Words:
    """How C compares with A in the deepest nets, and what the branch does in the units that pad."""
    _, a, _, c = deepest
    words: list[Words] = []
    if a.done and c.done:
        rise = difference(c.of(test_error), a.of(test_error))
        beside = ("words.c_is_not_told_apart", "words.c_is_worse", "words.c_is_better")[rise.side]
        words.append(TEXT(beside, depth=c.key.depth, rise=Interval(rise)))
    if units:
        branch = statistics.fmean(u["branch_rms_added"] / u["branch_rms_kept"] for u in units)
        words.append(TEXT("words.padding", branch=branch))
    return joined(words, "\n\n")


def _answer(measured: Sequence[Costs], deepest: Sequence[Group[Net]], units: list[dict[str, Any]]) -> Words:
    """What C costs, the test errors of the deepest nets by kind, and whether A's padded channels carry nothing."""
    parts: list[Words] = []
    for nets in measured[-1:]:
        a, _, c = nets
        kept = nets[c]["training_bytes"] / nets[a]["training_bytes"]
        parts.append(TEXT("answer.activations", net=base_name(nets), kept=kept))
        parts.append(sentence_of_times(nets, TEXT("answer.time", clock=times(nets, c, a))))
    if all(net.done for net in deepest):
        kinds = [TEXT("answer.plain") if net.key.kind == "plain" else net.key.kind for net in deepest]
        means = [TEXT("answer.mean", kind=k, error=n.mean(test_error)) for k, n in zip(kinds, deepest, strict=True)]
        parts.append(TEXT("answer.errors", depth=deepest[0].key.depth, means=means))
    if units:
        nothing = all(u["largest_shortcut"] == 0 == u["largest_gap"] for u in units)
        parts.append(TEXT("answer.carries_nothing" if nothing else "answer.carries_something"))
    return joined(parts)


STUDY = stated(TEXT, plan=plan, judge=judge, busy=BUSY_RULE)
