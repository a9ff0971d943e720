"""The study `identity`: its plan, its claims, and what it says of them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from resnetlab.studies.frame.claims import Claim, Interval, claim, exact, more, no_more, rows
from resnetlab.studies.frame.evidence import Evidence, Group, Groups, measured_by, runs_by, together, value
from resnetlab.studies.frame.measurement import Measurement, Weights, named
from resnetlab.studies.frame.networks import KINDS, Net, measured_networks, net_named, of_both_kinds
from resnetlab.studies.frame.scales import base
from resnetlab.studies.frame.statistics import difference
from resnetlab.studies.frame.study import Plan, StudyResult, planned, stated
from resnetlab.studies.frame.text import Catalogue, Words, joined
from resnetlab.studies.identity.figures import (
    DEEP,
    SHALLOW,
    SIZES,
    construction_table,
    ends,
    fit_figure,
    fit_table,
    loss,
    training_figure,
)
from resnetlab.studies.identity.measure import construct, fit, train_on

TEXT = Catalogue.of(__name__)
CONSTRUCT, TRAIN_ON, FIT = named(construct), named(train_on), named(fit)
MIXES = {"plain": "Plain()", "residual": "Add()"}
UNITS = (DEEP - 2) // 6  # per stage of the deep net
TOLERANCE = 1.0  # points by which the deep net's training error may end above the shallow net's
FITTED = 0.01  # final loss below which x counts as fitted: 1 % of its variance
RATES = [0.3, 0.1]  # of which each stack has the better
SEEDS = 3

largest = value("exact", "largest")  # the largest difference of a score
changed = value("exact", "changed")  # how many images get another class


@dataclass(frozen=True)
class Scale:
    """How long a constructed net is trained on, and what stacks are fitted."""

    epochs: int
    stacks: tuple[int, ...]  # units of two layers
    steps: int


SCALES = {
    "quick": Scale(epochs=5, stacks=(1, 2, 4, 8, 16), steps=300),
    "cifar": Scale(epochs=3, stacks=(1, 2, 4, 8, 16, 32), steps=1000),
    "paper": Scale(epochs=10, stacks=(1, 2, 4, 8, 16, 32), steps=2000),
}


def plan(scale: str, data: str | None, weights: tuple[Weights, ...] = ()) -> Plan:
    """Shallow nets, which are made deeper and trained on; deep nets from scratch; and stacks of units."""
    s, recipe = SCALES[scale], base(scale, data)
    recipes = of_both_kinds(recipe, (SHALLOW, DEEP), SEEDS)
    shallow = [r for r in recipes if net_named(r.net).depth == SHALLOW]
    measurements = [
        *(Measurement(CONSTRUCT, {"units": UNITS}, run=r, seed=r.seed) for r in shallow),
        *(Measurement(TRAIN_ON, {"units": UNITS, "epochs": s.epochs}, run=r, seed=r.seed) for r in shallow),
        *(
            Measurement(FIT, {"mix": mix, "units": units, "steps": s.steps, "rates": RATES}, seed=seed)
            for seed in range(SEEDS)
            for units in s.stacks
            for mix in MIXES.values()
        ),
    ]
    return planned(TEXT, scale, recipes, measurements)


def judge(evidence: Evidence) -> StudyResult:
    """Compare constructed nets with what they are built from, and residual stacks with plain ones."""
    nets = runs_by(evidence, lambda recipe: net_named(recipe.net))
    built, trained = (measured_networks(evidence, function) for function in (CONSTRUCT, TRAIN_ON))
    stacks = measured_by(evidence, FIT, _stack)
    answer = _answer(built, trained, stacks)
    return StudyResult(
        rows(TEXT, claims(nets, built, trained, stacks)),
        [figure for figure in (fit_figure(stacks), training_figure(nets, trained)) if figure.panels],
        [construction_table(nets, built, trained), fit_table(stacks)],
        joined([answer, TEXT("scope")], "\n\n"),
        answer,
    )


def _stack(measurement: Measurement) -> Net:
    """A stack of units by its kind and layers."""
    kinds = {mix: kind for kind, mix in MIXES.items()}
    return Net(kinds[measurement.settings["mix"]], 2 * measurement.settings["units"])


def claims(nets: Groups[Net], built: Groups[Net], trained: Groups[Net], stacks: Groups[Net]) -> Iterator[Claim]:
    """That constructed nets are the solution, whether training stays there, and which stacks find it."""
    plain, residual = (Net(kind, SHALLOW) for kind in KINDS)
    yield claim(
        "to_the_bit",
        [exact(largest, built[residual], of=0.0)],
        values=SIZES,
        cell=lambda: _deviation(built[residual]),
    )
    yield claim("same_answers", [exact(changed, built[plain], of=0.0)], cell=lambda: _deviation(built[plain]))
    extended = trained[residual].called(TEXT("extended", net=residual))
    yield claim(
        "stays",
        [no_more(ends, extended, than=nets[residual], by=TOLERANCE)],
        values={**SIZES, "tolerance": TOLERANCE},
    )
    yield claim("plain_ends_higher", [more(ends, trained[plain], than=trained[residual])])
    all_plain, all_residual = (together(kind, stacks.of(kind)) for kind in KINDS)
    yield claim(
        "fits_better",
        [more(_mean_log_loss, all_plain, than=all_residual)],
        needs=[*stacks.values()],
        cell=lambda: {"by_depth": [_advantage(p, r) for p, r in stacks.pairs()]},
    )
    plain_stacks = stacks.of("plain")
    yield claim("plain_rises", [more(log_loss, plain_stacks[-1], than=plain_stacks[0])])


def _deviation(net: Group[Net]) -> dict[str, Any]:
    """What the construction changes, over seeds."""
    seeds = [values["exact"] for values in net.values]
    return {
        "largest": max(map(largest, net.values)),
        "scores": max(d["scores"] for d in seeds),
        "images": sum(d["images"] for d in seeds),
        "changed": sum(d["changed"] for d in seeds),
    }


def log_loss(values: dict[str, Any]) -> float:
    """log10 of a stack's final loss."""
    return math.log10(loss(values))


