"""The study `shortcuts`: its runs share those of `degradation`, and its rule can find against it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest

from resnetlab.measuring.load import Load
from resnetlab.nets.zoo import build, spec
from resnetlab.studies import degradation
from resnetlab.studies.frame.evidence import Evidence, RunResult
from resnetlab.studies.frame.measurement import Measured, Measurement
from resnetlab.studies.frame.scales import SCALES
from resnetlab.studies.frame.statistics import CONTRADICTED, DIRECTION, NOT_JUDGED, REPRODUCED, UNDECIDED
from resnetlab.studies.frame.study import Plan, StudyResult
from resnetlab.studies.shortcuts import STUDY
from resnetlab.studies.shortcuts.figures import KINDS, OPTIONS, net_of
from resnetlab.training.recipe import Recipe

PAPERS = {"plain": 28.54, "A": 25.03, "B": 24.52, "C": 24.19}
COSTS = {"A": 1.0, "B": 1.1, "C": 1.3}
UNIT = {
    "unit": "layer2.0",
    "added": 16,
    "largest_shortcut": 0.0,
    "largest_gap": 0.0,
    "branch_rms_added": 2.0,
    "shortcut_rms_kept": 1.0,
    "branch_rms_kept": 1.0,
}
Errors = dict[str, float]  # by kind: %


def kind_of(net: str) -> str:
    return "plain" if "plain" in net else net.partition("shortcut=")[2][:1] or "A"


def values_of(m: Measurement, costs: Errors, seconds: Errors, unit: dict[str, Any], others: float) -> dict[str, Any]:
    if m.function.endswith(":measure_padding"):
        return {"units": [unit]}
    keys = ("parameters", "multiply_adds", "training_bytes", "inference_bytes")
    return {
        net: {k: 10**6 * costs[kind_of(net)] for k in keys}
        | {"seconds": [seconds[kind_of(net)] * (1 + r / 100) for r in range(15)]}
        | {"batch": m.settings["batch"], "load": asdict(Load(4, others, others, None))}
        for net in m.settings["nets"]
    }


def judged(
    scale: str,
    errors: Errors,
    spread: float = 0.1,
    costs: Errors = COSTS,
    seconds: Errors = COSTS,
    unit: dict[str, Any] = UNIT,
    lost: Callable[[Recipe | Measurement], bool] = lambda _: False,
    plan: Plan | None = None,
    others: float = 0.0,
) -> StudyResult:
    """The finding if every seed ended with these errors, give or take, but for what was lost."""
    plan = plan or STUDY.plan(scale, None, ())
    outcomes = []
    for r in plan.recipes:
        error = errors[kind_of(r.net)] + spread * (r.seed % 3 - 1)
        outcomes.append(RunResult(r, {"train_error": error, "test_error": error}, [], {}))
    measured = [Measured(m, values_of(m, costs, seconds, unit, others), 1.0, {}) for m in plan.measurements]
    return STUDY.judge(
        Evidence(
            scale,
            [o for o in outcomes if not lost(o.recipe)],
            [m for m in measured if not lost(m.measurement)],
            [one for one in (*plan.recipes, *plan.measurements) if lost(one)],
        )
    )


def verdicts(finding: StudyResult) -> list[str]:
    return [row.verdict for row in finding.rows]


def test_data_as_in_the_paper_reproduce_it() -> None:
    finding = judged("paper", PAPERS)
    assert verdicts(finding) == [REPRODUCED] * 5
    assert "exactly nothing" in str(finding.answer)
    assert "it is 2.00 times as large" in str(finding.words)


def test_contrary_data_refute_every_claim() -> None:
    other = {"plain": 25.0, "A": 24.0, "B": 25.0, "C": 26.0}
    cheap = {"A": 1.3, "B": 1.2, "C": 1.0}
    finding = judged("paper", other, costs=cheap, seconds=cheap, unit=UNIT | {"largest_shortcut": 0.1})
    assert verdicts(finding) == [CONTRADICTED] * 5
    assert "contrary to the claim" in str(finding.answer)


def test_the_words_follow_how_c_does() -> None:
    assert "C is worse than A" in str(judged("quick", PAPERS | {"C": 30.0}).words)
    assert "C is better than A" in str(judged("quick", PAPERS).words)
    assert "cannot be distinguished" in str(judged("quick", PAPERS, spread=5.0).words)


def test_seeds_that_scatter_give_a_direction_only() -> None:
    assert verdicts(judged("paper", PAPERS, spread=2.0))[2:4] == [DIRECTION] * 2


def test_one_seed_gives_a_direction_only() -> None:
    plan = STUDY.plan("cifar", None, ()).limited(None, 1)
    assert verdicts(judged("cifar", PAPERS, plan=plan))[2:4] == [DIRECTION] * 2


def test_c_must_be_slower_than_both_on_every_net() -> None:
    assert verdicts(judged("paper", PAPERS, seconds={"A": 1.0, "B": 1.3, "C": 1.2}))[1] == CONTRADICTED


def test_c_must_have_more_of_everything_than_both() -> None:
    assert verdicts(judged("paper", PAPERS, costs={"A": 1.0, "B": 1.3, "C": 1.2}))[0] == CONTRADICTED


@pytest.mark.parametrize(
    ("apart", "found"), [(0.3, REPRODUCED), (0.7, DIRECTION), (2.0, UNDECIDED), (2.6, CONTRADICTED)]
)
def test_options_are_alike_within_half_of_what_a_shortcut_surely_gains(apart: float, found: str) -> None:
    """Of five seeds differences are known to ± 0.6: the gain is 2.4 to 3.6, and half of it 1.2 to 1.8."""
    errors = {"plain": 28.0, "A": 25.0, "B": 25.0, "C": 25.0 + apart}
    assert verdicts(judged("paper", errors, spread=0.5))[3] == found


def test_times_of_a_busy_machine_are_not_judged() -> None:
    finding = judged("paper", PAPERS, others=2.0)
    assert verdicts(finding) == [REPRODUCED, NOT_JUDGED, *[REPRODUCED] * 3]
    assert "the machine was busy: other work took 2.0 of 4 cores" in str(finding.rows[1].measured)
    assert "The machine was busy" in str(finding.answer)


@pytest.mark.parametrize("change", [{"largest_gap": 1e-7}, {"shortcut_rms_kept": 0.0}])
def test_the_padding_is_exact_and_beside_a_shortcut_that_lives(change: dict[str, float]) -> None:
    """Where the kept channels carried nothing either, zero in the others would say nothing."""
    assert verdicts(judged("quick", PAPERS, unit=UNIT | change))[4] == CONTRADICTED


def test_a_claim_that_lacks_a_run_is_not_judged() -> None:
    finding = judged("quick", PAPERS, lost=lambda one: isinstance(one, Recipe) and one.net == net_of("plain", 56))
    assert verdicts(finding) == [REPRODUCED, REPRODUCED, REPRODUCED, NOT_JUDGED, REPRODUCED]
    assert ["cifar_plain56", "–", "–"] in [list(row[:3]) for row in finding.tables[0].rows]


def test_everything_may_fail() -> None:
    finding = judged("quick", PAPERS, lost=lambda _: True)
    assert set(verdicts(finding)) == {NOT_JUDGED}
    assert finding.figures == []


@pytest.mark.parametrize("scale", SCALES)
def test_runs_without_projections_are_those_of_degradation(scale: str) -> None:
    others = set(degradation.STUDY.plan(scale, None, ()).recipes)
    recipes = STUDY.plan(scale, None, ()).recipes
    assert {r for r in recipes if kind_of(r.net) in ("plain", "A")} <= others
    assert not {r for r in recipes if kind_of(r.net) in ("B", "C")} & others


def test_resnet_34_is_timed_with_an_eighth_of_the_images() -> None:
    cifar, imagenet = [m.settings for m in STUDY.plan("paper", None, ()).measurements if "batch" in m.settings]
    assert (cifar["nets"][0], cifar["batch"]) == (net_of("A", 56), 128)
    assert (imagenet["nets"][0], imagenet["batch"]) == ("resnet34(shortcut=A)", 16)


def test_kinds_differ_in_their_shortcut_only() -> None:
    for kind in KINDS:
        found = spec(net_of(kind, 20))
        assert found.is_plain is (kind == "plain")  # type: ignore[union-attr]
        if kind in OPTIONS:
            assert found == spec("cifar_resnet20").override(shortcut=kind)  # type: ignore[union-attr]
    assert build(net_of("C", 8)).spec.shortcut == "C"  # type: ignore[union-attr]
