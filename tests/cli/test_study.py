"""`resnetlab study run`: what a stop leaves behind."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from resnetlab.api import study
from resnetlab.cli.main import GO_ON, main
from resnetlab.errors import UserError
from resnetlab.studies.frame.record import Record, read_records
from resnetlab.training.signals import Stopped

RECORDS = Path(__file__).resolve().parents[2] / "results"
DONE = "orders-quick.json"


def test_one_measurement_is_not_called_measurements(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "net.pt").write_bytes(b"weights")
    weights = ["--weights", f"cifar_resnet20={tmp_path / 'net.pt'}", "--data", "cifar10:x"]
    assert main(["study", "run", "responses", *weights, "--dry-run", "--runs", str(tmp_path / "runs")]) == 0
    assert "nothing is trained; 1 measurement\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("stop", "code", "words"),
    [
        (Stopped(signal.SIGTERM), GO_ON, "stopped by SIGTERM before the first step; to resume"),
        (UserError("the disk is full."), 2, "error: the disk is full."),
    ],
)
@pytest.mark.parametrize("damaged", [False, True])
def test_a_stop_midway_leaves_the_report_of_the_studies_that_are_done(
    stop: BaseException,
    code: int,
    words: str,
    damaged: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And if another record of the folder is damaged, the stop is what is told."""

    def stopped(_tasks: object, _workplace: object, results: Path) -> Iterator[tuple[Record, Path]]:
        shutil.copy(RECORDS / DONE, results)
        (record,) = read_records(results)
        if damaged:
            (results / "identity-quick.json").write_text('{"format": 99}')
        yield record, results / DONE
        raise stop

    monkeypatch.setattr(study, "carried_out", stopped)
    assert (
        main(["study", "run", "--all", "--json", "--results", str(tmp_path), "--runs", str(tmp_path / "runs")]) == code
    )
    said = capsys.readouterr()
    assert said.out == ""
    assert words in said.err
    assert (tmp_path / "report.html").exists() is not damaged
