"""Claims: what comparisons give, and the row that the frame makes of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resnetlab.studies.frame.claims import (
    Comparison,
    Instead,
    claim,
    counted,
    exact,
    holds,
    in_words,
    less,
    more,
    no_more,
    ratio_within,
    rows,
    within,
)
from resnetlab.studies.frame.evidence import (
    Evidence,
    Group,
    Groups,
    RunResult,
    all_measured,
    measured_by,
    runs_by,
    together,
)
from resnetlab.studies.frame.measurement import Measured, Measurement
from resnetlab.studies.frame.networks import Net, net_named
from resnetlab.studies.frame.statistics import (
    CONTRADICTED,
    DIRECTION,
    NOT_JUDGED,
    NOT_TESTED,
    REPRODUCED,
    UNDECIDED,
    VERDICTS,
    Verdict,
)
from resnetlab.studies.frame.text import SHARED, Both, Catalogue, both
from resnetlab.training.recipes import recipe

TEXT = """
[claims.c]
says = { en = "{who} is lower", zh = "{who} 更低" }
paper = "Fig. 7"
of = "x"

[claims.c.cell]
en = "{one} {one_values:.1f}, {other} {other_values:.1f}: {gap:.1f}"
zh = "{one} {one_values:.1f}，{other} {other_values:.1f}：{gap:.1f}"

[claims.many]
says = "many"
paper = "Table 1"
of = "x"
each = "{net}: {gap:.1f}"
cell = { en = "{each:; |} ({total})", zh = "{each:；|}（{total}）" }

[claims.unit]
says = "unit"
paper = "none"
of = "x"
cell = { en = "{gap:.1f points}.", zh = "{gap:.1f 个百分点}。" }

