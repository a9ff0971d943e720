"""The study `lesion`: its rule can find for and against the paper."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from resnetlab.studies.frame.evidence import Evidence
from resnetlab.studies.frame.measurement import Measurement
from resnetlab.studies.frame.networks import net_of
from resnetlab.studies.frame.statistics import CONTRADICTED, DIRECTION, NOT_JUDGED, NOT_TESTED, REPRODUCED, UNDECIDED
from resnetlab.studies.frame.study import StudyResult
from resnetlab.studies.frame.text import Both
from resnetlab.studies.lesion.measure import kendall_taus
from resnetlab.studies.lesion.study import PATHS, STUDY, largest_step, rise, rises, tau_correlation

MadeUp = Callable[..., Evidence]
PLAN = STUDY.plan("quick", None, ())
ARITHMETIC = 6  # its row, which no measurement changes


def values(m: Measurement, papers: bool = True, noise: float = 0.1) -> dict[str, Any]:
    """Lesions as in the paper, or with the two kinds' fates exchanged."""
    net, shift = net_of(m), noise * (m.seed - 1)
    if m.function == PATHS:
        factor = (0.5 if papers else 1.5) + shift / 10
        return {"norms": [factor**k for k in range((net.depth - 2) // 2 + 1)]}
    robust = (net.kind == "residual") is papers
    units = (net.depth - 2) // 2
    same = [i not in (units // 3, 2 * units // 3) for i in range(units)]
    hit = (0.5 if robust else 78.0) + shift
    without: list[float | None] = [10 + (hit if s else hit + (20 if papers else -20)) for s in same]
    if net.kind == "plain":
        without = [error if s else None for error, s in zip(without, same, strict=True)]
    steps = [10.0, 20.0, 30.0, 45.0, 60.0, 75.0, 90.0] if robust else [10.0, *[90.0] * 6]
    taus = [1 - count / 100 for count in (0, 1, 2, 4, 8, 16, 32)]
    errors = [10 + 100 * (1 - tau) if robust else 90 - 100 * (1 - tau) for tau in taus]
    return {
        "same_size": same,
        "intact": 10.0,
        "without": without,
        "deleted": [{"count": i, "errors": [e + shift, e]} for i, e in enumerate(steps)],
        "swapped": [
            {"count": i, "taus": [t, t], "errors": [e + shift, e]}
            for i, (t, e) in enumerate(zip(taus, errors, strict=True))
        ],
    }


def verdicts(finding: StudyResult) -> list[str]:
    return [row.verdict for row in finding.rows]


def test_lesions_as_in_the_paper_reproduce_it(made_up: MadeUp) -> None:
    finding = STUDY.judge(made_up(PLAN, values))
    assert verdicts(finding) == [REPRODUCED] * 9
    assert "by +0.5 points" in str(finding.answer)
    assert ", shorter than most paths" in str(finding.answer)
    assert [f.name for f in finding.figures] == ["errors", "paths"]


def test_contrary_lesions_refute_every_claim_but_arithmetic(made_up: MadeUp) -> None:
    finding = STUDY.judge(made_up(PLAN, lambda m: values(m, papers=False)))
    found = verdicts(finding)
    assert found.pop(ARITHMETIC) == REPRODUCED
    assert found == [CONTRADICTED] * 8
    assert "no shorter than most paths" in str(finding.answer)


def test_one_seed_gives_a_direction_only(made_up: MadeUp) -> None:
    found = verdicts(STUDY.judge(made_up(PLAN.limited(None, 1), values)))
    assert found.pop(ARITHMETIC) == REPRODUCED
    assert found == [DIRECTION] * 8


def test_what_failed_is_not_judged(made_up: MadeUp) -> None:
    found = verdicts(STUDY.judge(made_up(PLAN, values, lost=["cifar_plain20"])))
    assert found == [REPRODUCED, NOT_JUDGED, NOT_JUDGED, *[REPRODUCED] * 6]
    found = verdicts(STUDY.judge(made_up(PLAN, values, lost=["cifar_resnet56"])))
    assert found == [NOT_JUDGED, REPRODUCED, *[NOT_JUDGED] * 4, REPRODUCED, *[NOT_JUDGED] * 2]


def test_a_gradient_that_falls_otherwise_than_exponentially_is_told(made_up: MadeUp) -> None:
    """A steep fall to a level: the slope is below 0, but no line fits."""

    def levelling(m: Measurement) -> dict[str, Any]:
        made = values(m)
        return {"norms": [1.0, *[1e-3] * (len(made["norms"]) - 1)]} if m.function == PATHS else made

    rows = STUDY.judge(made_up(PLAN, levelling)).rows
    assert [str(row.claim) for row in rows if row.verdict == CONTRADICTED][0].startswith("A path's gradient falls")


def test_a_net_without_units_that_change_sizes_is_not_asked_about_them(made_up: MadeUp) -> None:
    def same_sized(m: Measurement) -> dict[str, Any]:
        made = values(m)
        return made if m.function == PATHS else made | {"same_size": [True] * len(made["same_size"]), "without": [9.0]}

    def whole(m: Measurement) -> dict[str, Any]:
        made = same_sized(m)
        return made if m.function == PATHS else made | {"without": [11.0] * len(made["same_size"])}

    assert verdicts(STUDY.judge(made_up(PLAN, whole)))[3] == NOT_TESTED


def test_the_quick_scale_does_not_test_what_small_maps_cannot_show(made_up: MadeUp) -> None:
    finding = STUDY.judge(made_up(PLAN, values, scale="quick"))
    assert [i for i, verdict in enumerate(verdicts(finding)) if verdict == NOT_TESTED] == [3]
    assert "4x4 and 2x2" in str(finding.rows[3].remark)
    assert "have little to shrink" in str(PLAN.note), "said before it runs"


def test_rises_tell_units_that_change_sizes_apart() -> None:
    made = {"intact": 10.0, "without": [11.0, None, 13.0, 50.0], "same_size": [True, False, True, False]}
    assert rise(made) == 2
    assert rises(made, same_size=False) == [40]
    assert rises(made | {"without": [11.0, None, 13.0, None]}, same_size=False) == []


def test_the_largest_step_is_a_share_of_the_whole_rise() -> None:
    assert largest_step({"deleted": [{"errors": [e]} for e in (10.0, 20.0, 90.0)]}) == 70 / 80
    assert largest_step({"deleted": [{"errors": [e]} for e in (10.0, 10.0)]}) is None


def test_a_gradient_of_all_paths_alike_does_not_come_along_shorter_ones(made_up: MadeUp) -> None:
    """Of n units they are n/2 long on average, by the binomial distribution."""

    def level(m: Measurement) -> dict[str, Any]:
        made = values(m)
        return {"norms": [1.0] * len(made["norms"])} if m.function == PATHS else made

    assert verdicts(STUDY.judge(made_up(PLAN, level)))[8] == UNDECIDED


@pytest.mark.parametrize(("taus", "errors"), [((1.0, 1.0), (10.0, 20.0)), ((1.0, 0.5), (10.0, 10.0))])
def test_what_is_constant_is_not_correlated(taus: tuple[float, ...], errors: tuple[float, ...]) -> None:
    assert tau_correlation({"swapped": [{"taus": taus, "errors": errors}]}) == 0


def test_what_raises_no_error_has_no_steps_and_what_has_no_pair_no_answer(made_up: MadeUp) -> None:
    def unharmed(m: Measurement) -> dict[str, Any]:
        made = values(m)
        return made if m.function == PATHS else made | {"deleted": [{"count": i, "errors": [10.0]} for i in range(7)]}

    finding = STUDY.judge(made_up(PLAN, unharmed, lost=["cifar_plain20", "cifar_plain56"]))
    assert (finding.rows[4].measured, finding.rows[4].verdict) == (
        Both("deleting units does not raise the error", "删除单元未使误差上升"),
        NOT_JUDGED,
    )
    assert str(finding.answer).startswith("No plain and residual net")


def test_an_error_that_falls_without_a_unit_has_one_sign(made_up: MadeUp) -> None:
    def better(m: Measurement) -> dict[str, Any]:
        made = values(m)
        return made if m.function == PATHS else made | {"without": [9.0 + m.seed / 10 for _ in made["without"]]}

    finding = STUDY.judge(made_up(PLAN, better))
    assert str(finding.rows[0].measured) == "residual-56: -0.90 ± 0.10 points"
    assert "+-" not in "".join(str(row.measured) for row in finding.rows) + str(finding.answer)


def test_the_figure_tells_the_units_that_change_sizes_by_marks(made_up: MadeUp) -> None:
    singles = STUDY.judge(made_up(PLAN, values)).figures[0].panels[0].series
    marked = [s for s in singles if s.marks]
    assert [(s.label, len(s.x)) for s in marked] == [("residual-20", 2), ("residual-56", 2)]
    assert len(singles) == 6


def test_an_orders_tau_is_by_its_inversions() -> None:
    """1 − 4 · inversions / (n (n − 1)) (Kendall 1938)."""
    assert kendall_taus([[0, 1, 2], [2, 1, 0], [1, 0, 2]]) == [1, -1, pytest.approx(1 / 3)]
