"""The study `mixing`: its plan, its claims, and what it shows."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from resnetlab.studies.figures.figure import Figure, Panel, Table, table
from resnetlab.studies.figures.series import error_lines
from resnetlab.studies.frame.cases import ADD, CASES, FAIL, case_of, note, printed, recipes, signed
from resnetlab.studies.frame.claims import Claim, Comparison, Interval, Judged, claim, more, no_more, rows
from resnetlab.studies.frame.evidence import Evidence, Group, Groups, runs_by, test_error, train_error
from resnetlab.studies.frame.measurement import Weights
from resnetlab.studies.frame.statistics import NOT_TESTED, Sample, difference, weakest
from resnetlab.studies.frame.study import Plan, StudyResult, expected, stated
from resnetlab.studies.frame.text import SHARED, Catalogue, Words, joined

TEXT = Catalogue.of(__name__)
NEAR = 1.0  # points within which an error counts as near another; the paper's are 6.91 and 6.61 %
BEST, NEAREST = "exclusive −6", "shortcut-only −6"  # of the exclusive gates, and to Add, in the paper


def plan(scale: str, data: str | None, weights: tuple[Weights, ...] = ()) -> Plan:
    """Every case with every seed."""
    runs = recipes(scale, data)
    return Plan(runs, expected(SHARED, f"cases.{scale}.expected", runs), note(scale))


def judge(evidence: Evidence) -> StudyResult:
    """Compare every case with Add, over seeds."""
    nets = runs_by(evidence, case_of, CASES)
    words, answer = _words(nets)
    figures = [_figure(nets)] if evidence.outcomes else []
    return StudyResult(rows(TEXT, claims(nets, evidence.scale)), figures, [_table(nets)], words, answer)


def claims(nets: Groups[str], scale: str) -> Iterator[Claim]:
    """That every other way is worse than Add, one of them only by little, and that they fail in optimisation."""

    def higher(worse: str, better: str) -> list[Comparison]:
        return [more(test_error, nets[worse], than=nets[better])] if nets.all(worse, better) else []

    def training(one: str, other: str) -> Callable[[], Mapping[str, Any]]:
        return lambda: {"training": Interval(difference(nets[one].of(train_error), nets[other].of(train_error)))}

    for name, case in CASES.items():
        if name not in (ADD, NEAREST):
            values = {"case": case.words, "printed": printed(case)}
            yield claim("worse_than_add", higher(name, ADD), values=values, cell=training(name, ADD))
    near = [no_more(test_error, nets[NEAREST], than=nets[ADD], by=NEAR)] if nets.all(NEAREST, ADD) else []
    yield claim("near_add", near, values={"near": NEAR}, cell=training(NEAREST, ADD))
    yield claim("exclusive_opens", higher("exclusive 0", BEST), cell=training("exclusive 0", BEST))
    yield claim("shortcut_only_opens", higher("shortcut-only 0", NEAREST), cell=training("shortcut-only 0", NEAREST))
    slower = [nets[name] for name in (BEST, "shortcut-only 0", "1x1 conv") if name in nets]
    yield claim("trains_worse", [more(train_error, net, than=nets[ADD], case=CASES[net.key].words) for net in slower])
    swept = _exclusive(nets)
    yield claim(
        "best_bias",
        [_lowest(nets[BEST], swept)] if swept else [],
        tested=scale == "paper",
        cell=lambda: {"errors": [f"b = {_bias(net)}: {Sample(net.of(test_error)):.2f} %" for net in swept]},
    )
    fail = [net for name, net in nets.items() if CASES[name].printed is None]
    yield claim(
        "fails",
        [more(test_error, net, than=FAIL, case=CASES[net.key].words) for net in fail],
        values={"fail": FAIL},
        tested=scale == "paper",
    )


def _exclusive(nets: Groups[str]) -> list[Group[str]]:
    return [net for net in nets.values() if net.key.startswith("exclusive")]


def _bias(net: Group[str]) -> str:
    return signed(CASES[net.key].bias or 0.0)


def _lowest(best: Group[str], swept: list[Group[str]]) -> Comparison:
    """That none of these has as low a test error as `best`; not tested if there is no other."""
    higher = [more(test_error, net, than=best) for net in swept if net is not best]

    def judge() -> Judged:
        return (weakest(one.verdict for one in higher) if higher else NOT_TESTED), {}

    return Comparison(tuple(swept), judge, asks=SHARED("asks.several", each=[one.asks for one in higher]))


def _figure(nets: Groups[str]) -> Figure:
    swept = _exclusive(nets)
    gates = [net for net in nets.values() if net.key == ADD or net in swept]
    others = [net for net in nets.values() if net not in swept]

    def panel(title: Words, shown: list[Group[str]]) -> Panel:
        lines = [line for colour, net in enumerate(shown) for line in error_lines(net.key, colour, net.runs)]
        return Panel(title, "epoch", "error (%)", lines, (0.0, 100.0))

    panels = [panel(TEXT("figures.curves.exclusive"), gates), panel(TEXT("figures.curves.others"), others)]
    caption = [TEXT("figures.curves.caption")]
    if any(net.failed for net in nets.values()):
        caption.append(TEXT("figures.curves.failed"))
    return Figure("curves", joined(caption), [panel for panel in panels if panel.series])


def _table(nets: Groups[str]) -> Table:
    cells = [
        [
            CASES[name].words,
            CASES[name].on_shortcut,
            CASES[name].on_branch,
            *(net.cell(error) for error in (train_error, test_error)),
            f"{statistics.median(net.of(test_error)):.2f}" if net.done else "–",
            printed(CASES[name]),
            str(len(net.done)),
        ]
        for name, net in nets.items()
    ]
    return table(TEXT, "errors", cells, fail=FAIL)


def _words(nets: Groups[str]) -> tuple[Words, Words]:
    """What the study shows, in full and in short, from the cases without a failed run."""
    whole = Groups({name: net for name, net in nets.items() if net.whole})
    others = [net for name, net in whole.items() if name != ADD]
    if ADD not in whole or not others:
        return TEXT("words.open"), ""
    answer = _answer(whole[ADD], others)
    words = [answer]
    if len(swept := _exclusive(whole)) > 1:
        lowest = min(swept, key=lambda net: net.mean(test_error))
        words.append(TEXT("words.best_bias", bias=_bias(lowest)))
    enough = whole[ADD].mean(train_error) + NEAR
    if fitted := [CASES[net.key].words for net in others if net.mean(train_error) <= enough]:
        words.append(TEXT("words.fitted", cases=fitted, near=NEAR))
    return joined(words, "\n\n"), answer


def _answer(add: Group[str], others: list[Group[str]]) -> Words:
    """Which cases are worse than Add, which are better, and which can't be told apart from it."""
    gaps = [difference(net.of(test_error), add.of(test_error)) for net in others]
    if not all(gap.has_interval for gap in gaps):
        return TEXT("answer.one_seed", add=add.mean(test_error), cases=_with_errors(others))
    sides = [gap.side for gap in gaps]
    told = []
    for side, key in ((1, "answer.worse"), (-1, "answer.better"), (0, "answer.not_told_apart")):
        if there := [net for net, its in zip(others, sides, strict=True) if its == side]:
            told.append(TEXT(key, cases=_with_errors(there)))
    return TEXT("answer.compared", add=add.mean(test_error), told=told)


def _with_errors(nets: list[Group[str]]) -> list[Words]:
    return [TEXT("answer.case", case=CASES[net.key].words, error=net.mean(test_error)) for net in nets]


STUDY = stated(TEXT, plan=plan, judge=judge)