[claims.bare]
says = "bare"
paper = "none"
of = "x"
"""


def group(key: Any, *values: float, failed: int = 0) -> Group[Any]:
    done = [Measured(Measurement("m:f", seed=i), {"x": v}, 0.0, {}) for i, v in enumerate(values)]
    return Group(key, done, [Measurement("m:f", seed=9)] * failed)


def x(values: dict[str, Any]) -> float:
    return float(values["x"])


LOW, HIGH, WIDE = group("low", 1.0, 1.1, 0.9), group("high", 2.0, 2.1, 1.9), group("wide", 0.0, 9.0, 1.0)


@pytest.fixture
def text(tmp_path: Path) -> Catalogue:
    (tmp_path / "text.toml").write_text(TEXT, encoding="utf-8")
    return Catalogue(tmp_path / "text.toml")


@pytest.mark.parametrize(
    ("comparison", "verdict"),
    [
        (less(x, LOW, than=HIGH), REPRODUCED),
        (less(x, LOW, than=HIGH, by=2.0), CONTRADICTED),
        (less(x, HIGH, than=LOW), CONTRADICTED),
        (less(x, LOW, than=WIDE), DIRECTION),
        (less(x, LOW, than=1.5), REPRODUCED),
        (more(x, HIGH, than=LOW), REPRODUCED),
        (more(x, HIGH, than=LOW, by=0.95), DIRECTION),
        (no_more(x, HIGH, than=LOW, by=2.0), REPRODUCED),
        (no_more(x, HIGH, than=LOW, by=0.5), CONTRADICTED),
        (within(x, HIGH, of=LOW, by=2.0), REPRODUCED),
        (within(x, HIGH, of=LOW, by=0.5), CONTRADICTED),
        (exact(x, group("a", 1.0, 1.0), of=1.0), REPRODUCED),
        (exact(x, LOW, of=1.0), CONTRADICTED),
        (ratio_within(x, HIGH, of=lambda _: 1.5, factor=2.0), REPRODUCED),
        (ratio_within(x, HIGH, of=lambda _: 0.5, factor=2.0), CONTRADICTED),
        (counted(lambda v: v["x"] > 0.95, HIGH, all_of=True), REPRODUCED),
        (counted(lambda v: v["x"] > 0.95, HIGH, LOW, all_of=True), DIRECTION),
        (counted(lambda v: v["x"] > 0.95, LOW, all_of=False), UNDECIDED),
        (counted(lambda v: v["x"] > 0.95, HIGH, all_of=False), CONTRADICTED),
        (counted(lambda v: v["x"] > 9, HIGH, all_of=True), CONTRADICTED),
        (counted(lambda v: v["x"] > 9, group("two", 1.0, 2.0), all_of=True), UNDECIDED),
        (less(x, WIDE, than=LOW), UNDECIDED),
        (less(x, group("a", 2.0), than=group("b", 1.0)), UNDECIDED),
        (less(x, LOW, than=LOW), UNDECIDED),
        (ratio_within(x, WIDE, of=lambda _: 1.0, factor=2.0), CONTRADICTED),
        (ratio_within(x, group("one", 1.0), of=lambda _: 1.0, factor=2.0), DIRECTION),
        (ratio_within(x, group("one", 3.0), of=lambda _: 1.0, factor=2.0), UNDECIDED),
        (counted(lambda v: v["x"] > 0.95, group("two", 1.0, 2.0), all_of=True), DIRECTION),
    ],
)
def test_comparisons_give_their_verdicts(comparison: Comparison, verdict: Verdict) -> None:
    assert comparison.verdict == verdict


def test_a_gap_whose_interval_ends_short_of_the_bound_does_not_read_as_if_it_reached_it(text: Catalogue) -> None:
    near = no_more(x, group("near", 1.96, 1.97, 1.95), than=group("one", 1.0, 1.0, 1.0), by=1.0)
    (row,) = rows(text, [claim("c", [near], values={"who": "near"})])
    assert row.verdict == REPRODUCED
    assert str(row.measured) == "near 2.0 ± 0.0, one 1.0 ± 0.0: +0.96 [+0.9, +0.98]"


def test_a_gaps_unit_stands_before_the_remark_that_it_has_no_interval(text: Catalogue) -> None:
    once, often = rows(text, [claim("unit", [more(x, HIGH, than=low)]) for low in (group("once", 1.0), LOW)])
    assert once.measured == Both("+1.0 points (one seed: no interval).", "+1.0 个百分点（仅一个种子：无区间）。")
    assert str(often.measured) == "+1.0 [+0.8, +1.2] points."


ODD, ENDLESS = group("odd", 1.0, math.nan, 1.0), group("endless", 1.0, math.inf, 1.0)


@pytest.mark.parametrize("odd", [ODD, ENDLESS], ids=str)
@pytest.mark.parametrize(
    "compared",
    [
        lambda odd: less(x, odd, than=HIGH),
        lambda odd: more(x, HIGH, than=odd),
        lambda odd: no_more(x, odd, than=HIGH, by=1.0),
        lambda odd: within(x, odd, of=HIGH, by=1.0),
        lambda odd: exact(x, odd, of=1.0),
        lambda odd: ratio_within(x, odd, of=lambda _: 1.0, factor=2.0),
    ],
)
def test_values_that_are_not_finite_are_not_judged(
    compared: Callable[[Group[Any]], Comparison], odd: Group[Any], text: Catalogue
) -> None:
    (row,) = rows(text, [claim("bare", [compared(odd)])])
    assert (row.verdict, str(row.measured)) == (NOT_JUDGED, "some of the values it compares are not finite")


def test_a_row_has_the_words_of_its_comparison(text: Catalogue) -> None:
    (row,) = rows(text, [claim("c", [less(x, LOW, than=HIGH)], values={"who": Both("it", "它")})])
    assert (row.claim, row.paper, row.verdict) == (Both("it is lower", "它 更低"), Both("Fig. 7", "Fig. 7"), REPRODUCED)
    assert str(row.measured).startswith("low 1.0 ± 0.1, high 2.0 ± 0.1: +1.0 [+0.")


def test_the_rule_of_a_claim_is_what_its_comparisons_ask_for(tmp_path: Path) -> None:
    """Names, direction and bound, in both languages; `holds` stands in for it, and what is not tested has none."""
    texts = '[claims.c]\nsays = "s"\npaper = "p"\nof = { en = "error", zh = "误差" }\n'
    texts += '[claims.h]\nsays = "s"\npaper = "p"\nholds = "at most {most:g}"\n'
    (tmp_path / "text.toml").write_text(texts, encoding="utf-8")
    text, named = Catalogue(tmp_path / "text.toml"), HIGH.called(Both("tall", "高者"))

    def rule(*comparisons: Comparison, **options: Any) -> Both:
        (row,) = rows(text, [claim("c", comparisons, **options)])
        return both(row.rule)

    assert rule(more(x, named, than=LOW)) == Both("error: tall above low", "误差：高者 高于 low")
    said = [
        (more(x, HIGH, than=LOW, by=2.5), "high more than 2.5 above low"),
        (less(x, LOW, than=0.5), "low below 0.5"),
        (less(x, LOW, than=HIGH, by=1.0), "low more than 1 below high"),
        (no_more(x, HIGH, than=LOW, by=1.0), "high at most 1 above low"),
        (within(x, HIGH, of=LOW, by=0.1), "high within 0.1 of low"),
        (exact(x, LOW, of=0.0), "low exactly 0 in every seed"),
        (ratio_within(x, LOW, of=x, factor=2.0), "low within a factor of 2"),
        (counted(x, LOW, HIGH, all_of=True), "all seeds of low, at least 3, all seeds of high, at least 3"),
        (counted(x, LOW, all_of=False), "no seed of low, of at least 3"),
    ]
    for comparison, asks in said:
        assert str(rule(comparison)) == f"error: {asks}"
    assert str(rule(less(x, LOW, than=HIGH), less(x, LOW, than=WIDE))) == "error: low below high, low below wide"
    bn = LOW.called(Both("plain, BN", "普通，BN"))
    apart = rule(less(x, bn, than=HIGH), less(x, bn, than=WIDE))
    assert str(apart) == "error: plain, BN below high; and plain, BN below wide"
    assert apart.zh == "误差：普通，BN 低于 high；且 普通，BN 低于 wide"
    assert rule() == rule(less(x, LOW, than=HIGH), tested=False) == SHARED("verdicts.NOT_TESTED")
    (row,) = rows(text, [claim("h", [less(x, LOW, than=HIGH)], values={"most": 0.5})])
    assert str(row.rule) == "at most 0.5"


def test_one_seed_is_remarked_in_both_languages(text: Catalogue) -> None:
    (row,) = rows(text, [claim("c", [less(x, group("a", 1.0), than=group("b", 2.0))], values={"who": "a"})])
    assert row.measured == Both(
        "a 1.0, b 2.0: +1.0 (one seed: no interval)", "a 1.0，b 2.0：+1.0（仅一个种子：无区间）"
    )
    assert row.verdict == DIRECTION


def test_a_verdict_has_a_remark_where_a_reader_needs_one(tmp_path: Path) -> None:
    remarks = (
        '[claims.bare]\nsays = "s"\npaper = "p"\nof = "x"\notherwise = "{who} is small"\nuntested = "too few images"\n'
    )
    (tmp_path / "text.toml").write_text(remarks, encoding="utf-8")
    text = Catalogue(tmp_path / "text.toml")
    one, other = group("one", 1.0), group("other", 2.0)

    def remark(comparison: Comparison, **options: Any) -> tuple[Verdict, str]:
        (row,) = rows(text, [claim("bare", [comparison], values={"who": "it"}, **options)])
        return row.verdict, str(row.remark)

    assert remark(less(x, LOW, than=HIGH)) == (REPRODUCED, "")
    assert remark(less(x, HIGH, than=LOW)) == (CONTRADICTED, "it is small")
    assert remark(less(x, WIDE, than=LOW)) == (UNDECIDED, "")
    assert remark(less(x, LOW, than=HIGH), tested=False) == (NOT_TESTED, "too few images")
    assert remark(less(x, one, than=other)) == (DIRECTION, str(SHARED("one_seed.towards")))
    assert remark(less(x, other, than=one)) == (UNDECIDED, str(SHARED("one_seed.against")))
    assert remark(exact(x, one, of=1.0)) == (REPRODUCED, ""), "what has no spread needs no interval"
    timed = Comparison((one,), lambda: (DIRECTION, {"gap": 1.0}), over_seeds=False)
    assert remark(timed) == (DIRECTION, ""), "an interval over rounds needs no seeds"


def test_of_several_comparisons_the_weakest_counts(text: Catalogue) -> None:
    comparisons = [less(x, LOW, than=HIGH, net="one"), less(x, LOW, than=WIDE, net="two")]
    row, bare = rows(text, [claim("many", comparisons, cell=lambda: {"total": 2}), claim("bare", comparisons)])
    assert row.verdict == DIRECTION
    assert str(row.measured).startswith("one: +1.0 [")
    assert str(row.measured).endswith("] (2)")
    assert isinstance(row.measured, Both)
    assert "；two: " in row.measured.zh
    assert str(bare.measured).count("; ") == 1, "without words of its own a comparison shows its gap"


def test_what_failed_is_not_judged_and_nothing_is_computed(text: Catalogue) -> None:
    def never(values: dict[str, Any]) -> float:
        raise AssertionError

    missing = group("none", failed=2)
    (row,) = rows(text, [claim("bare", [less(never, LOW, than=missing)])])
    assert (row.verdict, str(row.measured)) == (NOT_JUDGED, "2 of the 5 measurements it needs failed")
    (row,) = rows(text, [claim("bare", [less(x, LOW, than=HIGH)], needs=[LOW, HIGH, missing])])
    assert (row.verdict, str(row.measured)) == (NOT_JUDGED, "2 of the 8 measurements it needs failed")


def test_what_failed_is_called_by_its_kind(text: Catalogue) -> None:
    def words(*groups: Group[Any]) -> str:
        (row,) = rows(text, [claim("bare", [less(x, LOW, than=HIGH)], needs=groups)])
        return str(row.measured)

    run = Group[str]("run", failed=[recipe("digits")])
    assert words(run) == "the run it needs failed"
    assert words(Group[str]("runs", failed=[recipe("digits")] * 2)) == "2 of the 2 runs it needs failed"
    assert words(group("m", failed=1)) == "the measurement it needs failed"
    assert words(LOW, run) == "1 of the 4 runs and measurements it needs failed"


def test_what_is_not_there_or_not_for_this_scale_is_not_tested(text: Catalogue) -> None:
    absent, other = rows(text, [claim("bare", []), claim("bare", [less(x, LOW, than=HIGH)], tested=False)])
    assert (absent.verdict, str(absent.measured)) == (NOT_TESTED, "no such networks were measured")
    assert other.verdict == NOT_TESTED
    assert str(other.measured).startswith("+1.00 [")


def test_where_nothing_can_be_compared_it_is_said_instead(text: Catalogue) -> None:
    def vanished(values: dict[str, Any]) -> float:
        raise Instead(Both("it vanished", "消失"), CONTRADICTED)

    (row,) = rows(text, [claim("bare", [less(vanished, LOW, than=HIGH)])])
    assert (row.measured, row.verdict) == (Both("it vanished", "消失"), CONTRADICTED)


def test_arithmetic_needs_no_runs(text: Catalogue) -> None:
    (row,) = rows(
        text,
        [claim("many", [Comparison((), lambda: (holds(2 + 2 == 4), {"gap": 4.0, "net": "all"}))], values={"total": 1})],
    )
    assert (str(row.measured), row.verdict) == ("all: 4.0 (1)", REPRODUCED)


@pytest.mark.parametrize(
    ("verdicts", "en", "zh"),
    [
        ([REPRODUCED, REPRODUCED], "2 of 2 reproduced", "2 条中 2 条已复现"),
        (
            [CONTRADICTED, REPRODUCED, UNDECIDED, REPRODUCED, REPRODUCED],
            "3 of 5 reproduced, 1 undecided, 1 contradicted",
            "5 条中 3 条已复现，1 条未定，1 条结果相反",
        ),
        (
            [NOT_TESTED, DIRECTION, NOT_JUDGED],
            "0 of 2 reproduced, 1 direction only, 1 not judged; 1 not tested",
            "2 条中 0 条已复现，1 条仅方向一致，1 条未判定；1 条未检验",
        ),
        ([NOT_TESTED], "not tested at this scale", "本规模未检验"),
        ([], "not tested at this scale", "本规模未检验"),
    ],
)  # fmt: skip
def test_a_study_says_how_many_of_its_claims_have_which_verdict(verdicts: list[Verdict], en: str, zh: str) -> None:
    assert in_words(verdicts) == Both(en, zh)


def test_every_verdict_has_its_words() -> None:
    for verdict in VERDICTS:
        assert str(in_words([verdict, REPRODUCED])).startswith(("1 of", "2 of 2"))
        assert len({str(SHARED(f"{part}.{verdict.name}")) for part in ("verdicts", "meaning")}) == 2


def test_verdicts_are_kept_in_words() -> None:
    assert [Verdict.of(verdict.word) for verdict in Verdict] == list(Verdict)
    with pytest.raises(ValueError, match="a verdict is one of reproduced, direction only"):
        Verdict.of("proved")


def test_evidence_is_grouped_by_network() -> None:
    def run(net: str, seed: int) -> Any:
        return recipe("digits", net=net, seed=seed)

    done = [
        RunResult(run(net, seed), {"train_error": 1.0}, [], {})
        for seed in (0, 1)
        for net in ("cifar_resnet20", "cifar_plain20")
    ]
    evidence = Evidence(
        "quick", done, failed=[run("cifar_plain56", 0), Measurement("m:f", run=run("cifar_plain20", 0))]
    )
    nets = runs_by(evidence, lambda r: net_named(r.net))
    assert [str(net) for net in nets] == ["plain-20", "plain-56", "residual-20"]
    assert [(str(p), str(r)) for p, r in nets.pairs()] == [("plain-20", "residual-20")]
    assert [str(net) for net in nets.done("plain")] == ["plain-20"]
    assert [len(net.runs) for net in nets.of("plain")] == [2, 0]
    assert [net.whole for net in nets.values()] == [True, False, True]
    assert not group("some", 1.0, failed=1).whole, "of which one seed failed"
    for lost in ("plain", "residual"):
        twins = Groups({Net(k, 20): group(Net(k, 20), 1.0, failed=k == lost) for k in ("plain", "residual")})
        assert (len(twins.pairs()), twins.whole_pairs()) == (1, [])
    assert nets.all(Net("plain", 20), Net("plain", 110)) == []
    assert (nets[Net("plain", 110)].done, Net("plain", 110) in nets) == ((), False), "asking adds nothing"
    ordered = runs_by(evidence, lambda r: r.net, order=("cifar_resnet20", "other", "cifar_plain56", "cifar_plain20"))
    assert list(ordered) == ["cifar_resnet20", "cifar_plain56", "cifar_plain20"]
    assert [len(g.failed) for g in measured_by(evidence, "m:f", lambda m: m.seed).values()] == [1]
    measured = Evidence("quick", measured=[Measured(Measurement(f), {}, 0.0, {}) for f in ("m:f", "m:g", "m:g")])
    assert [len(all_measured(measured, f).done) for f in ("m:f", "m:g", "m:h")] == [1, 2, 0]
    assert (len(all_measured(evidence, "m:f").failed), all_measured(evidence, "m:g").failed) == (1, ())


def test_groups_are_read_together_seed_by_seed() -> None:
    both = together("both", [LOW, HIGH])
    assert both.of(lambda values: sum(x(part) for part in values["parts"])) == pytest.approx([3.0, 3.2, 2.8])
    assert len(together("both", [LOW, group("lost", failed=1)]).failed) == 1
    assert Groups() == {}
