"""The study `depth`: its runs share those of `degradation`, and its rule can find against it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from resnetlab.data.open import open_data
from resnetlab.data.statistics import measure
from resnetlab.studies import degradation
from resnetlab.studies.depth.measure import FIRST_152, FIRST_1202, measure_first_steps
from resnetlab.studies.depth.study import STUDY
from resnetlab.studies.frame.evidence import Evidence, RunResult
from resnetlab.studies.frame.measurement import Measured, Measurement, MeasurementContext
from resnetlab.studies.frame.scales import SCALES
from resnetlab.studies.frame.statistics import CONTRADICTED, DIRECTION, NOT_JUDGED, NOT_TESTED, REPRODUCED, UNDECIDED
from resnetlab.studies.frame.study import Plan, StudyResult
from resnetlab.training.recipe import Recipe

Errors = Callable[[int], float]  # depth -> %


def depth_of(net: str) -> int:
    return int(net.removeprefix("cifar_resnet"))


def values_of(m: Measurement, end: float) -> dict[str, Any]:
    if m.function.endswith(":measure_first_steps"):
        steps = m.settings["steps"]
        return {
            "losses": [1.0] * steps,
            "errors": [90.0] * (steps * 3 // 4) + [end + m.seed] * (steps - steps * 3 // 4),
        }
    return {
        net: {k: 10**6 * depth_of(net) for k in ("parameters", "multiply_adds", "training_bytes", "inference_bytes")}
        | {"depth": depth_of(net), "batch": 2, "seconds": [0.01 * depth_of(net)] * 7}
        for net in m.settings["nets"]
    }


def judged(
    scale: str,
    train: Errors,
    test: Errors,
    end: float = 50.0,
    spread: float = 0.01,
    lost: Callable[[Recipe | Measurement], bool] = lambda _: False,
    plan: Plan | None = None,
    warm_up: float = 0.0,
) -> StudyResult:
    """The finding of these errors by depth, give or take, and of first steps that end at `end`.

    warm_up: by how much the runs that the scale quick warms up end lower.
    """
    plan = plan or STUDY.plan(scale, None, ())
    outcomes = []
    for r in plan.recipes:
        shift = spread * (r.seed % 3 - 1)
        helped = 1.0 if r.data == "digits" and r.warmup == "train_error" else 0.0
        result = {"train_error": train(depth_of(r.net)) + shift, "test_error": test(depth_of(r.net)) + shift}
        result["train_error"] -= helped * warm_up
        outcomes.append(RunResult(r, result, [], {}))
    return STUDY.judge(
        Evidence(
            scale,
            [o for o in outcomes if not lost(o.recipe)],
            [Measured(m, values_of(m, end), 1.0, {}) for m in plan.measurements if not lost(m)],
            [one for one in (*plan.recipes, *plan.measurements) if lost(one)],
        )
    )


def papers_train(depth: int) -> float:
    return 1.0 / depth


def papers_test(depth: int) -> float:
    return 7.93 if depth == 1202 else 9 - depth / 50


def verdicts(finding: StudyResult) -> list[str]:
    return [row.verdict for row in finding.rows]


def test_data_as_in_the_paper_reproduce_it() -> None:
    finding = judged("paper", papers_train, papers_test)
    assert verdicts(finding) == [REPRODUCED, NOT_TESTED, *[REPRODUCED] * 3]
    assert "1,202 layers reach" in str(finding.answer)


def test_contrary_data_refute_every_claim() -> None:
    finding = judged("paper", lambda depth: depth / 10, lambda depth: 10 - depth / 200, end=88)
    assert verdicts(finding) == [CONTRADICTED, NOT_TESTED, *[CONTRADICTED] * 3]


def test_the_quick_scale_shows_that_the_deepest_start_and_no_more() -> None:
    finding = judged("quick", papers_train, papers_test, warm_up=0.5)
    assert verdicts(finding) == [REPRODUCED, REPRODUCED, NOT_TESTED, NOT_TESTED, REPRODUCED, REPRODUCED]
    assert verdicts(judged("quick", papers_train, papers_test, end=85))[4:] == [CONTRADICTED] * 2
    assert verdicts(judged("quick", papers_train, papers_test, end=78))[4:] == [DIRECTION] * 2


def test_the_papers_warm_up_is_what_110_layers_are_judged_with() -> None:
    """Without it they may fail: that is what the warm-up is for."""
    finding = judged("quick", lambda depth: 30.0 if depth == 110 else 0.5, papers_test, warm_up=29.5)
    assert verdicts(finding)[:2] == [REPRODUCED, REPRODUCED]
    assert "110 layers with the paper's warm-up train as well as 56" in str(finding.rows[0].claim)
    finding = judged("quick", lambda depth: 30.0 if depth == 110 else 0.5, papers_test)
    assert verdicts(finding)[:2] == [CONTRADICTED, UNDECIDED]
    assert verdicts(judged("quick", papers_train, papers_test, warm_up=-5.0))[1] == CONTRADICTED
    assert "110 layers train as well as 56" in str(judged("cifar", papers_train, papers_test).rows[0].claim)


@pytest.mark.parametrize(("error", "found"), [(0.05, REPRODUCED), (0.15, CONTRADICTED)])
def test_1202_layers_fit_their_images_if_less_than_a_tenth_of_a_percent_is_wrong(error: float, found: str) -> None:
    """In the paper it is below 0.1 %."""
    assert verdicts(judged("paper", lambda _: error, papers_test))[2] == found


@pytest.mark.parametrize(("above", "found"), [(0.5, REPRODUCED), (1.5, CONTRADICTED)])
def test_110_layers_train_as_well_if_they_end_less_than_a_point_above_56(above: float, found: str) -> None:
    assert verdicts(judged("paper", lambda depth: above * (depth == 110), papers_test))[0] == found


def test_one_seed_gives_a_direction_only() -> None:
    plan = STUDY.plan("quick", None, ()).limited(None, 1)
    assert verdicts(judged("quick", papers_train, papers_test, plan=plan, warm_up=0.5)) == [
        *(DIRECTION, DIRECTION, NOT_TESTED, NOT_TESTED),
        *(DIRECTION, DIRECTION),
    ]


def test_a_claim_that_lacks_what_it_needs_is_not_judged() -> None:
    def lost(one: Recipe | Measurement) -> bool:
        return isinstance(one, Measurement) and one.settings.get("net") == FIRST_152 and one.seed == 1

    def warmed(one: Recipe | Measurement) -> bool:
        return isinstance(one, Recipe) and one.warmup == "train_error"

    assert verdicts(judged("quick", papers_train, papers_test, lost=lost))[4:] == [REPRODUCED, NOT_JUDGED]
    assert verdicts(judged("quick", papers_train, papers_test, lost=warmed))[:2] == [NOT_JUDGED, NOT_JUDGED]
    finding = judged("paper", papers_train, papers_test, lost=lambda one: getattr(one, "net", "") == FIRST_1202)
    assert verdicts(finding) == [REPRODUCED, NOT_TESTED, NOT_JUDGED, NOT_JUDGED, REPRODUCED]
    assert ["1,202", "–", "–", "7.93"] in [list(row[:4]) for row in finding.tables[0].rows]


def test_everything_may_fail() -> None:
    finding = judged("quick", papers_train, papers_test, lost=lambda _: True)
    assert NOT_JUDGED in verdicts(finding)
    assert finding.figures == []


def test_figures_show_errors_first_steps_and_costs() -> None:
    finding = judged("quick", papers_train, papers_test)
    assert [f.name for f in finding.figures] == ["errors", "first-steps", "costs"]
    errors, steps, costs = ([p.series for p in f.panels] for f in finding.figures)
    assert errors[0][0].x == [8, 20, 56, 110]
    assert (steps[0][0].x[-1], steps[0][0].mean[-1], steps[0][0].low[-1]) == (40, 51, 50)
    line, marks = costs[0]
    assert line.mean == pytest.approx(marks.mean), "time in proportion to depth lies on the line"


@pytest.mark.parametrize("scale", SCALES)
def test_shallow_runs_are_those_of_degradation(scale: str) -> None:
    others = set(degradation.STUDY.plan(scale, None, ()).recipes)
    deepest = 110 if scale == "paper" else 56
    assert {r for r in STUDY.plan(scale, None, ()).recipes if depth_of(r.net) <= deepest} <= others


def test_runs_with_and_without_the_warm_up_differ_in_nothing_else() -> None:
    recipes = [r for r in STUDY.plan("quick", None, ()).recipes if depth_of(r.net) == 110]
    assert len(set(recipes)) == 6
    usual, warmed = recipes[::2], recipes[1::2]  # seed by seed
    for one, other in zip(usual, warmed, strict=True):
        assert (other.warmup, other.warmup_error, other.warmup_lr) == ("train_error", 80.0, one.lr / 10)
        assert one.override(warmup=other.warmup, warmup_lr=other.warmup_lr, warmup_steps=0) == other


def first_steps(lr: float, seed: int = 0, size: int | None = None) -> dict[str, Any]:
    data = open_data("digits")
    settings = {"net": "cifar_resnet8", "steps": 30, "batch": 32, "lr": lr, "size": size}
    return measure_first_steps(
        MeasurementContext(settings, seed, "cpu", None, None, data, measure(data.train, 0).channel_mean_std())
    )


def test_first_steps_learn_and_repeat() -> None:
    found = first_steps(0.05)
    assert found == first_steps(0.05)
    assert sum(found["errors"][-5:]) / 5 < 40 < found["errors"][0]
    assert found["errors"] != first_steps(0.05, seed=1)["errors"]


def test_first_steps_tell_a_loss_that_is_not_finite() -> None:
    found = first_steps(1e6, size=16)
    assert None in found["losses"]
    assert len(found["errors"]) == 30
