"""The study `responses`: its rule can find for and against the paper."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from resnetlab.studies.frame.evidence import Evidence, Group
from resnetlab.studies.frame.measurement import Measured, Measurement
from resnetlab.studies.frame.networks import net_of
from resnetlab.studies.frame.statistics import CONTRADICTED, DIRECTION, NOT_JUDGED, NOT_TESTED, REPRODUCED
from resnetlab.studies.frame.study import StudyResult
from resnetlab.studies.responses import STUDY
from resnetlab.studies.responses.study import share_below

MadeUp = Callable[..., Evidence]
PLAN = STUDY.plan("quick", None, ())


def values(m: Measurement, sign: float = 1.0, noise: float = 0.02, share: float = 0.3) -> dict[str, Any]:
    """Responses as in Fig. 7, or with the opposite sign as it is not."""
    net = net_of(m)
    layers = net.depth - 1
    level = 1.0 + sign * (0.5 if net.kind == "plain" else -net.depth / 200) + noise * (m.seed - 1)
    residual = net.kind == "residual"
    return {
        "layers": ["conv1", *(f"layer1.{i // 2}.conv{i % 2 + 1}" for i in range(layers - 1))],
        "stds": [9.0, *(level + i / 1000 for i in range(layers - 1))],
        "units": [f"layer1.{i}" for i in range(layers // 2)] if residual else [],
        "shares": [share + noise * m.seed] * (layers // 2) if residual else [],
    }


def verdicts(finding: StudyResult) -> list[str]:
    return [row.verdict for row in finding.rows]


def test_responses_as_in_the_paper_reproduce_it(made_up: MadeUp) -> None:
    finding = STUDY.judge(made_up(PLAN, values))
    assert verdicts(finding) == [REPRODUCED] * 4
    assert "are smaller than" in str(finding.answer)
    assert "0.32" in str(finding.answer)


def test_a_unit_without_a_share_is_not_drawn_as_zero(made_up: MadeUp) -> None:
    def one_without(m: Measurement) -> dict[str, Any]:
        made = values(m)
        return made | {"shares": [None, *made["shares"][1:]] if made["shares"] else []}

    *_, shares = STUDY.judge(made_up(PLAN, one_without)).figures[0].panels
    assert {line.x[0] for line in shares.series} == {2}


def test_contrary_responses_refute_every_claim(made_up: MadeUp) -> None:
    finding = STUDY.judge(made_up(PLAN, lambda m: values(m, sign=-1, share=2)))
    assert verdicts(finding) == [CONTRADICTED] * 4
    assert "no smaller than" in str(finding.answer)
    assert "no less" in str(finding.answer)


def test_seeds_that_scatter_give_a_direction_only(made_up: MadeUp) -> None:
    assert verdicts(STUDY.judge(made_up(PLAN, lambda m: values(m, noise=1.5, share=-1))))[0] == DIRECTION


def test_one_seed_gives_a_direction_only(made_up: MadeUp) -> None:
    finding = STUDY.judge(made_up(PLAN.limited(None, 1), values))
    assert verdicts(finding) == [DIRECTION] * 4
    assert "one seed" in str(finding.rows[0].measured)


def test_the_quick_scale_does_not_test_sizes_that_training_has_not_changed(made_up: MadeUp) -> None:
    finding = STUDY.judge(made_up(PLAN, values, scale="quick"))
    assert verdicts(finding) == [*[NOT_TESTED] * 3, REPRODUCED]
    assert "hardly move batch norm's scales" in str(finding.rows[0].remark)
    assert "hardly move them" in str(PLAN.note), "said before it runs"


def test_the_stem_counts_in_the_figure_and_not_in_the_means(made_up: MadeUp) -> None:
    finding = STUDY.judge(made_up(PLAN, values))
    ordered, ranked, _ = finding.figures[0].panels
    assert [len(s.x) for s in ordered.series] == [19, 55, 19, 55]
    assert {s.mean[0] for s in ordered.series} == {9.0}
    assert all(s.mean == sorted(s.mean, reverse=True) for s in ranked.series)
    assert float(str(finding.tables[0].rows[0][3])) < 9


@pytest.mark.parametrize("lost", ["cifar_plain56", "cifar_resnet56"])
def test_what_failed_is_not_judged(made_up: MadeUp, lost: str) -> None:
    finding = STUDY.judge(made_up(PLAN, values, lost=[lost]))
    assert verdicts(finding)[:2] == [NOT_JUDGED] * 2
    assert verdicts(finding)[2] == (REPRODUCED if "plain" in lost else NOT_JUDGED)
    assert "With 20 layers" in str(finding.answer), "the deepest pair that is whole"


def test_the_deepest_residual_net_adds_less_than_it_has(made_up: MadeUp) -> None:
    for deep, found in ((0.3, REPRODUCED), (2.0, CONTRADICTED)):
        finding = STUDY.judge(
            made_up(PLAN, lambda m, deep=deep: values(m, share=deep if net_of(m).depth == 56 else 2.3 - deep))
        )
        assert verdicts(finding)[3] == found


def test_a_curve_lies_below_another_only_where_it_is_lower() -> None:
    plain = Group("plain", [Measured(PLAN.measurements[0], {"stds": [3.0, 2.0, 1.0]}, 1.0, {})])
    assert share_below(plain)({"stds": [1.0, 2.0, 2.5]}) == pytest.approx(100 / 3), "lower, equal, and equal"
