"""The study `depth`: its plan, its claims, and what it says of them."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from resnetlab.studies.depth.figures import cost_figure, error_figure, step_figure, tables, time_per_image
from resnetlab.studies.depth.measure import FIRST, FIRST_152, FIRST_1202, measure_first_steps
from resnetlab.studies.frame.claims import Claim, Comparison, Judged, claim, less, more, no_more, rows
from resnetlab.studies.frame.costs import Costs, measure_networks, sentence_of_times
from resnetlab.studies.frame.evidence import (
    Evidence,
    Group,
    Groups,
    all_measured,
    measured_by,
    runs_by,
    test_error,
    train_error,
)
from resnetlab.studies.frame.measurement import Measurement, Weights, named
from resnetlab.studies.frame.networks import net_named
from resnetlab.studies.frame.scales import base, for_depth, warmed_up
from resnetlab.studies.frame.statistics import Sample
from resnetlab.studies.frame.study import Plan, StudyResult, planned, stated
from resnetlab.studies.frame.text import Catalogue, Words, joined
from resnetlab.training.recipe import Recipe

TEXT = Catalogue.of(__name__)
FIRST_STEPS, COSTS = named(measure_first_steps), named(measure_networks)
DEEPEST = 1202
STARTED = 80.0  # % training error: below it the paper takes the training of 110 layers to have begun (section 4.2)
LAST = 4  # the last quarter of the first steps counts
FITTED = 0.1  # % training error that 1,202 layers stay below in the paper
TOLERANCE = 1.0  # points by which 110 layers' training error may be above 56 layers'


@dataclass(frozen=True)
class Scale:
    """What is trained at a scale, and how what it costs is timed."""

    depths: tuple[int, ...]  # of the runs
    seeds: dict[int, int]  # of depths that have others than `usual`
    usual: int
    first: dict[str, int]  # nets too deep for the scale, and how many first steps they take
    batch: int  # images of a timed step
    rounds: int


WARMED = (110,)  # depths that the scale quick also trains with the paper's warm-up, with as many seeds

SCALES = {
    "quick": Scale((8, 20, 56, 110), {110: 3}, 5, first={FIRST_1202: 40, FIRST_152: 28}, batch=2, rounds=7),
    "cifar": Scale((20, 56, 110), {}, 3, first={FIRST_1202: 200, FIRST_152: 200}, batch=2, rounds=15),
    "paper": Scale((20, 32, 44, 56, 110, DEEPEST), {DEEPEST: 3}, 5, first={FIRST_152: 200}, batch=16, rounds=25),
}
TIMED = (20, 56, 110, 302, DEEPEST)


def plan(scale: str, data: str | None, weights: tuple[Weights, ...] = ()) -> Plan:
    """Runs by depth and seed; first steps of the nets that are too deep for the scale; costs by depth."""
    s, recipe = SCALES[scale], base(scale, data)
    recipes = [
        for_depth(recipe.override(net=f"cifar_resnet{depth}", seed=seed), depth)
        for seed in range(s.usual)
        for depth in s.depths
        if seed < s.seeds.get(depth, s.usual)
    ]
    if scale == "quick":  # the paper's recipe has it from 110 layers on
        recipes += [warmed_up(r) for r in recipes if net_named(r.net).depth in WARMED]
        recipes.sort(key=lambda recipe: recipe.seed)
    first = [
        Measurement(FIRST_STEPS, {"net": net, "steps": steps, "batch": 32, **FIRST[net]}, data=recipe.data, seed=seed)
        for net, steps in s.first.items()
        for seed in range(3)
    ]
    nets = {"nets": [f"cifar_resnet{depth}" for depth in TIMED], "batch": s.batch, "rounds": s.rounds, "training": True}
    return planned(TEXT, scale, recipes, [*first, Measurement(COSTS, nets, alone=True)])


def judge(evidence: Evidence) -> StudyResult:
    """Compare errors by depth over seeds; show costs by depth."""
    nets, warmed = (_by_depth(evidence, warmed) for warmed in (False, True))
    first = measured_by(evidence, FIRST_STEPS, lambda m: str(m.settings["net"]), order=FIRST)
    costs = all_measured(evidence, COSTS).values
    figures = [error_figure(nets)] if any(net.done for net in nets.values()) else []
    figures += [step_figure(first)] if any(net.done for net in first.values()) else []
    figures += map(cost_figure, costs)
    return StudyResult(
        rows(TEXT, claims(nets, warmed, first)), figures, tables(nets, costs), _words(costs), _answer(nets, first)
    )


def _by_depth(evidence: Evidence, warmed: bool) -> Groups[int]:
    """The runs by depth: those that a scale adds with the paper's warm-up, or the others."""

    def is_meant(one: Any) -> bool:
        return isinstance(one, Recipe) and (one.data == "digits" and one.warmup == "train_error") is warmed

    outcomes = [o for o in evidence.outcomes if is_meant(o.recipe)]
    failed = [one for one in evidence.failed if is_meant(one)]
    return runs_by(replace(evidence, outcomes=outcomes, failed=failed), lambda recipe: net_named(recipe.net).depth)


