"""Records and kept measurements with a field changed: the report and the study end well or with one stated line."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from resnetlab.errors import UserError
from resnetlab.report.study_pages import write_essay, write_report
from resnetlab.studies.frame.claims import Row
from resnetlab.studies.frame.evidence import Evidence
from resnetlab.studies.frame.measurement import Measurement, MeasurementContext, measure_or_cached
from resnetlab.studies.frame.record import make_record, outcome
from resnetlab.studies.frame.statistics import REPRODUCED
from resnetlab.studies.frame.study import Plan, StudyResult, study
from resnetlab.training.recipes import recipe
from resnetlab.training.run import make_run, open_folder

Mutations = Callable[[Any], Sequence[Callable[[], Any]]]
SERIES = {"label": "plain-8 test", "dashed": False, "colour": 0, "x": [1.0, 2.0], "mean": [9.0, 4.0]}
BOTH = {"en": "words $x^2$", "zh": "文字"}
RECORD: dict[str, Any] = {
    **dict.fromkeys(("title", "claim", "method", "rule", "expected", "words", "answer", "theory"), BOTH),
    "study": "degradation",
    "scale": "quick",
    "source": "He 2015",
    "verdict": REPRODUCED.word,
    "rows": [{"claim": BOTH, "paper": "1 %", "measured": "2 %", "verdict": REPRODUCED.word}],
    "figures": [
        {
            "name": "curves",
            "caption": BOTH,
            "panels": [
                {
                    "title": "plain",
                    "x_label": "epoch",
                    "y_label": "error (%)",
                    "series": [{**SERIES, "low": [8.0, 3.0], "high": [10.0, 5.0], "marks": False}],
                    "y_limits": [0.0, 100.0],
                    "x_log": False,
                    "y_log": False,
                }
            ],
        }
    ],
    "tables": [{"caption": BOTH, "header": ["network", "error"], "rows": [["plain-8", "1.5"]]}],
    "note": "",
    "machine": {"processor": "a processor", "cores": 2, "commit": None},
    "runs": 3,
    "training_seconds": 12.5,
    "measurements": 1,
    "measuring_seconds": 1.5,
    "command": "resnetlab study run degradation",
    "date": "2026-01-02T03:04:05+00:00",
    "format": 2,
    "failures": [{"net": "plain-8", "recipe": "digits", "seed": 0, "reason": "it diverged."}],
}


def reported(values: Any, folder: Path) -> bool:
    (folder / "degradation-quick.json").write_text(json.dumps(values))
    try:
        write_report(folder)
    except UserError as error:
        words = str(error)
    else:
        return True
    assert "\n" not in words
    assert words.startswith(f"{folder / 'degradation-quick.json'}: ")
    return False


@pytest.mark.parametrize("step", [17, pytest.param(1, marks=pytest.mark.slow)])
def test_every_field_of_a_record(tmp_path: Path, mutations: Mutations, step: int) -> None:
    assert reported(RECORD, tmp_path)
    ends = [reported(change(), tmp_path) for change in islice(mutations(RECORD), None, None, step)]
    assert ends.count(True) > 10
    assert ends.count(False) > 100


@pytest.mark.parametrize("change", [{"date": "yesterday"}, {"series": {"colour": -1}}], ids=["date", "colour"])
def test_the_essay_names_a_damaged_record(tmp_path: Path, change: dict[str, Any]) -> None:
    values = json.loads(json.dumps(RECORD | change))
    values["figures"][0]["panels"][0]["series"][0] |= values.pop("series", {})
    (tmp_path / "degradation-quick.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"degradation-quick\.json: a damaged record"):
        write_essay(tmp_path)


def things_of(subject: MeasurementContext) -> dict[str, Any]:
    """A measurement for these tests."""
    return {"errors": [1.5, 2.5], "name": "plain", "of": {"units": 3}}


ASKED = Measurement(f"{__name__}:things_of")


def judge(evidence: Evidence) -> StudyResult:
    """A rule that trusts what was measured."""
    words = [f"{sum(m.values['errors']):.2f} {m.values['of']['units']:d}" for m in evidence.measured]
    return StudyResult([Row("c", "p", " ".join(words), REPRODUCED)])


@pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("checksum", [True, False], ids=["kept", "kept by an older version"])
def test_every_field_of_a_kept_measurement(tmp_path: Path, mutations: Mutations, checksum: bool, step: int) -> None:
    measure_or_cached(ASKED, tmp_path)
    (path,) = (tmp_path / "measured").iterdir()
    whole = json.loads(path.read_text())
    if not checksum:
        del whole["sha256"]
    made_up = replace(study("degradation"), judge=judge)
    told: list[str] = []
    for change in islice(mutations(whole), None, None, step):
        path.write_text(json.dumps(change()))
        try:
            record = make_record(made_up, "quick", Plan((), "", measurements=(ASKED,)), tmp_path, "c")
        except UserError as error:
            told.append(str(error))
        else:
            told += [failure["reason"] for failure in record.failures]
    assert len(told) > 200 / step
    own = f"measured/{path.name}: "
    assert all(own in words or (not checksum and "kept by an older version without" in words) for words in told)


def test_a_measurement_that_was_changed_is_named(tmp_path: Path) -> None:
    measure_or_cached(ASKED, tmp_path)
    (path,) = (tmp_path / "measured").iterdir()
    path.write_text(path.read_text().replace("2.5", "2.6"))
    with pytest.raises(UserError, match=r"damaged, its checksum differs; remove it, and it is made again"):
        measure_or_cached(ASKED, tmp_path)


def test_a_run_whose_metrics_lack_an_epoch_is_damaged(tmp_path: Path) -> None:
    run = make_run(recipe("digits", net="cifar_resnet8"), tmp_path)
    open_folder(run, 1, "cpu", 1)
    errors = {"train_error": 9.0, "test_error": 9.0}
    (run.folder / "metrics.jsonl").write_text(json.dumps({"epoch": 1, "step": 23} | errors) + "\n")
    with pytest.raises(UserError, match="is not finished"):
        outcome(run)
    for epochs in (1, 2):
        result = {**errors, "best_error": 9.0, "epochs": epochs, "steps": 46, "seconds": 1.0}
        (run.folder / "result.json").write_text(json.dumps(result))
        if epochs == 1:
            assert outcome(run).result == result
            continue
        with pytest.raises(
            UserError, match=r"metrics.jsonl: damaged, it holds 1 of the 2 epochs that result.json counts"
        ):
            outcome(run)
