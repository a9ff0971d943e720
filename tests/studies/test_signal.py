"""The study `signal`: its measurements run, and its rule can find against it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resnetlab.errors import UserError
from resnetlab.studies.frame.evidence import Evidence
from resnetlab.studies.frame.measurement import Measured, Measurement, measure_or_cached
from resnetlab.studies.frame.scales import SCALES
from resnetlab.studies.frame.statistics import CONTRADICTED, DIRECTION, NOT_JUDGED, REPRODUCED
from resnetlab.studies.frame.study import StudyResult
from resnetlab.studies.frame.text import both
from resnetlab.studies.signal import STUDY

Answer = Callable[[dict[str, Any]], tuple[float, float]]  # settings -> growth per layer of signal and gradient
Starts = Callable[[dict[str, Any]], bool]
PLANNED = {scale: STUDY.plan(scale, None if scale == "quick" else "cifar10:x", ()).measurements for scale in SCALES}


def papers_way(s: dict[str, Any]) -> tuple[float, float]:
    if s["norm"] == "batch":
        return (1.0, 1.2) if s["kind"] == "plain" else (1.03, 1.02)
    if s["kind"] == "resnet":
        return 1.19, 1.1
    return {"gaussian": (0.1, 0.1), "xavier": (0.7, 0.7), "he_fan_out": (0.99, 0.99)}[s["init"]]


def other_way(s: dict[str, Any]) -> tuple[float, float]:
    if s["norm"] == "batch":
        return 1.0, 0.05 if s["kind"] == "plain" else 1.2
    if s["kind"] == "resnet":
        return 0.9, 0.9
    return {"gaussian": (1.0, 1.0), "xavier": (1.1, 1.1), "he_fan_out": (0.7, 0.7)}[s["init"]]


def papers_starts(s: dict[str, Any]) -> bool:
    return s["norm"] == "batch" or s["init"] == "he_fan_out"


def answer(m: Measurement, growths: Answer, starts: Starts, spread: float, off: float) -> dict[str, Any]:
    s = m.settings
    if m.function.endswith(":start"):
        step = 46 if starts(s) else None
        return {"step": step, "rate": 0.1, "tries": []}
    shift = math.exp(spread * (m.seed - 1))
    signal, gradient = (g * shift for g in growths(s))
    values = {"signal": [1.0, signal], "gradient": [gradient, 1.0], "first_stage": signal}
    values |= {"signal_growth": signal, "gradient_growth": gradient}
    predicted = values | {"signal_growth": signal * off, "gradient_growth": gradient / off}
    return values | ({"predicted": predicted} if (s["kind"], s["norm"]) == ("plain", "none") else {})


def judged(
    growths: Answer = papers_way,
    starts: Starts = papers_starts,
    *,
    spread: float = 0.001,
    off: float = 1.02,
    scale: str = "quick",
    seeds: int = 9,
    lost: Callable[[Measurement], bool] = lambda m: False,
) -> StudyResult:
    """The finding if the measurements had these answers."""
    planned = [m for m in PLANNED[scale] if m.seed < seeds]
    made = [Measured(m, answer(m, growths, starts, spread, off), 1.0, {}) for m in planned if not lost(m)]
    return STUDY.judge(Evidence(scale, measured=made, failed=[m for m in planned if lost(m)]))


def verdicts(finding: StudyResult) -> list[str]:
    return [row.verdict for row in finding.rows]


@pytest.mark.parametrize("scale", SCALES)
def test_data_as_in_the_papers_reproduce_them(scale: str) -> None:
    finding = judged(scale=scale)
    assert set(verdicts(finding)) == {REPRODUCED}
    assert len(finding.rows) == 7 + 3 * len({m.settings["depth"] for m in PLANNED[scale] if "steps" in m.settings})


def test_contrary_data_refute_every_claim() -> None:
    finding = judged(other_way, lambda s: not papers_starts(s), off=1.3)
    assert set(verdicts(finding)) == {CONTRADICTED}


def test_seeds_that_scatter_give_a_direction_only() -> None:
    wide = judged(spread=1.5)
    assert verdicts(wide)[0] == DIRECTION
    assert verdicts(wide)[4] == verdicts(wide)[5] == DIRECTION


def test_one_seed_gives_a_direction_only() -> None:
    assert set(verdicts(judged(seeds=1))) == {DIRECTION}


def test_one_seed_in_three_that_starts_is_not_all() -> None:
    finding = judged(starts=lambda s: s["norm"] == "batch" and s["init"] != "gaussian")
    assert verdicts(finding)[-2:] == [CONTRADICTED, DIRECTION]


@pytest.mark.parametrize("kept", [(0.9, 0.1), (0.1, 0.9)])
def test_what_vanishes_does_so_both_ways(kept: tuple[float, float]) -> None:
    def one_way(s: dict[str, Any]) -> tuple[float, float]:
        bare = (s["kind"], s["init"], s["norm"]) == ("plain", "gaussian", "none")
        return kept if bare else papers_way(s)

    assert verdicts(judged(one_way))[0] == CONTRADICTED


@pytest.mark.parametrize("lost", ["signal", "gradient"])
def test_bn_has_to_keep_both_ways_with_every_initialisation(lost: str) -> None:
    def vanishing(s: dict[str, Any]) -> tuple[float, float]:
        signal, gradient = papers_way(s)
        if (s["init"], s["norm"]) == ("xavier", "batch"):
            return (0.01, gradient) if lost == "signal" else (signal, 0.01)
        return signal, gradient

    assert [i for i, verdict in enumerate(verdicts(judged(vanishing))) if verdict == CONTRADICTED] == [4]


def test_a_wrong_prediction_refutes_the_recursion_alone() -> None:
    assert verdicts(judged(off=1.15)).index(CONTRADICTED) == 1
    assert verdicts(judged(off=1.15)).count(CONTRADICTED) == 1


def test_a_claim_that_lacks_a_measurement_is_not_judged() -> None:
    def lost(m: Measurement) -> bool:
        s = m.settings
        return (s["kind"], s["init"], s["norm"], s["depth"]) == ("plain", "he_fan_out", "none", 56) and m.seed == 0

    finding = judged(lost=lost)
    assert [i for i, verdict in enumerate(verdicts(finding)) if verdict == NOT_JUDGED] == [1, 2]


def test_no_measurement_at_all_is_no_verdict() -> None:
    finding = judged(lost=lambda m: True)
    assert set(verdicts(finding)) == {NOT_JUDGED}
    assert finding.figures == []
    assert "failed" in both(finding.answer).en


def test_the_answer_follows_the_data() -> None:
    assert "He 3/3" in both(judged().answer).en
    assert "He 0/3" in both(judged(starts=lambda s: False).answer).en


def test_the_figure_has_measured_marks_beside_the_curves_of_theory() -> None:
    (figure,) = judged().figures
    assert len(figure.panels) == 6
    for series in (s for panel in figure.panels for s in panel.series):
        assert series.marks is not series.dashed
        assert series.label.endswith("theory" if series.dashed else "measured")
    assert [s.label for s in figure.panels[2].series if s.dashed] == ["He theory"]


@pytest.mark.parametrize("scale", SCALES)
def test_every_combination_is_planned_once_for_each_seed(scale: str) -> None:
    asked = [(m.function, str(m.settings), m.seed) for m in PLANNED[scale]]
    assert len(asked) == len(set(asked))
    first = [m.settings for m in PLANNED[scale] if m.seed == 0 and m.function.endswith(":start")]
    assert len({(s["kind"], s["init"], s["norm"]) for s in first}) == 12


def small(function: str, **settings: Any) -> Measurement:
    first = {"pool": 64, "batch": 16, "window": 2, "steps": 4, "rates": [0.1, 0.01]}
    asked = {"kind": "plain", "depth": 14, "init": "gaussian", "norm": "none", **settings}
    asked |= first if function == "start" else {"images": 16}
    return Measurement(f"resnetlab.studies.signal.measure:{function}", asked, data="digits", seed=0)


def test_what_is_measured_before_training(tmp_path: Path) -> None:
    values = measure_or_cached(small("at_start"), tmp_path).values
    assert len(values["signal"]) == len(values["gradient"]) == 6
    assert values["signal_growth"] < 0.2
    assert values["predicted"]["gradient_growth"] == pytest.approx(values["gradient_growth"], rel=0.1)
    assert "predicted" not in measure_or_cached(small("at_start", norm="batch"), tmp_path).values


def test_every_rate_is_tried_by_a_net_that_does_not_start(tmp_path: Path) -> None:
    values = measure_or_cached(small("start"), tmp_path).values
    assert values["step"] is None
    assert [t["rate"] for t in values["tries"]] == [0.1, 0.01]


def test_a_net_without_two_units_in_a_stage_has_no_growth(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="one unit"):
        measure_or_cached(small("at_start", depth=8), tmp_path)
