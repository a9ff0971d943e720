"""The study `bottleneck`: its counts are of real units, and its rule can find against it."""

from __future__ import annotations

import copy
from dataclasses import asdict
from typing import Any

import pytest

from resnetlab.measuring.complexity import complexity
from resnetlab.measuring.cost import unit_cost
from resnetlab.measuring.load import Load
from resnetlab.nets.zoo import spec
from resnetlab.studies.bottleneck import STUDY, measure
from resnetlab.studies.bottleneck.measure import UNITS
from resnetlab.studies.bottleneck.study import NETS, WEIGHTS
from resnetlab.studies.frame.costs import BUSY_RULE
from resnetlab.studies.frame.evidence import Evidence
from resnetlab.studies.frame.measurement import Measured, MeasurementContext
from resnetlab.studies.frame.scales import SCALES
from resnetlab.studies.frame.statistics import CONTRADICTED, DIRECTION, NOT_JUDGED, REPRODUCED
from resnetlab.studies.frame.study import StudyResult

TIMES = {"pair-256": 8.0, "pair-64": 1.0, "bottleneck": 1.05, "with projection": 2.0}
NET_TIMES = {"resnet152_v1": 1.0, "vgg16": 1.1, "vgg19": 1.3}


@pytest.fixture(scope="module")
def counts() -> dict[str, Any]:
    """What the units and networks count, with no times."""
    kept = ("name", "parameters", "multiply_adds", "training_bytes", "inference_bytes")
    nets = {name: {k: v for k, v in complexity(spec(name)).to_dict().items() if k in kept} for name in NETS}
    return {"measure_units": {name: vars(unit_cost(s)) for name, s in UNITS.items()}, "measure_networks": nets}


