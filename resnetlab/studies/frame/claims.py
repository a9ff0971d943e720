"""Claims as comparisons: each gives a verdict and the words of its cell, and the frame makes a row of a table of them.

    yield claim("smaller", [less(mean_std, residual, than=plain) for plain, residual in nets.pairs()])

Nothing is computed until it is known that everything a claim needs has finished. In a study's catalogue a claim has,
under "claims" and its key: `says`, what it says; `paper`, what the papers say; `cell`, the text in the table. A cell
may use the claim's values and, if there is one comparison, its words: {one} and {other}, the groups; {one_values} and
{other_values}, mean ± deviation; {gap}, with its interval, or with a remark after the unit that its format may state,
as in {gap:.1f points}; and any further words of the comparison. With several comparisons, `each` formats each of them
(by default its gap alone), and the cell has all of them as {each}. `absent` is the cell of a claim that has nothing to
compare. A remark may follow the cell: `otherwise`, other possible reasons if the claim is contradicted, and `untested`,
why a scale does not test it.

The claim's rule also comes from its comparisons: `of` names what they compare, and each states what it asks of which
groups. A claim with a comparison of its own kind states its rule in a sentence, `holds`.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

from resnetlab.studies.frame.evidence import Group, Metric, RunResult
from resnetlab.studies.frame.statistics import (
    CONTRADICTED,
    DIRECTION,
    NOT_JUDGED,
    NOT_TESTED,
    REPRODUCED,
    UNDECIDED,
    Difference,
    Sample,
    Verdict,
    decide,
    difference,
    tally,
    weakest,
)
from resnetlab.studies.frame.text import SHARED, Both, Catalogue, Words, both
from resnetlab.training.recipe import Recipe

NOTHING: Mapping[str, Any] = MappingProxyType({})
Judged = tuple[Verdict, Mapping[str, Any]]  # a verdict, and the words that a text may use


@dataclass(frozen=True)
class Row:
    """One claim: what the paper says, what was measured, and the verdict by the study's rule."""

    claim: Words
    paper: Words
    measured: Words
    verdict: Verdict
    remark: Words = ""  # on the verdict: other reasons, why it is not tested, or that one seed has no interval
    rule: Words = ""  # what has to hold for the verdict "reproduced"


def in_words(verdicts: Iterable[Verdict]) -> Both:
    """The number of a study's claims with each verdict, e.g. "3 of 5 reproduced, 2 undecided; 1 not tested"."""
    counts = tally(verdicts)
    untested = counts.pop(NOT_TESTED, 0)
    if not counts:
        return SHARED(f"verdicts.{NOT_TESTED.name}")
    parts = [SHARED("tally.reproduced", count=counts.get(REPRODUCED, 0), total=sum(counts.values()))]
    parts += [
        SHARED("tally.other", count=count, verdict=SHARED(f"verdicts.{verdict.name}"))
        for verdict, count in counts.items()
        if verdict != REPRODUCED
    ]
    return SHARED("tally.untested" if untested else "tally.tested", parts=parts, count=untested)


@dataclass(frozen=True)
class Interval:
    """A difference as a text shows it: its mean and interval, or the remark that one seed has none."""

    of: Difference
    bound: float = 0.0  # from which a claim asks it to differ

    def in_words(self, language: str, form: str) -> str:
        """The difference with the decimals and the unit that a format like ".2f points" states."""
        decimals, space, unit = form.partition(" ")
        text = self.of.rounded(int(decimals.strip(".f") or 2), self.bound) + space + unit
        if self.of.has_interval:
            return text
        said: str = getattr(SHARED("one_seed.gap", mean=text), language)
        return said


class Instead(Exception):
    """Raised by a metric or comparison that has nothing to compare, with the words of the cell and the verdict.

    For example, the machine was busy when times were taken, or the quantity to compare has vanished.
    """

    def __init__(self, words: Words, verdict: Verdict) -> None:
        super().__init__(str(words))
        self.words, self.verdict = words, verdict


@dataclass(frozen=True)
class Comparison:
    """Groups, and how they are compared: a function that returns the verdict and its words, called at most once.

    Anything else, such as arithmetic, is a Comparison without groups, or with a function of its own.
    """

    groups: tuple[Group[Any], ...]
    judge: Callable[[], Judged]
    over_seeds: bool = True  # whether intervals are over seeds; those of times are over rounds of one measurement
    asks: Words = ""  # what is asked of which groups, e.g. "plain-56 above plain-20"; else the claim has `holds`

    @cached_property
    def judged(self) -> Judged:
        """The verdict, and the words that a text may use."""
        return self.judge()

    @property
    def verdict(self) -> Verdict:
        """By the interval, or by the mean alone."""
        return self.judged[0]

    @property
    def words(self) -> Mapping[str, Any]:
        """The values of a cell's placeholders."""
        return self.judged[1]


def comparison(judge: Callable[..., Judged]) -> Callable[..., Comparison]:
    """Turn a function that judges groups into one that returns their Comparison."""

    @functools.wraps(judge)
    def compared(*groups: Group[Any]) -> Comparison:
        return Comparison(groups, functools.partial(judge, *groups))

    return compared


