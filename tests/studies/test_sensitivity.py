"""The study `sensitivity`: arithmetic is told apart from what is measured, and the rule can find against the claim."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from resnetlab.studies.frame.evidence import Evidence
from resnetlab.studies.frame.measurement import Measurement
from resnetlab.studies.frame.networks import net_of
from resnetlab.studies.frame.statistics import CONTRADICTED, DIRECTION, NOT_JUDGED, REPRODUCED, UNDECIDED
from resnetlab.studies.frame.study import StudyResult
from resnetlab.studies.sensitivity import STUDY

MadeUp = Callable[..., Evidence]
PLAN = STUDY.plan("quick", None, ())


def values(m: Measurement, size: float = 0.25, plain: float = 0.01, noise: float = 0.0002) -> dict[str, Any]:
    """Units whose F is `size` of H and reacts by 2 % to its weights; H of the plain net reacts by `plain`."""
    F = (0.02 if net_of(m).kind == "residual" else plain) + noise * (m.seed - 1)
    of_H = size if net_of(m).kind == "residual" else 1.0
    unit = {"size": of_H, "weights_F": F, "weights_H": F * of_H, "input_F": F, "input_H": F * (of_H + m.seed / 100)}
    return {"units": [{"unit": f"layer1.{i}"} | unit for i in range((net_of(m).depth - 2) // 2)]}


def verdicts(finding: StudyResult) -> list[str]:
    return [row.verdict for row in finding.rows]


def test_small_branches_react_more(made_up: MadeUp) -> None:
    finding = STUDY.judge(made_up(PLAN, values))
    assert verdicts(finding) == [REPRODUCED] * 4
    assert "F changes 4.00" in str(finding.answer)
    assert "it changes 2.00 times" in str(finding.answer), "against the plain net"
    assert "equal to ‖H‖/‖F‖ in every unit to within 0 %" in str(finding.rows[1].measured)


def test_a_unit_without_a_size_is_not_drawn_as_zero(made_up: MadeUp) -> None:
    def one_without(m: Measurement) -> dict[str, Any]:
        first, *others = values(m)["units"]
        return {"units": [first | {"size": None}, *others]}

    *_, sizes = STUDY.judge(made_up(PLAN, one_without)).figures[0].panels
    assert {line.x[0] for line in sizes.series} == {2}


def test_large_branches_refute_all_but_arithmetic(made_up: MadeUp) -> None:
    finding = STUDY.judge(made_up(PLAN, lambda m: values(m, size=2.0, plain=0.04)))
    assert verdicts(finding) == [REPRODUCED, *[CONTRADICTED] * 3]


def test_factors_are_averaged_by_their_geometric_mean(made_up: MadeUp) -> None:
    finding = STUDY.judge(made_up(PLAN.limited(None, 3), lambda m: values(m, size=0.25 ** (1 + m.seed))))
    assert "16.00 (4.00 – 64.00)" in str(finding.answer)


def test_as_much_as_the_plain_net_is_no_support(made_up: MadeUp) -> None:
    finding = STUDY.judge(made_up(PLAN, lambda m: values(m, plain=0.02)))
    assert verdicts(finding)[1:] == [REPRODUCED, REPRODUCED, UNDECIDED]
    assert "the seeds cannot distinguish from 1" in str(finding.answer)


def test_a_factor_that_is_not_the_identitys_shows(made_up: MadeUp) -> None:
    def off(m: Measurement) -> dict[str, Any]:
        made = values(m)
        return {"units": [unit | {"weights_H": 2 * unit["weights_H"]} for unit in made["units"]]}

    assert "within 50 %" in str(STUDY.judge(made_up(PLAN, off)).rows[1].measured)


def test_one_seed_gives_a_direction_only(made_up: MadeUp) -> None:
    finding = STUDY.judge(made_up(PLAN.limited(None, 1), values))
    assert verdicts(finding) == [REPRODUCED, *[DIRECTION] * 3]
    assert "times as much (one seed: no interval)" in str(finding.answer)


@pytest.mark.parametrize(
    ("lost", "wanted"),
    [
        ("cifar_plain56", [REPRODUCED, REPRODUCED, REPRODUCED, NOT_JUDGED]),
        ("cifar_resnet56", [REPRODUCED, *[NOT_JUDGED] * 3]),
    ],
)
def test_what_failed_is_not_judged(made_up: MadeUp, lost: str, wanted: list[str]) -> None:
    assert verdicts(STUDY.judge(made_up(PLAN, values, lost=[lost]))) == wanted


def test_units_whose_branch_is_zero_are_left_out(made_up: MadeUp) -> None:
    def one_zero(m: Measurement) -> dict[str, Any]:
        made = values(m)
        zero = {"size": 0.0, "weights_F": None, "weights_H": 0.0, "input_F": None, "input_H": 0.01}
        return {"units": [made["units"][0] | zero, *made["units"][1:]]}

    assert verdicts(STUDY.judge(made_up(PLAN, one_zero))) == [REPRODUCED] * 4