def _mean_log_loss(values: dict[str, Any]) -> float:
    """The mean log loss over the stacks of all depths of one seed."""
    return statistics.fmean(map(log_loss, values["parts"]))


def _advantage(plain: Group[Net], residual: Group[Net]) -> Words:
    gap = difference(plain.of(log_loss), residual.of(log_loss))
    return TEXT("by_depth", layers=plain.key.depth, gap=Interval(gap))


def _answer(built: Groups[Net], trained: Groups[Net], stacks: Groups[Net]) -> Words:
    """What the study shows; a part whose runs failed is left out."""
    sentences: list[Words] = []
    for plain, residual in built.whole_pairs():
        apart = {"plain": max(plain.of(largest)), "residual": max(residual.of(largest))}
        sentences.append(TEXT("answer.constructed", **SIZES, **apart))
        if not any(plain.of(changed)):
            sentences.append(TEXT("answer.plain_has_it"))
    for plain, residual in trained.whole_pairs():
        sentences.append(TEXT("answer.trained_on", plain=plain.mean(ends), residual=residual.mean(ends)))
    if pairs := stacks.whole_pairs():
        sentences += _which_fit(pairs)
    return joined(sentences or [TEXT("answer.nothing")])


def _which_fit(pairs: list[tuple[Group[Net], Group[Net]]]) -> list[Words]:
    def fits(stack: Group[Net]) -> bool:
        return statistics.geometric_mean(stack.of(loss)) < FITTED

    plain, residual = ([stack.key.depth for stack in stacks if fits(stack)] for stacks in zip(*pairs, strict=True))
    tried = [stack.key.depth for stack, _ in pairs]
    none = [TEXT("answer.none")]
    sentences: list[Words] = [
        TEXT("answer.fitted", fitted=100 * FITTED, plain=plain or none, residual=residual or none, tried=tried)
    ]
    if beyond := [stack for _, stack in pairs if not fits(stack)]:
        first = statistics.fmean(values["first"] for values in beyond[-1].values)
        sentences.append(TEXT("answer.not_from_everywhere", layers=beyond[-1].key.depth, first=first))
    return sentences


STUDY = stated(TEXT, plan=plan, judge=judge, rates=RATES, **SIZES)
