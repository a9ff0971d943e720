"""The study `carry`: its plan, its claims, and what it says of them."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

from resnetlab.studies.carry.figures import (
    GATES,
    PLAIN,
    bias_of,
    called,
    epoch_figure,
    errors_table,
    expected_left,
    left,
    start_figure,
    theory_table,
    unit_figure,
)
from resnetlab.studies.carry.measure import by_epoch, start_and_end
from resnetlab.studies.frame.cases import ADD, CASES, SCALES, case_of, note, printed, recipes, signed
from resnetlab.studies.frame.claims import Claim, Comparison, Interval, claim, more, ratio_within, rows
from resnetlab.studies.frame.evidence import (
    Evidence,
    Group,
    Groups,
    Metric,
    measured_by,
    runs_by,
    test_error,
    train_error,
)
from resnetlab.studies.frame.measurement import Measurement, Weights, named
from resnetlab.studies.frame.statistics import REPRODUCED, difference
from resnetlab.studies.frame.study import Plan, StudyResult, expected, stated
from resnetlab.studies.frame.text import Catalogue, Words, joined
from resnetlab.training.recipe import Recipe

TEXT = Catalogue.of(__name__)
FACTOR = 2.0  # within which theory and measurement agree on what passes all units
OPEN = ("exclusive −6", "shortcut-only −6")  # gates that carry almost everything at the start
START_AND_END, BY_EPOCH = named(start_and_end), named(by_epoch)


def plan(scale: str, data: str | None, weights: tuple[Weights, ...] = ()) -> Plan:
    """The gated nets of Table 1, Add and the plain net; the gates of each."""
    shared = [r for r in recipes(scale, data) if case_of(r) in (*GATES, ADD)]
    plain = [r.override(net=f"cifar_plain{SCALES[scale].depth}") for r in shared if case_of(r) == ADD]
    gated = [r for r in shared if case_of(r) in GATES]
    again = [r for r in gated if r.seed == 0 and case_of(r) in OPEN] if scale == "quick" else []  # else it takes days
    measurements = [Measurement(START_AND_END, run=r, seed=r.seed) for r in gated]
    measurements += [Measurement(BY_EPOCH, run=r, seed=r.seed) for r in again]
    runs = sorted((*shared, *plain), key=lambda recipe: recipe.seed)  # the first seed of each comes first
    takes = expected(TEXT, f"scales.{scale}.expected", runs)
    return Plan(tuple(runs), takes, note(scale), tuple(measurements))


def judge(evidence: Evidence) -> StudyResult:
    """Compare gates with each other, with Add and with no shortcut at all, and their carry with theory."""
    order = (PLAIN, *CASES)
    gates = measured_by(evidence, START_AND_END, _measured_case, order)
    watched = measured_by(evidence, BY_EPOCH, _measured_case, order)
    # A run whose measurement failed counts as failed too.
    runs = runs_by(evidence, _case, order)
    nets = Groups({n: Group(n, net.done, [*net.failed, *gates[n].failed]) for n, net in runs.items()})
    words, answer = _words(nets, gates)
    figures = [figure for figure in (unit_figure(gates), start_figure(gates), epoch_figure(watched)) if figure.panels]
    return StudyResult(
        rows(TEXT, claims(nets, gates)), figures, [errors_table(nets, gates), theory_table()], words, answer
    )


def _case(recipe: Recipe) -> str:
    return PLAIN if recipe.net.startswith("cifar_plain") else case_of(recipe)


def _measured_case(measurement: Measurement) -> str:
    assert measurement.run is not None
    return case_of(measurement.run)


def claims(nets: Groups[str], gates: Groups[str]) -> Iterator[Claim]:
    """That gates carry what theory says, that carrying helps, and that having no gate is better still."""

    def higher(error: Metric, worse: str, better: str) -> list[Comparison]:
        both = nets.all(worse, better)
        return [more(error, both[0], than=both[1])] if both else []

    there = [nets[name] for name in gates]
    theory = [
        ratio_within(left("start"), net, of=expected_left(name), factor=FACTOR, gate=called(name))
        for name, net in gates.items()
    ]
    yield claim("theory", theory, needs=there)
    for name in OPEN:
        yield claim("trains", higher(train_error, PLAIN, name), values={"gate": called(name)})
    yield claim("exclusive_opens", higher(train_error, "exclusive 0", "exclusive −6"))
    yield claim("shortcut_only_opens", higher(train_error, "shortcut-only 0", "shortcut-only −6"))
    for name in OPEN:
        values = {"gate": called(name), "printed": printed(CASES[name])}
        yield claim("worse_than_add", higher(test_error, name, ADD), values=values)
    carrying = [name for name in gates if bias_of(name) < 0]
    drift = [more(_change, gates[name], than=0.0, gate=called(name)) for name in carrying]
    yield claim("drift", drift, needs=[nets[name] for name in carrying])


def _change(values: dict[str, Any]) -> float:
    """The change of the mean carry over a network's units through training, in points."""
    start, end = (statistics.fmean(unit["mean"] for unit in values[when]) for when in ("start", "end"))
    return 100 * (end - start)


def _words(nets: Groups[str], gates: Groups[str]) -> tuple[Words, Words]:
    """What the study shows, in full and in short, from the cases without a failed run."""
    complete = [name for name in gates if nets[name].whole]
    if not nets[ADD].whole or not complete:
        return TEXT("words.open"), ""
    answer = _answer(nets, complete)
    words: list[Words] = [answer]
    exclusive = {n: nets[n].mean(train_error) for n in complete if n.startswith("exclusive")}
    if len(exclusive) > 1:
        most = max(exclusive, key=lambda name: gates[name].mean(left("start")))
        lowest = min(exclusive, key=lambda name: exclusive[name])
        text = "words.more_is_better" if most == lowest else "words.more_is_not_all"
        words.append(TEXT(text, bias=signed(bias_of(lowest)), most=signed(bias_of(most))))
    if off := [called(n) for n in complete if not _agrees(gates[n], n)]:
        words.append(TEXT("words.theory_misses", factor=FACTOR, gates=off))
    widest = max(complete, key=lambda name: gates[name].mean(left("start")))
    start, end = (gates[widest].mean(left(when)) for when in ("start", "end"))
    words.append(TEXT("words.widest", gate=called(widest), start=start, end=end))
    return joined(words, "\n\n"), answer


def _answer(nets: Groups[str], complete: list[str]) -> Words:
    """How the best gate compares with no gate, and all gates with no shortcut."""
    best = min(complete, key=lambda name: nets[name].mean(test_error))
    gap = difference(nets[best].of(test_error), nets[ADD].of(test_error))
    sentences = [
        TEXT(
            ("answer.not_told_apart", "answer.worse", "answer.better")[gap.side],
            gate=called(best),
            error=nets[best].mean(test_error),
            add=nets[ADD].mean(test_error),
            gap=Interval(gap),
        )
    ]
    if nets[PLAIN].whole and gap.has_interval:
        gaps = [difference(nets[PLAIN].of(train_error), nets[n].of(train_error)) for n in complete]
        sentences.append(TEXT("answer.train_better", count=sum(g.side > 0 for g in gaps), total=len(complete)))
    return joined(sentences)


def _agrees(net: Group[str], name: str) -> bool:
    return ratio_within(left("start"), net, of=expected_left(name), factor=FACTOR).verdict == REPRODUCED


STUDY = stated(TEXT, plan=plan, judge=judge)
