"""Measurements of a study: of a run's network or a file's, taken once, kept, and taken anew when something changed."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from resnetlab.errors import UserError
from resnetlab.measuring.load import Load
from resnetlab.studies.frame import measurement
from resnetlab.studies.frame.claims import Row
from resnetlab.studies.frame.evidence import Evidence
from resnetlab.studies.frame.measurement import Measurement, MeasurementContext, Weights, measure_or_cached
from resnetlab.studies.frame.record import make_record
from resnetlab.studies.frame.run import Event, run_missing, run_plan
from resnetlab.studies.frame.statistics import NOT_JUDGED, REPRODUCED
from resnetlab.studies.frame.study import Plan, StudyResult, study
from resnetlab.training.recipes import recipe

HERE = __name__
RUN = recipe("digits", net="cifar_resnet8", epochs=1)
calls: list[Any] = []


def depth_of(subject: MeasurementContext) -> dict[str, Any]:
    """A measurement for these tests."""
    calls.append(subject.settings)
    x, labels = subject.batch(40)
    return {"units": len(list(subject.net.units())), "x": list(x.shape), "labels": labels.tolist(), **subject.settings}


def seed_of(subject: MeasurementContext) -> dict[str, Any]:
    """A measurement without network or data."""
    return {"seed": subject.seed, "tuple": (1, 2)}


def failing(subject: MeasurementContext) -> dict[str, Any]:
    """A measurement that fails by a fault of its own."""
    raise ZeroDivisionError("made up")


def timing(subject: MeasurementContext) -> dict[str, Any]:
    """A measurement on a machine that is busy the first time."""
    calls.append("timing")
    return {"net": {"load": asdict(Load(2, 0.0, 2.0 if len(calls) == 1 else 0.0, None)), "call": len(calls)}}


OF_RUN = Measurement(f"{HERE}:depth_of", {"eps": 0.1}, run=RUN)
ALONE = Measurement(f"{HERE}:seed_of", seed=3, alone=True)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    assert [e for e in run_missing((RUN,), folder) if e.done] == [Event(0, done=True)]
    return folder


def test_a_run_is_measured_once_and_then_read(runs: Path) -> None:
    calls.clear()
    first = measure_or_cached(OF_RUN, runs)
    assert first.values["units"] == 3
    assert first.values["x"] == [40, 1, 8, 8]
    assert measure_or_cached(OF_RUN, runs).values == first.values
    assert len(calls) == 1
    measure_or_cached(replace(OF_RUN, settings={"eps": 0.2}), runs)
    assert len(calls) == 2, "other settings are another measurement"


def test_the_images_are_prepared_as_in_training(runs: Path) -> None:
    x, _ = measurement._subject(OF_RUN, runs, "cpu").batch(10_000, "train")
    assert len(x) == 1437
    assert x.mean(0).abs().max() < 1e-5, "the mean of each pixel is subtracted"


def test_what_was_timed_on_a_busy_machine_is_told_and_timed_again(tmp_path: Path) -> None:
    calls.clear()
    timed = Measurement(f"{HERE}:timing", alone=True)
    for wanted in (1, 2, 2):
        assert [e.done for e in run_missing((timed,), tmp_path)] == [True]
        assert measure_or_cached(timed, tmp_path).values["net"]["call"] == wanted, (
            "the record is of what was measured last"
        )


def test_changed_code_measures_again(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure_or_cached(OF_RUN, runs)
    calls.clear()
    monkeypatch.setattr(measurement, "_code", lambda source: "other")
    measure_or_cached(OF_RUN, runs)
    assert len(calls) == 1


def test_code_is_the_measuring_file_and_all_that_it_may_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, shared = tmp_path / "measure.py", tmp_path / "measuring" / "accuracy.py"
    shared.parent.mkdir()
    own.write_text("a")
    shared.write_text("b")
    monkeypatch.setattr(measurement.measuring, "__file__", str(shared.with_name("__init__.py")))
    code = measurement._code.__wrapped__
    first = code(str(own))
    assert code(str(own)) == first
    for path in (own, shared):
        path.write_text("changed")
        assert code(str(own)) != first
        first = code(str(own))


def test_what_defines_a_measurement_names_its_file(tmp_path: Path) -> None:
    file = tmp_path / "some.safetensors"
    file.write_bytes(b"weights")
    others = [
        *({"seed": 4}, {"settings": {"eps": 0.1}}, {"data": "digits"}, {"run": RUN}, {"run": RUN.override(seed=1)}),
        {"weights": Weights("cifar_resnet8", file)},
        {"weights": Weights("cifar_resnet20", file)},
    ]
    paths = [measurement._path(replace(ALONE, **other), seed_of, tmp_path) for other in ({}, *others)]
    assert len(set(paths)) == len(paths)
    assert measurement._path(replace(ALONE, alone=False), seed_of, tmp_path) == paths[0]
    file.write_bytes(b"other weights")
    assert measurement._path(replace(ALONE, **others[-1]), seed_of, tmp_path) != paths[-1], "by its content"


def test_a_measurement_may_name_other_images_than_its_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurement, "opened", lambda name: name)
    assert [measurement._data(replace(OF_RUN, data=data)) for data in (None, "cifar10:x")] == ["digits", "cifar10:x"]


def test_a_weight_file_is_measured_in_place_of_a_run(runs: Path, tmp_path: Path) -> None:
    (file,) = runs.glob("*/last/weights.safetensors")
    of_file = replace(OF_RUN, run=None, weights=Weights("cifar_resnet8(in_channels=1)", file), data="digits")
    assert measure_or_cached(of_file, tmp_path).values == measure_or_cached(OF_RUN, runs).values


def test_what_needs_no_network_gets_none(tmp_path: Path) -> None:
    assert measure_or_cached(ALONE, tmp_path).values == {"seed": 3, "tuple": [1, 2]}, "as JSON gives it back"
    subject = measurement._subject(ALONE, tmp_path, "cpu")
    with pytest.raises(UserError, match="needs a network of residual units"):
        _ = subject.net


@pytest.mark.parametrize("content", ["{", "[]", '{"values": 3, "machine": {}}'])
def test_a_damaged_answer_is_named(tmp_path: Path, content: str) -> None:
    measure_or_cached(ALONE, tmp_path)
    (path,) = (tmp_path / "measured").iterdir()
    path.write_text(content)
    with pytest.raises(UserError, match=str(path)):
        measure_or_cached(ALONE, tmp_path)


def test_a_changed_value_is_told_by_the_checksum(tmp_path: Path) -> None:
    measure_or_cached(ALONE, tmp_path)
    (path,) = (tmp_path / "measured").iterdir()
    assert measure_or_cached(ALONE, tmp_path).checked
    written = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in written.items() if key != "sha256"}))
    assert not measure_or_cached(ALONE, tmp_path).checked, "older versions wrote none"
    path.write_text(json.dumps(written, indent=1))
    path.write_text(path.read_text().replace('"seed": 3', '"seed": 4'))
    with pytest.raises(UserError, match="damaged, its checksum differs; remove it"):
        measure_or_cached(ALONE, tmp_path)


def test_a_run_that_is_not_finished_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not finished"):
        measure_or_cached(OF_RUN, tmp_path)


@pytest.mark.usefixtures("forked")
def test_a_plan_trains_then_measures_and_what_times_comes_last(tmp_path: Path) -> None:
    plan = Plan((RUN,), "seconds", measurements=(ALONE, OF_RUN, Measurement(f"{HERE}:failing")))
    events = list(run_plan(plan, tmp_path, jobs=2))
    ends = [(e.index, e.done) for e in events if e.done or e.failed]
    assert sorted(ends) == [(0, True), (1, True), (2, True), (3, False)]
    assert [i for i, _ in ends][0] == 0
    assert [i for i, _ in ends][-1] == 1
    (failed,) = [e.failed for e in events if e.failed]
    assert "ZeroDivisionError: made up" in failed


def judge(evidence: Evidence) -> StudyResult:
    """A rule for these tests."""
    return StudyResult([Row("c", "p", "m", NOT_JUDGED if evidence.failed else REPRODUCED)])


def test_the_record_counts_and_tells_what_failed(tmp_path: Path) -> None:
    diverging = RUN.override(lr=1e5, warmup="none", net="cifar_resnet8(norm=none)")
    plan = Plan((RUN, diverging), "seconds", measurements=(OF_RUN, replace(OF_RUN, run=diverging)))
    events = list(run_plan(plan, tmp_path))
    failed = {e.index: e.failed for e in events if e.failed}
    assert failed[3] == "the run that it measures failed."
    made_up = replace(study("degradation"), judge=judge)
    record = make_record(made_up, "quick", plan, tmp_path, "c", failed)
    assert (record.runs, record.measurements, len(record.failures), record.verdict) == (
        *(1, 1, 2),
        "0 of 1 reproduced, 1 not judged",
    )
    assert "test_measurement depth_of" in record.failures[1]["net"]
    json.dumps(record.to_dict())


def test_a_smaller_budget_shortens_runs_and_what_measures_them() -> None:
    plan = Plan(
        tuple(RUN.override(seed=s) for s in range(3)),
        "seconds",
        measurements=tuple(replace(OF_RUN, run=RUN.override(seed=s), seed=s) for s in range(3)),
    )
    small = plan.limited(0.5, 2)
    assert [(r.seed, r.epochs) for r in small.recipes] == [(0, 0.5), (1, 0.5)]
    assert [m.run for m in small.measurements] == list(small.recipes)
    assert str(small.note) == " This record was shortened by --epochs 0.5 --seeds 2."
    unlimited = plan.limited(None, None)
    assert (unlimited.recipes, unlimited.measurements, str(unlimited.note)) == (plan.recipes, plan.measurements, "")
