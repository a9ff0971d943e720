"""The benchmarks run by hand, so that nothing else tells when what they import is gone."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pytest

from resnetlab.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = sorted({path.stem for path in (ROOT / "benchmarks").glob("*.py")} - {"__init__", "timing"})


@pytest.mark.parametrize("name", [*BENCHMARKS, "timing"])
def test_every_benchmark_imports(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)
    assert importlib.import_module(f"benchmarks.{name}").__doc__


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_says_its_options(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.setattr("sys.argv", [name, "--help"])
    with pytest.raises(SystemExit) as end:
        importlib.import_module(f"benchmarks.{name}").main()
    assert end.value.code == 0
    assert "--help" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("training", ["--runs", "0"], "argument --runs: '0' must be a whole number of 1 or more"),
        ("memory", ["--threads", "-1"], "argument --threads: '-1' must be a whole number of 1 or more"),
        ("loop", ["--threads", "many"], "argument --threads: 'many' must be a whole number of 1 or more"),
        ("switches", ["--data", ".", "--images", "0"], "argument --images: '0' must be a whole number of 1 or more"),
        ("switches", ["--data", ".", "--images", "39"], "--images must be 40 or more, since fp16 has a twentieth"),
        ("inference", ["--record", "absent/record.json"], "argument --record: absent: no such folder"),
        ("inference", ["--record", "."], "argument --record: .: is a folder"),
        ("inference", ["--int8", "digits"], "--int8 and --weights belong together"),
        ("inference", ["--net", "cifar_resnet56"], "--net belongs to --int8"),
        ("inference", ["--quick", "--int8", "digits", "--weights", "."], "--quick and --int8 exclude each other"),
        ("training", ["--quick", "--depths"], "--quick and --depths exclude each other"),
        ("inference", ["--int8", "nowhere", "--weights", "nothing"], "error: data 'nowhere': no data set"),
        ("serving", ["run", "--images", "nowhere"], "error: nowhere: there is no image in it."),
        ("serving", ["run", "--images", ".", "--engine", "tensorrt"], "argument --engine: invalid choice: 'tensorrt'"),
        ("data", ["--data", "."], "error: .: there is no JPEG in it."),
        ("training", ["--figure", "absent.json", "depths.svg"], "error: absent.json: can't be read (No such file"),
        ("parity", ["resnet19"], "error: no peer has resnet19: choose from resnet18, "),
        ("parity", ["resnet18"], "error: not installed: torchvision; to install: pip install torchvision"),
        ("parity", ["resnet50d"], "error: not installed: torchvision, timm; to install: pip install torchvision timm"),
        ("export", ["--data", "nowhere", "--weights", "."], "error: data 'nowhere': no data set"),
        ("table6", ["nowhere"], "argument runs: nowhere: no such folder"),
        ("pretrained", ["nothing", "--data", "digits"], "error: nothing"),
    ],
)
def test_bad_options_are_one_line(
    name: str,
    options: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [name, *options])
    if name == "parity":
        monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(SystemExit) as end:
        importlib.import_module("benchmarks.timing").run(importlib.import_module(f"benchmarks.{name}").main)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_what_is_timed_in_processes_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)
    timing = importlib.import_module("benchmarks.timing")
    naps = [partial(partial, time.sleep, seconds) for seconds in (0.3, 1.0, 0.01)]
    middle, long, short = timing.medians_apart(naps, 2)
    assert 10 <= short < middle < long  # milliseconds; a sleep is never shorter
    assert long >= 1000
    with pytest.raises(UserError, match="was killed, maybe for want of memory"):
        timing.medians_apart([partial(partial, os._exit, 9)], 1)


def test_peers_that_are_absent_are_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(ROOT)
    importlib.import_module("benchmarks.timing").say_absent(("torch", "no_such_peer", "another_one"))
    printed = capsys.readouterr()
    assert printed.err == "not installed, so not compared: no_such_peer, another_one\n"
    assert not printed.out


def test_the_record_of_the_data_benchmark_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(ROOT)
    data, timing = (importlib.import_module(f"benchmarks.{name}") for name in ("data", "timing"))
    rows = [timing.Row(name, "ms", 1.0, None, None, None, None, 1) for name in ("cifar", "memory")]
    monkeypatch.setattr(data, "SHARED", tmp_path)
    monkeypatch.setattr(data, "cifar_rows", lambda _: rows[:1])
    monkeypatch.setattr(data, "memory_rows", lambda *_: rows[1:])
    monkeypatch.setattr("sys.argv", ["data", "--record", str(tmp_path / "record.json")])
    data.main()
    assert json.loads((tmp_path / "record.json").read_text())["rows"] == [asdict(row) for row in rows]


@pytest.mark.parametrize(
    ("rows", "picture", "message"),
    [
        ([], "x.svg", "error: record.json: has no rows."),
        ([{"what": "resnetlab nets"}], "x.svg", "error: record.json: damaged, rows[0] lacks unit, "),
        (["resnetlab nets"], "x.svg", "error: --figure needs a record of --depths, which has no row 'resnetlab nets'."),
        (["training step of cifar_resnet20"], "absent/x.svg", "error: absent/x.svg: can't be read or written"),
    ],
)
def test_a_figure_that_cannot_be_drawn_is_one_line(
    rows: list[object],
    picture: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.chdir(tmp_path)
    training, timing = (importlib.import_module(f"benchmarks.{name}") for name in ("training", "timing"))
    made = [
        asdict(timing.Row(r, "images/s", 2.0, 1.0, "plain loop", 2.0, 3.0, 1)) if type(r) is str else r for r in rows
    ]
    Path("record.json").write_text(json.dumps({"rows": made}))
    monkeypatch.setattr("sys.argv", ["training", "--figure", "record.json", picture])
    with pytest.raises(SystemExit) as end:
        timing.run(training.main)
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith(message)


def test_the_speeds_of_switches_are_those_of_the_fastest_training(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(ROOT)
    switches = importlib.import_module("benchmarks.switches")
    speeds = {"none": (100.0, 110.0), "compile": (165.0, 120.0)}
    made = {name: [switches.Trained(speed, 1.0, 1, "", 1.0) for speed in every] for name, every in speeds.items()}
    monkeypatch.setattr(switches, "measured", lambda *_: made)
    monkeypatch.setattr("sys.argv", ["switches", "--data", "."])
    switches.main()
    assert "compile: ours 165.0 images/s; no switch 110.0, ratio 1.50 (fastest of 2)" in capsys.readouterr().out


def test_a_hostile_client_that_stops_the_server_leaves_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(ROOT)
    hostile = importlib.import_module("benchmarks.hostile")
    monkeypatch.setattr(hostile, "watched", lambda *_: (float("inf"), 1.0))
    monkeypatch.setattr(hostile, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(hostile, "held", lambda _: 1.0)
    row = asyncio.run(hostile.seen("a request", 1.0, [], 0, 0, 1.0))
    assert json.dumps(asdict(row), allow_nan=False)
    hostile.show([row])
    assert "none" in capsys.readouterr().out
