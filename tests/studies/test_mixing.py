"""The study `mixing`: its runs are Table 1's, and its rule can find against it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from resnetlab.nets.mixing import DropoutShortcut, ExclusiveGate, ShortcutGate
from resnetlab.nets.spec import NetSpec
from resnetlab.nets.zoo import spec
from resnetlab.studies import degradation
from resnetlab.studies.frame.cases import ADD, CASES, case_of
from resnetlab.studies.frame.evidence import Evidence, RunResult
from resnetlab.studies.frame.scales import SCALES
from resnetlab.studies.frame.statistics import CONTRADICTED, DIRECTION, NOT_JUDGED, NOT_TESTED, REPRODUCED
from resnetlab.studies.frame.study import StudyResult
from resnetlab.studies.frame.text import both
from resnetlab.studies.mixing import STUDY
from resnetlab.studies.mixing.study import NEAREST
from resnetlab.studies.scaling.figures import TRAINED

Errors = Callable[[str], float]  # case -> %


def judged(
    scale: str,
    errors: Errors,
    spread: float = 0.2,
    seeds: int | None = None,
    lost: str = "",
    train: Errors = lambda _: 0.0,
) -> StudyResult:
    """The finding if every seed of a case ended with this test error, give or take, and those of `lost` failed.

    The training error is half of it, and `train` more.
    """
    outcomes, failed = [], []
    for r in STUDY.plan(scale, None, ()).limited(None, seeds).recipes:
        error = errors(case_of(r)) + spread * (r.seed % 3 - 1)
        result = {"train_error": error / 2 + train(case_of(r)), "test_error": error, "seconds": 1.0}
        if case_of(r) == lost:
            failed.append(r)
        else:
            outcomes.append(RunResult(r, result, [{"epoch": 1} | result, {"epoch": 2} | result], {}))
    return STUDY.judge(Evidence(scale, outcomes, failed=list(failed)))


def papers_way(case: str) -> float:
    return CASES[case].printed or 60.0


def other_way(case: str) -> float:
    return 20 - papers_way(case) / 5


def verdicts(finding: StudyResult) -> list[str]:
    return [row.verdict for row in finding.rows]


def test_the_papers_numbers() -> None:
    """He 2016, Table 1: CIFAR-10, 110 layers, test error in %, medians of five runs; None: "fail"."""
    assert {name: (case.on_shortcut, case.on_branch, case.bias, case.printed) for name, case in CASES.items()} == {
        "Add": ("1", "1", None, 6.61),
        "exclusive 0": ("1 − g", "g", 0.0, None),
        "exclusive −3": ("1 − g", "g", -3.0, None),
        "exclusive −6": ("1 − g", "g", -6.0, 8.70),
        "exclusive −7": ("1 − g", "g", -7.0, 9.81),
        "shortcut-only 0": ("1 − g", "1", 0.0, 12.86),
        "shortcut-only −6": ("1 − g", "1", -6.0, 6.91),
        "1x1 conv": (CASES["1x1 conv"].words, "1", None, 12.22),
        "dropout": (CASES["dropout"].words, "1", None, None),
    }
    assert {str(mix): str(printed) for mix, printed in TRAINED.items()} == {
        "Add()": "6.61",
        "Scale(a=0.5, b=1.0)": "fail",
        "Scale(a=0.5, b=0.5)": "12.35",
        "Plain()": "fail",
    }


def test_data_as_in_the_paper_reproduce_it() -> None:
    finding = judged("paper", papers_way)
    assert verdicts(finding) == [REPRODUCED] * 13


def test_contrary_data_refute_it() -> None:
    finding = judged("paper", other_way)
    assert set(verdicts(finding)[:7]) == {CONTRADICTED}
    assert verdicts(finding)[8:] == [CONTRADICTED] * 5


def test_only_optimisation_is_judged_by_training_errors() -> None:
    found = verdicts(judged("paper", papers_way, train=lambda case: 50.0 * (case == ADD)))
    assert found == [*[REPRODUCED] * 10, CONTRADICTED, REPRODUCED, REPRODUCED]


@pytest.mark.parametrize(("above", "found"), [(0.5, REPRODUCED), (1.5, CONTRADICTED)])
def test_near_is_within_a_point(above: float, found: str) -> None:
    finding = judged("paper", lambda case: 8.0 + above * (case == NEAREST))
    assert verdicts(finding)[7] == found


def test_a_case_counts_as_fitted_within_a_point_of_adds_training_error() -> None:
    more = {ADD: 0.0, "dropout": 0.9, "1x1 conv": 1.1}
    words = str(judged("quick", lambda case: 8.0, train=lambda case: more.get(case, 9.0)).words).rpartition("\n\n")[2]
    assert str(CASES["dropout"].words) in words
    assert str(CASES["1x1 conv"].words) not in words
    less = judged("quick", lambda case: 8.0, train=lambda case: 20.0 if case == ADD else 5.0)
    assert "the training error is at most 1 point above Add's" in str(less.words), "not within a point of it"


def test_no_difference_reproduces_only_that_one_is_near() -> None:
    finding = judged("paper", lambda case: 8.0)
    assert verdicts(finding).count(REPRODUCED) == 1
    assert "comes near Add" in str(finding.rows[verdicts(finding).index(REPRODUCED)].claim)
    assert "Not distinguishable from Add" in str(finding.answer)


def test_scatter_and_one_seed_give_a_direction_only() -> None:
    for finding in (judged("quick", papers_way, spread=60), judged("quick", papers_way, seeds=1)):
        assert REPRODUCED not in verdicts(finding)
        assert DIRECTION in verdicts(finding)
    assert "one seed" in str(finding.answer)
    assert "Not distinguishable" not in str(finding.answer)


def test_the_quick_scale_does_not_judge_what_belongs_to_110_layers() -> None:
    finding = judged("quick", papers_way)
    tested = [row for row in finding.rows if row.verdict != NOT_TESTED]
    assert {row.verdict for row in tested} == {REPRODUCED}
    untested = [str(row.claim) for row in finding.rows if row.verdict == NOT_TESTED]
    assert len(untested) == 3  # b = −7, the best bias, failing
    assert "b = −7" in untested[0]


def test_cases_left_out_at_cifar_are_not_tested() -> None:
    finding = judged("cifar", papers_way)
    assert set(verdicts(finding)) <= {REPRODUCED, NOT_TESTED}
    assert verdicts(finding).count(NOT_TESTED) == 8


@pytest.mark.parametrize("lost", [ADD, "1x1 conv"])
def test_a_claim_that_lacks_a_run_is_not_judged(lost: str) -> None:
    finding = judged("quick", papers_way, lost=lost)
    assert NOT_JUDGED in verdicts(finding)
    conv = next(row for row in finding.rows if str(row.claim).startswith("1x1 convolution"))
    assert conv.verdict == NOT_JUDGED
    gates = next(row for row in finding.rows if str(row.claim).startswith("The exclusive gate: b = 0"))
    assert gates.verdict == REPRODUCED
    assert str(CASES[lost].words) not in str(finding.answer) or lost == ADD


@pytest.mark.parametrize("scale", SCALES)
def test_no_run_at_all_is_no_verdict(scale: str) -> None:
    finding = STUDY.judge(Evidence(scale, failed=list(STUDY.plan(scale, None, ()).recipes)))
    assert NOT_JUDGED in verdicts(finding)
    assert set(verdicts(finding)) <= {NOT_JUDGED, NOT_TESTED}
    assert finding.figures == []


def test_the_words_follow_the_data() -> None:
    words = str(judged("quick", lambda case: 3.0 if case == "exclusive −3" else papers_way(case)).words)
    assert "b = −3 is best" in words
    assert "Better than Add: exclusive gate, b = −3" in words
    assert "b = −6 is best" in str(judged("quick", papers_way).words)
    better = judged("quick", other_way)
    assert "Better than Add" in str(better.answer)
    assert "优于 Add" in both(better.answer).zh


@pytest.mark.parametrize("scale", SCALES)
def test_cases_differ_in_their_mix_or_shortcut_only(scale: str) -> None:
    recipes = STUDY.plan(scale, None, ()).recipes
    assert len(set(recipes)) == len(recipes)
    by_case = {(case_of(r), r.seed): r for r in recipes}
    for (case, seed), r in by_case.items():
        plain, found = by_case[ADD, seed], spec(r.net)
        assert r.override(net=plain.net) == plain
        assert found.name == r.net
        assert isinstance(found, NetSpec)
        original = spec(plain.net)
        assert isinstance(original, NetSpec)
        assert found.override(mix=original.mix, shortcut="A") == original
        if case == "1x1 conv":
            assert (found.shortcut, found.mix) == ("C", original.mix)
    assert {type(spec(r.net).mix) for r in recipes} >= {ExclusiveGate, ShortcutGate, DropoutShortcut}  # type: ignore[union-attr]


def test_quick_and_cifar_use_the_runs_of_degradation() -> None:
    for scale in ("quick", "cifar"):
        theirs = degradation.STUDY.plan(scale, None, ()).recipes
        assert {r for r in STUDY.plan(scale, None, ()).recipes if case_of(r) == ADD} <= set(theirs)


def test_the_paper_warms_up_as_the_paper_says() -> None:
    for r in STUDY.plan("paper", "cifar10:x", ()).recipes:
        assert (r.warmup, r.warmup_lr, r.warmup_steps, r.iterations) == ("constant", 0.01, 400, 64_000)
        assert r.net.startswith("cifar_resnet110")