def more(metric: Metric, one: Group[Any], *, than: Group[Any] | float, by: float = 0.0, **words: Any) -> Comparison:
    """That a metric of one group lies above the other's, or above a number, by more than `by`; gap: one − other."""
    asks = asked("above_by" if by else "above", one, than, by=by)
    return _compared(metric, one, than, difference, Difference.verdict_above, by, asks, words)


def less(metric: Metric, one: Group[Any], *, than: Group[Any] | float, by: float = 0.0, **words: Any) -> Comparison:
    """That a metric of one group lies below the other's, or below a number, by more than `by`; gap: other − one."""
    asks = asked("below_by" if by else "below", one, than, by=by)
    return _compared(metric, one, than, lambda a, b: difference(b, a), Difference.verdict_above, by, asks, words)


def no_more(metric: Metric, one: Group[Any], *, than: Group[Any] | float, by: float, **words: Any) -> Comparison:
    """That a metric of one group lies at most `by` above the other's; gap: one − other."""
    asks = asked("no_more", one, than, by=by)
    return _compared(metric, one, than, difference, Difference.verdict_below, by, asks, words)


def within(metric: Metric, one: Group[Any], *, of: Group[Any] | float, by: float, **words: Any) -> Comparison:
    """That a metric of one group lies no farther than `by` from the other's; gap: one − other."""
    asks = asked("within", one, of, by=by)
    return _compared(metric, one, of, difference, Difference.verdict_within, by, asks, words)


def asked(side: str, one: Group[Any], other: Group[Any] | float = 0.0, **values: Any) -> Both:
    """What a comparison asks for, in words: how one group has to compare with another, or with a number."""
    beside = _name(other) if isinstance(other, Group) else f"{other:g}"
    return SHARED(f"asks.{side}", one=_name(one), other=beside, **values)


def _name(group: Group[Any]) -> Words:
    """The name of a group, in each language if its key has words."""
    words: Words = group.key if isinstance(group.key, Both) else getattr(group.key, "words", str(group.key))
    return words


def _compared(
    metric: Metric,
    one: Group[Any],
    other: Group[Any] | float,
    gap_of: Callable[[Sequence[float], Sequence[float]], Difference],
    verdict: Callable[[Difference, float], Verdict],
    by: float,
    asks: Words,
    words: Mapping[str, Any],
) -> Comparison:
    def judge() -> Judged:
        a = one.of(metric)
        b = other.of(metric) if isinstance(other, Group) else [other] * len(a)
        _check_finite(a, b)
        gap = gap_of(a, b)
        values = {"one_values": Sample(a), "other_values": Sample(b), "gap": Interval(gap, by), "difference": gap}
        return verdict(gap, by), {
            "one": one.key,
            "other": other.key if isinstance(other, Group) else other,
            **values,
            **words,
        }

    return Comparison((one, other) if isinstance(other, Group) else (one,), judge, asks=asks)


def _check_finite(*samples: Sequence[float]) -> None:
    """Raise Instead for values that can't be compared: of a network that has diverged."""
    if not all(math.isfinite(value) for sample in samples for value in sample):
        raise Instead(SHARED("not_finite"), NOT_JUDGED)


def exact(metric: Metric, one: Group[Any], *, of: float) -> Comparison:
    """That a metric is this number in every seed, to the last bit."""

    def judge() -> Judged:
        values = one.of(metric)
        _check_finite(values)
        return holds(all(v == of for v in values)), {"one": one.key, "other": of, "one_values": Sample(values)}

    return Comparison((one,), judge, asks=asked("exact", one, of))


def ratio_within(metric: Metric, one: Group[Any], *, of: Metric, factor: float, **words: Any) -> Comparison:
    """That a metric and the value that theory expects differ by less than a factor; if either is not above 0, it fails.

    The interval is that of the logarithm of their ratio over seeds.
    """

    def judge() -> Judged:
        found, expected = one.of(metric), one.of(of)
        _check_finite(found, expected)
        means = {"found": statistics.fmean(found), "expected": statistics.fmean(expected)}
        if min(*found, *expected) <= 0:
            return holds(False), {"one": one.key, **means, **words}
        logs = [math.log(a / b) for a, b in zip(found, expected, strict=True)]
        verdict = difference(logs, [0.0] * len(logs)).verdict_within(math.log(factor))
        return verdict, {"one": one.key, **means, **words}

    return Comparison((one,), judge, asks=asked("factor", one, factor=factor))


def counted(metric: Metric, *groups: Group[Any], all_of: bool, fewest: int = 3) -> Comparison:
    """That something happens in all seeds of all groups (or in none); "direction only" if it holds in more than half.

    `metric` is 1 if it happens and 0 if it doesn't. The claim is contradicted if every seed says the contrary; fewer
    seeds than `fewest` neither show nor exclude it.
    """

    def judge() -> Judged:
        found = [bool(value) for group in groups for value in group.of(metric)]
        right = sum(value is all_of for value in found)
        enough = min(len(group.done) for group in groups) >= fewest
        verdict = decide(
            shown=enough and right == len(found), on_average=2 * right > len(found), excluded=enough and right == 0
        )
        return verdict, {"count": sum(found), "total": len(found)}

    asks = [asked("all" if all_of else "none", group, fewest=fewest) for group in groups]
    return Comparison(groups, judge, asks=SHARED("asks.several", each=asks))