def claims(nets: Groups[int], warmed: Groups[int], first: Groups[str]) -> Iterator[Claim]:
    """The errors of deep nets that were trained in full, and that deeper ones begin to learn in their first steps."""
    deepest, remedied = nets.all(110, DEEPEST), warmed.all(110)
    warmed_ones = [net.called(TEXT("warmed", depth=net.key)) for net in remedied]
    usual = [*nets.all(56), *(warmed_ones or nets.all(110))]
    yield claim(
        "trains_as_well",
        [no_more(train_error, usual[1], than=usual[0], by=TOLERANCE)] if len(usual) == 2 else [],
        values={"tolerance": TOLERANCE, "how": TEXT("warm_up") if remedied else ""},
    )
    without = [(net, twin) for net in warmed_ones for twin in nets.all(110)]
    yield claim("warm_up", [more(train_error, twin, than=net) for net, twin in without])
    yield claim(
        "fitted",
        [less(train_error, net, than=FITTED) for net in nets.all(DEEPEST)],
        values={"fitted": FITTED},
    )
    yield claim("overfitted", [more(test_error, deepest[1], than=deepest[0])] if deepest else [])
    if FIRST_1202 in first:
        yield claim("starts_1202", [_starts(first[FIRST_1202])], values={"started": STARTED})
    if FIRST_152 in first:
        yield claim("starts_152", [_starts(first[FIRST_152])], values={"started": STARTED})


def _starts(net: Group[str]) -> Comparison:
    """That learning has begun, by the mark that the paper uses."""
    below = less(_last_error, net, than=STARTED)

    def judge() -> Judged:
        return below.verdict, {**below.words, "steps": len(net.values[0]["errors"])}

    return Comparison((net,), judge, asks=below.asks)


def _last_error(values: dict[str, Any]) -> float:
    """The training error in % over the last quarter of the first steps."""
    errors = values["errors"]
    return statistics.fmean(errors[-max(1, len(errors) // LAST) :])


def _words(costs: list[Costs]) -> Words:
    """How time and memory grow with depth."""
    if not costs:
        return ""
    shallowest, *_, deepest = costs[0].values()
    counted = TEXT(
        "words.counted",
        first=shallowest["depth"],
        last=deepest["depth"],
        adds=deepest["multiply_adds"] / shallowest["multiply_adds"],
        kept=deepest["training_bytes"] / shallowest["training_bytes"],
    )
    timed = TEXT("words.timed", clock=time_per_image(deepest) / time_per_image(shallowest))
    return joined([counted, sentence_of_times(costs[0], timed)])


def _answer(nets: Groups[int], first: Groups[str]) -> Words:
    """The errors of the deepest net that was trained in full, and of those that took first steps."""
    parts: list[Words] = []
    if done := [net for net in nets.values() if net.done]:
        train, test = (Sample(done[-1].of(error)) for error in (train_error, test_error))
        parts.append(TEXT("answer.deepest", depth=done[-1].key, train=train, test=test))
    started = [net for net in first.values() if net.done]
    parts += [TEXT("answer.first_steps", net=net, error=Sample(net.of(_last_error))) for net in started]
    return joined(parts)


STUDY = stated(TEXT, plan=plan, judge=judge, started=STARTED)