def judged(
    counts: dict[str, Any],
    units: dict[str, float] = TIMES,
    nets: dict[str, float] = NET_TIMES,
    spread: float = 0.01,
    changed: tuple[str, str, str, int] | None = None,
    lost: str = "",
    load: Load = Load(2, 0.0, 0.0, None),  # noqa: B008
) -> StudyResult:
    """The finding of these seconds, give or take, with one count changed, and a measurement that failed."""
    values = copy.deepcopy(counts)
    for function, seconds in (("measure_units", units), ("measure_networks", nets)):
        for i, (name, mean) in enumerate(seconds.items()):
            turns = 1 + 7 * i // 2  # rounds until it is slow instead of fast: each has its own
            values[function][name]["load"] = asdict(load)
            values[function][name]["seconds"] = [mean * (1 + spread * (-1) ** (r // turns)) for r in range(15)]
    if changed:
        values[changed[0]][changed[1]][changed[2]] = changed[3]
    evidence = Evidence("quick")
    for m in STUDY.plan("quick", None, ()).measurements:
        name = m.function.rpartition(":")[2]
        if name == lost:
            evidence.failed.append(m)
        else:
            evidence.measured.append(Measured(m, values[name], 1.0, {}))
    return STUDY.judge(evidence)


def verdicts(finding: StudyResult) -> list[str]:
    return [row.verdict for row in finding.rows]


def test_the_units_are_the_briefs_and_the_papers(counts: dict[str, Any]) -> None:
    assert {name: cost["weights"] for name, cost in counts["measure_units"].items()} == WEIGHTS


def test_counts_and_times_as_claimed_reproduce_it(counts: dict[str, Any]) -> None:
    finding = judged(counts)
    assert verdicts(finding) == [REPRODUCED] * 7
    assert "16.94" in str(finding.answer)
    assert "11.3 G" in str(finding.answer)


@pytest.mark.parametrize(
    ("row", "changed"),
    [
        (0, ("measure_units", "bottleneck", "weights", 69_633)),
        (1, ("measure_units", "pair-64", "multiply_adds", 300_000_000)),
        (1, ("measure_units", "pair-64", "multiply_adds", 100_000_000)),
        (2, ("measure_units", "with projection", "multiply_adds", 500_000_000)),
        (5, ("measure_networks", "vgg16", "multiply_adds", 11_000_000_000)),
    ],
)
def test_other_counts_refute_their_claim_alone(
    counts: dict[str, Any], row: int, changed: tuple[str, str, str, int]
) -> None:
    found = verdicts(judged(counts, changed=changed))
    assert found[row] == CONTRADICTED
    assert found.count(REPRODUCED) == 6


def test_a_slow_bottleneck_refutes_what_is_said_of_its_time(counts: dict[str, Any]) -> None:
    finding = judged(counts, units=TIMES | {"bottleneck": 9.0}, nets=NET_TIMES | {"resnet152_v1": 2.0})
    assert [verdicts(finding)[i] for i in (3, 4, 6)] == [CONTRADICTED] * 3
    assert "still pass" in str(finding.words), "time falls less than multiply-adds"
    assert "still pass" not in str(judged(counts, units=TIMES | {"pair-256": 30.0}).words)


def test_equal_multiply_adds_are_not_equal_times(counts: dict[str, Any]) -> None:
    finding = judged(counts, units=TIMES | {"bottleneck": 1.4})
    assert [i for i, verdict in enumerate(verdicts(finding)) if verdict == CONTRADICTED] == [4]
    assert "four times as many channels" in str(finding.rows[4].remark)


def test_times_of_a_busy_machine_are_not_judged_and_counts_are(counts: dict[str, Any]) -> None:
    finding = judged(counts, nets=NET_TIMES | {"vgg19": 0.2}, load=Load(2, 0.1, 1.4, None))
    assert [i for i, verdict in enumerate(verdicts(finding)) if verdict == NOT_JUDGED] == [3, 4, 6]
    assert verdicts(finding).count(REPRODUCED) == 4
    assert NOT_JUDGED in verdicts(finding)
    said = "the machine was busy: other work took 1.4 of 2 cores; the same command repeats the timing"
    assert str(finding.rows[6].measured) == said
    for words in (finding.words, finding.answer):
        assert "The machine was busy" in str(words)
        assert "0.15" not in str(words), "no ratio of times is told"
    assert str(BUSY_RULE) in str(STUDY.rule)
    waiting = judged(counts, load=Load(2, None, None, 0.4))
    assert "what was timed had to wait for 40 % of the time" in str(waiting.rows[6].measured)


def test_times_that_scatter_give_a_direction_only(counts: dict[str, Any]) -> None:
    found = verdicts(judged(counts, units=TIMES | {"pair-256": 1.3}, spread=0.4))
    assert [found[i] for i in (3, 6)] == [DIRECTION] * 2


@pytest.mark.parametrize(("lost", "rows"), [("measure_units", range(5)), ("measure_networks", range(5, 7))])
def test_a_measurement_that_failed_leaves_its_claims_open(counts: dict[str, Any], lost: str, rows: range) -> None:
    finding = judged(counts, lost=lost)
    assert [i for i, verdict in enumerate(verdicts(finding)) if verdict == NOT_JUDGED] == list(rows)
    assert len(finding.figures[0].panels) == 1


def test_everything_may_fail() -> None:
    failed = list(STUDY.plan("quick", None, ()).measurements)
    finding = STUDY.judge(Evidence("quick", failed=failed))
    assert NOT_JUDGED in verdicts(finding)
    assert (finding.figures, finding.tables, str(finding.answer)) == ([], [], "")


@pytest.mark.parametrize("scale", SCALES)
def test_every_scale_times_alone_and_trains_nothing(scale: str) -> None:
    plan = STUDY.plan(scale, None, ())
    assert plan.recipes == ()
    assert all(m.alone for m in plan.measurements)


def test_units_are_timed_as_they_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "MAP", 4)
    found = measure.measure_units(MeasurementContext({"batch": 2, "rounds": 2}, 0, "cpu", None, None, None, None))
    assert {name: cost["weights"] for name, cost in found.items()} == WEIGHTS
    assert all(len(cost["seconds"]) == 2 for cost in found.values())