def holds(fact: bool) -> Verdict:
    """The verdict on arithmetic, or on anything without spread."""
    return REPRODUCED if fact else CONTRADICTED


@dataclass(frozen=True)
class Claim:
    """A claim of a study, by its key in the catalogue, and the comparisons that decide it."""

    key: str
    comparisons: Sequence[Comparison]
    needs: Sequence[Group[Any]]
    tested: bool
    values: Mapping[str, Any]
    cell: Callable[[], Mapping[str, Any]]


def claim(
    key: str,
    comparisons: Sequence[Comparison],
    *,
    needs: Sequence[Group[Any]] = (),
    tested: bool = True,
    values: Mapping[str, Any] = NOTHING,
    cell: Callable[[], Mapping[str, Any]] = lambda: NOTHING,
) -> Claim:
    """A claim; it is not tested without comparisons, or at a scale that can't show it (`tested`).

    needs: the groups that must have finished for it to be judged, by default those compared. values: values for its
    texts. cell: further values for its cell, computed only if nothing has failed.
    """
    return Claim(key, comparisons, needs or _different(comparisons), tested, values, cell)


def _different(comparisons: Sequence[Comparison]) -> list[Group[Any]]:
    found: list[Group[Any]] = []
    for group in (group for comparison in comparisons for group in comparison.groups):
        if not any(group is other for other in found):
            found.append(group)
    return found


def rows(text: Catalogue, claims: Iterable[Claim]) -> list[Row]:
    """The table of a study's claims, by its catalogue."""
    return [_row(text, one) for one in claims]


def _row(text: Catalogue, one: Claim) -> Row:
    says, paper = (text(f"claims.{one.key}.{part}", **one.values) for part in ("says", "paper"))
    rule = _rule(text, one)
    if not one.comparisons:
        absent = [key for key in (f"claims.{one.key}.absent", "claims.absent") if key in text]
        return Row(says, paper, text(absent[0]) if absent else SHARED("absent"), NOT_TESTED, rule=rule)

    if any(group.failed for group in one.needs):  # however many others have finished
        return Row(says, paper, _failed(one.needs), NOT_JUDGED, rule=rule)
    try:
        verdict = weakest(comparison.verdict for comparison in one.comparisons)
        measured: Words = _cell(text, one)
    except Instead as found:
        measured, verdict = found.words, found.verdict
    else:
        verdict = verdict if one.tested else NOT_TESTED
    return Row(says, paper, measured, verdict, _remark(text, one, verdict), rule)


def _failed(needs: Sequence[Group[Any]]) -> Both:
    """How many of the runs and measurements that a claim needs failed."""
    failed = [one for group in needs for one in group.failed]
    everything = [*failed, *(one for group in needs for one in group.done)]
    kinds = {isinstance(one, Recipe | RunResult) for one in everything}
    kind = "run" if True in kinds else "measurement"
    key = "both" if len(kinds) > 1 else kind if len(everything) == 1 else f"{kind}s"
    return SHARED(f"failed.{key}", missing=len(failed), of=len(everything))


def _rule(text: Catalogue, one: Claim) -> Words:
    """What has to hold for a claim to be reproduced: the demands of its comparisons, each once."""
    if not one.comparisons or not one.tested:
        return SHARED(f"verdicts.{NOT_TESTED.name}")
    if f"claims.{one.key}.holds" in text:
        return text(f"claims.{one.key}.holds", **one.values)
    asks = list(dict.fromkeys(both(comparison.asks) for comparison in one.comparisons))
    key = "claim_apart" if any("," in ask.en for ask in asks) else "claim"
    return SHARED(f"rules.{key}", of=text(f"claims.{one.key}.of", **one.values), asks=asks)


def _remark(text: Catalogue, one: Claim, verdict: Verdict) -> Words:
    part = {CONTRADICTED: "otherwise", NOT_TESTED: "untested"}.get(verdict)
    if part and (key := f"claims.{one.key}.{part}") in text:
        return text(key, **one.values)
    points = {DIRECTION: "one_seed.towards", UNDECIDED: "one_seed.against"}.get(verdict)
    single = any(len(group.done) == 1 for c in one.comparisons if c.over_seeds for group in c.groups)
    return SHARED(points) if points and single else ""


def _cell(text: Catalogue, one: Claim) -> Both:
    key = f"claims.{one.key}"
    values = {**one.values, **one.cell()}
    if f"{key}.each" in text:
        values["each"] = [text(f"{key}.each", **{**values, **c.words}) for c in one.comparisons]
    else:
        values["each"] = [c.words.get("gap") for c in one.comparisons]
    words = one.comparisons[0].words if len(one.comparisons) == 1 else NOTHING
    return text(f"{key}.cell", **{**words, **values}) if f"{key}.cell" in text else SHARED("cell", **values)
