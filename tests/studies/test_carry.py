"""The study `carry`: it measures the runs of `mixing`, and its rule can find against gates and for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from resnetlab.measuring.gates import initial_carry
from resnetlab.studies import degradation, mixing
from resnetlab.studies.carry.figures import GATES, PLAIN
from resnetlab.studies.carry.study import BY_EPOCH, START_AND_END, STUDY
from resnetlab.studies.frame.cases import ADD, CASES, case_of
from resnetlab.studies.frame.evidence import Evidence, RunResult
from resnetlab.studies.frame.measurement import Measured, Measurement, measure_or_cached
from resnetlab.studies.frame.scales import SCALES
from resnetlab.studies.frame.statistics import CONTRADICTED, DIRECTION, NOT_JUDGED, NOT_TESTED, REPRODUCED
from resnetlab.studies.frame.study import StudyResult
from resnetlab.training.loop import train
from resnetlab.training.recipe import Recipe
from resnetlab.training.recipes import recipe
from resnetlab.training.run import make_run

UNITS = 27


def carried(share: float) -> list[dict[str, float]]:
    """The values of units that all carry this share."""
    return [{"mean": share, "low": share, "high": share, "left": share ** (UNITS - i)} for i in range(UNITS)]


def judged(
    errors: Callable[[str], float],
    train: Callable[[str], float] | None = None,
    *,
    scale: str = "quick",
    start: Callable[[float], float] = initial_carry,
    drift: float = 0.001,
    seeds: int | None = None,
    lost: tuple[str, ...] = (),
    unmeasured: str = "",
) -> StudyResult:
    """The finding if every seed of a case ended so, its gates started as `start` says, and drifted; `lost` failed.

    Training errors are half the test errors unless `train` gives them. Gates with b = 0 drift the other way.
    """

    def case(run: Recipe) -> str:
        return PLAIN if "plain" in run.net else case_of(run)

    plan = STUDY.plan(scale, None, ()).limited(None, seeds)
    outcomes, measured = [], []
    for r in plan.recipes:
        spread = 0.05 * (r.seed % 3 - 1)
        error, training = errors(case(r)) + spread, (train(case(r)) if train else errors(case(r)) / 2) + spread
        result = {"train_error": training, "test_error": error, "seconds": 1.0}
        if case(r) not in lost:
            outcomes.append(RunResult(r, result, [], {}))
    for m in plan.measurements:
        assert m.run is not None
        bias = CASES[case(m.run)].bias or 0.0
        share, change = start(bias), drift + 1e-4 * m.seed
        values = {
            "start": carried(share),
            "end": carried(share + (change if bias else -change)),
            "mean": [share, share + drift],
            "left": [share**UNITS] * 2,
        }
        if case(m.run) not in (*lost, unmeasured):
            measured.append(Measured(m, values, 1.0, {}))
    failed: list[Recipe | Measurement] = [r for r in plan.recipes if case(r) in lost]
    failed += [m for m in plan.measurements if m.run and case(m.run) in (*lost, unmeasured)]
    return STUDY.judge(Evidence(scale, outcomes, measured, failed))


def papers_way(case: str) -> float:
    return 60.0 if case == PLAIN else CASES[case].printed or 40.0


def other_way(case: str) -> float:
    return 5.0 if case == PLAIN else 70 - papers_way(case)


def verdicts(finding: StudyResult) -> list[str]:
    return [row.verdict for row in finding.rows]


def test_data_as_in_the_papers_reproduce_it() -> None:
    finding = judged(papers_way)
    assert verdicts(finding) == [REPRODUCED] * 8
    assert "and worse than no gate" in str(finding.answer)
    assert "−6: +0.1 [" in str(finding.rows[7].measured), "points, of a share that rises by 0.001 and a little"
    assert set(verdicts(judged(papers_way, scale="paper"))) == {REPRODUCED}


def test_contrary_data_refute_every_claim() -> None:
    finding = judged(other_way, start=lambda bias: 0.5 if bias else 0.6, drift=-0.01)
    assert verdicts(finding) == [CONTRADICTED] * 8
    assert "and better than no gate" in str(finding.answer)
    assert "by intervals over seeds: 0 of 5." in str(finding.answer)


def test_each_claim_has_data_that_refute_it_alone() -> None:
    rows = verdicts(judged(papers_way, start=lambda bias: initial_carry(bias) * 0.97))
    assert rows == [CONTRADICTED, *[REPRODUCED] * 7], "0.97^27 is less than half"
    rows = verdicts(judged(papers_way, drift=-0.001))
    assert rows == [*[REPRODUCED] * 7, CONTRADICTED]
    rows = verdicts(judged(lambda case: 5.0 if case == "shortcut-only −6" else papers_way(case)))
    assert rows == [*[REPRODUCED] * 6, CONTRADICTED, REPRODUCED]


def test_gates_are_worse_than_add_by_the_test_error_and_train_by_the_training_error() -> None:
    finding = judged(papers_way, other_way)
    assert verdicts(finding) == [REPRODUCED, *[CONTRADICTED] * 4, *[REPRODUCED] * 3]
    assert str(CASES["shortcut-only −6"].words) in str(finding.answer), "the best by the test error"


def test_one_seed_gives_a_direction_only() -> None:
    finding = judged(papers_way, seeds=1)
    assert verdicts(finding) == [DIRECTION] * 8
    assert "by intervals over seeds" not in str(finding.answer)


def test_more_carry_is_said_to_help_only_if_it_does() -> None:
    assert "closes F by as much" not in str(judged(papers_way).words)
    best = judged(lambda case: 7.0 if case == "exclusive −3" else papers_way(case))
    assert "b = −3 has the lowest training error, though b = −6 carries more" in str(best.words)


@pytest.mark.parametrize("lost", [PLAIN, ADD, "exclusive −6"])
def test_a_claim_that_lacks_a_run_is_not_judged(lost: str) -> None:
    finding = judged(papers_way, lost=(lost,))
    assert NOT_JUDGED in verdicts(finding)
    assert set(verdicts(finding)) == {REPRODUCED, NOT_JUDGED}


def test_a_run_whose_measurement_failed_counts_as_failed() -> None:
    """The claims about the other gate alone are judged."""
    found = verdicts(judged(papers_way, unmeasured="exclusive −6"))
    assert found == [NOT_JUDGED, *[NOT_JUDGED, REPRODUCED] * 3, NOT_JUDGED]


@pytest.mark.parametrize("scale", SCALES)
def test_nothing_at_all_is_no_verdict(scale: str) -> None:
    plan = STUDY.plan(scale, None, ())
    finding = STUDY.judge(Evidence(scale, failed=[*plan.recipes, *plan.measurements]))
    assert NOT_JUDGED in verdicts(finding)
    assert set(verdicts(finding)) <= {NOT_JUDGED, NOT_TESTED}
    assert finding.figures == []


def test_figures_hold_theory_and_measurement() -> None:
    finding = judged(papers_way)
    assert [figure.name for figure in finding.figures] == ["units", "start", "epochs"]
    units, start, epochs = finding.figures
    assert [len(panel.series) for panel in units.panels] == [10, 10]
    assert units.panels[1].y_log
    assert [sum(series.marks for series in panel.series) for panel in start.panels] == [5, 3]
    assert epochs.panels[0].series[0].x == [0.0, 1.0]
    theory = finding.tables[1]
    assert theory.rows[4] == ["−6", "0.9975", "0.9353", "0.8749"]


@pytest.mark.parametrize("scale", SCALES)
def test_it_measures_the_runs_of_other_studies(scale: str) -> None:
    plan = STUDY.plan(scale, "cifar10:x" if scale != "quick" else None, ())
    theirs = mixing.STUDY.plan(scale, "cifar10:x" if scale != "quick" else None, ()).recipes
    plain = [r for r in plan.recipes if "plain" in r.net]
    assert {r for r in plan.recipes if r not in plain} <= set(theirs)
    if scale != "paper":  # whose warm-up is He 2016's here
        assert set(plain) <= set(degradation.STUDY.plan(scale, plain[0].data if scale != "quick" else None, ()).recipes)
    gated = {r for r in plan.recipes if r not in plain and case_of(r) in GATES}
    assert {m.run for m in plan.measurements if m.function == START_AND_END} == gated
    assert len([m for m in plan.measurements if m.function == BY_EPOCH]) == (2 if scale == "quick" else 0)


def test_gates_are_watched_through_a_training(tmp_path: Path) -> None:
    """The training that is repeated is the run itself: its last values are those of the finished network."""
    one = recipe("digits", net="cifar_resnet8(mix=ExclusiveGate(bias=-1))", epochs=2)
    list(train(make_run(one, tmp_path), threads=1))
    found = measure_or_cached(Measurement(START_AND_END, run=one), tmp_path).values
    watched = measure_or_cached(Measurement(BY_EPOCH, run=one), tmp_path).values
    assert len(watched["mean"]) == len(watched["left"]) == 3
    assert watched["left"][0] == found["start"][0]["left"]
    assert watched["left"][-1] == found["end"][0]["left"]
    assert watched["left"][0] != watched["left"][-1]
