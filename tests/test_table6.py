"""The table of errors over seeds, from runs on digits in place of CIFAR-10."""

from __future__ import annotations

import json
import shutil
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from resnetlab.errors import UserError
from resnetlab.training.loop import train
from resnetlab.training.recipes import recipe
from resnetlab.training.run import make_run

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of one network, one of another, a run by another rate, one with images held out, an unfinished one."""
    folder = tmp_path_factory.mktemp("runs")
    base = recipe("digits", net="cifar_resnet8", epochs=1)
    changes: tuple[dict[str, Any], ...] = (
        {},
        {"seed": 1},
        {"net": "cifar_plain8"},
        {"lr": 0.01},
        {"validation_images": 100},
        {"seed": 2},
    )
    for change in changes:
        list(train(make_run(base.override(**change), folder), threads=1))
    (make_run(base.override(seed=2), folder).folder / "result.json").unlink()
    return folder


def test_a_row_has_the_finished_runs_of_the_recipe_alone(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks.table6 import rows

    wanted = recipe("digits", epochs=1)
    plain, residual = rows(runs, wanted, "digits")
    assert (plain.net, residual.net) == ("cifar_plain8", "cifar_resnet8")
    results = {}
    for seed in (0, 1):
        found = make_run(wanted.override(net="cifar_resnet8", seed=seed), runs)
        results[seed] = json.loads((found.folder / "result.json").read_text())
    errors = {seed: result["test_error"] for seed, result in results.items()}
    assert residual.errors == errors
    assert residual.train_errors == {seed: result["train_error"] for seed, result in results.items()}
    assert residual.mean == pytest.approx(statistics.mean(errors.values()))
    assert residual.deviation == pytest.approx(abs(errors[0] - errors[1]) / 2**0.5)
    assert plain.deviation is None
    assert "(1 seed), paper not printed" in str(plain)
    assert rows(runs, wanted, "cifar10") == []


def test_two_runs_of_one_seed_are_refused(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks.table6 import rows

    wanted = recipe("digits", epochs=1)
    first = make_run(wanted.override(net="cifar_plain8"), runs).folder
    for name in ("a", "b"):
        shutil.copytree(first, tmp_path / first.name.replace("cifar_plain8_digits", name))
    with pytest.raises(UserError, match=r"of the same network and seed as .*; move one of them away"):
        rows(tmp_path, wanted, "digits")


def test_the_committed_runs_give_the_committed_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without their weights, which are in no record."""
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks.table6 import rows

    if not (record := ROOT / "results/table6.json").is_file():
        pytest.skip("no record of it is committed")
    found = rows(ROOT / "results/table6-runs", recipe("cifar_fast"), "cifar10")
    assert json.loads(json.dumps([asdict(row) for row in found])) == json.loads(record.read_bytes())["rows"]


def test_a_folder_without_such_runs_is_refused(
    tmp_path: Path, runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks import table6
    from benchmarks.timing import run

    for folder, words in ((tmp_path / "none", "none: no such folder"), (runs, "no finished run of cifar_fast")):
        monkeypatch.setattr("sys.argv", ["table6", str(folder)])
        with pytest.raises(SystemExit) as end:
            run(table6.main)
        assert end.value.code == 2
        assert words in capsys.readouterr().err
