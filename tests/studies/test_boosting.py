"""The study `boosting`: its rule can find for and against the claim."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from resnetlab.studies.boosting import STUDY
from resnetlab.studies.boosting.study import falls
from resnetlab.studies.frame.evidence import Evidence
from resnetlab.studies.frame.measurement import Measurement, Weights
from resnetlab.studies.frame.networks import net_of
from resnetlab.studies.frame.scales import WEIGHTS
from resnetlab.studies.frame.statistics import (
    CONTRADICTED,
    DIRECTION,
    NOT_JUDGED,
    NOT_TESTED,
    REPRODUCED,
    UNDECIDED,
)
from resnetlab.studies.frame.study import StudyResult

MadeUp = Callable[..., Evidence]
PLAN = STUDY.plan("quick", None, ())


def values(m: Measurement, sign: float = 1.0, noise: float = 0.01) -> dict[str, Any]:
    """Units that step down their own image's loss, or with the opposite sign up."""
    n = (net_of(m).depth - 2) // 2
    units = [f"layer{3 * i // n + 1}.{i % (n // 3)}" for i in range(n)]
    shift = noise * (m.seed - 1)
    losses = [2.0 - sign * i / n for i in range(n + 1)]
    return {
        "units": units,
        "stages": [3 * i // n + 1 for i in range(n)],
        "alignments": {
            unit: {"own": sign * 0.2 + shift, "other": sign * 0.05 + shift / 2, "chance": 0.03} for unit in units[1:]
        },
        "read_outs": [
            {"unit": u, "error": 40 * loss, "loss": loss} for u, loss in zip(("stem", *units), losses, strict=True)
        ],
        "shares": dict.fromkeys(units, (0.4 if sign > 0 else 1.4) + shift),
    }


def verdicts(finding: StudyResult) -> list[str]:
    return [row.verdict for row in finding.rows]


def test_steps_down_the_loss_reproduce_it(made_up: MadeUp) -> None:
    finding = STUDY.judge(made_up(PLAN, values))
    assert verdicts(finding) == [REPRODUCED] * 4
    assert "step down the loss's gradient (cosine +0.200)" in str(finding.answer)
    assert "falls at 100 % of them" in str(finding.answer)


def test_steps_up_the_loss_refute_every_claim(made_up: MadeUp) -> None:
    finding = STUDY.judge(made_up(PLAN, lambda m: values(m, sign=-1)))
    assert verdicts(finding) == [CONTRADICTED] * 4
    assert "do not step down" in str(finding.answer)
    assert "falls at 0 % of them" in str(finding.answer)


def test_a_direction_that_all_images_share_is_told_apart(made_up: MadeUp) -> None:
    def shared(m: Measurement) -> dict[str, Any]:
        made = values(m)
        return made | {"alignments": {k: a | {"other": a["own"]} for k, a in made["alignments"].items()}}

    assert verdicts(STUDY.judge(made_up(PLAN, shared)))[:2] == [REPRODUCED, UNDECIDED]


def test_less_than_a_random_direction_is_hardly_a_step(made_up: MadeUp) -> None:
    def tiny(m: Measurement) -> dict[str, Any]:
        made = values(m)
        return made | {"alignments": {k: a | {"own": 0.001} for k, a in made["alignments"].items()}}

    assert "hardly step down the loss's gradient (cosine +0.001, " in str(STUDY.judge(made_up(PLAN, tiny)).answer)


def test_units_without_a_direction_are_left_out(made_up: MadeUp) -> None:
    def one_without(m: Measurement) -> dict[str, Any]:
        made = values(m)
        first = next(iter(made["alignments"]))
        return made | {"alignments": made["alignments"] | {first: {"own": None, "other": None, "chance": 0.03}}}

    finding = STUDY.judge(made_up(PLAN, one_without))
    assert verdicts(finding) == [REPRODUCED] * 4
    cosines, _, shares = finding.figures[0].panels
    assert cosines.series[0].x[0] == 3, "the first unit has no alignment, and the second one no direction"
    assert shares.series[0].x[0] == 1


def test_a_loss_that_stays_does_not_fall() -> None:
    assert falls({"read_outs": [{"loss": loss} for loss in (2.0, 2.0, 1.0, 1.5, 1.0)]}) == 50


def test_the_error_before_the_last_stage_is_that_of_what_enters_it(made_up: MadeUp) -> None:
    """Of units 1 to 27 in stages of nine, the error after unit i is 40 · (2 − i/27) %: after 18 of them 53.3 %."""
    (_, row) = STUDY.judge(made_up(PLAN, values)).tables[0].rows
    assert [row[i] for i in (3, 4, 5)] == ["80.0", "53.3", "40.0"]


def test_scattered_and_single_seeds_give_a_direction_only(made_up: MadeUp) -> None:
    assert verdicts(STUDY.judge(made_up(PLAN, lambda m: values(m, noise=1))))[0] == DIRECTION
    assert verdicts(STUDY.judge(made_up(PLAN.limited(None, 1), values))) == [DIRECTION] * 4


def test_the_deepest_net_decides(made_up: MadeUp) -> None:
    assert verdicts(STUDY.judge(made_up(PLAN, values, lost=["cifar_resnet56"]))) == [NOT_JUDGED] * 4
    assert verdicts(STUDY.judge(made_up(PLAN, values, lost=["cifar_resnet20"]))) == [REPRODUCED] * 4


def test_plain_nets_are_left_out() -> None:
    plan = STUDY.plan(WEIGHTS, "cifar10:x", (Weights("cifar_plain20", Path("x")),))
    assert not plan.measurements
    assert {row.verdict for row in STUDY.judge(Evidence(WEIGHTS)).rows} == {NOT_TESTED}
