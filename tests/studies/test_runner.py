"""The runner: trains what is missing, alone or side by side, and keeps a record that reads back."""

from __future__ import annotations

import contextlib
import errno
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from resnetlab.errors import UserError
from resnetlab.report.study_pages import write_report
from resnetlab.storage import locked
from resnetlab.studies import STUDIES
from resnetlab.studies.frame import run as runner
from resnetlab.studies.frame.record import RECORD_FORMAT, Record, make_record, read_records
from resnetlab.studies.frame.run import KILLED, Event, run_missing
from resnetlab.studies.frame.statistics import NOT_JUDGED
from resnetlab.studies.frame.study import Plan, Study, study
from resnetlab.training.loop import train
from resnetlab.training.recipes import recipe
from resnetlab.training.run import make_run
from resnetlab.training.signals import Stop, Stopped

RECIPES = tuple(
    recipe("digits", net=f"cifar_{kind}{depth}", epochs=1, seed=seed)
    for kind in ("plain", "resnet")
    for depth in (8, 14)
    for seed in (0, 1)
)
DIVERGING = RECIPES[0].override(lr=1e5, warmup="none", net="cifar_resnet8(norm=none)")


PLAN = Plan(RECIPES, "seconds")


@pytest.fixture(autouse=True)
def small_depths(monkeypatch: pytest.MonkeyPatch) -> None:
    """The study judges PLAN's depths in place of the paper's."""
    monkeypatch.setattr("resnetlab.studies.degradation.study.FIRST", 8)
    monkeypatch.setattr("resnetlab.studies.degradation.study.LAST", 14)


def small_study() -> Study:
    """`degradation` with runs of one epoch."""
    return replace(study("degradation"), plan=lambda scale, data, weights: PLAN)


def finished(events: list[Event]) -> list[int]:
    return sorted(e.index for e in events if e.done)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all runs of PLAN."""
    folder = tmp_path_factory.mktemp("trained")
    for r in RECIPES:
        list(train(make_run(r, folder), threads=1))
    return folder


def weights(runs: Path) -> list[bytes]:
    return [(make_run(r, runs).folder / "last/weights.safetensors").read_bytes() for r in RECIPES]


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("jobs", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_every_run_is_trained_once_and_then_read(tmp_path: Path, trained: Path, jobs: int) -> None:
    """Alone or side by side: the weights are the same."""
    events = list(run_missing(RECIPES, tmp_path, jobs=jobs))
    assert finished(events) == list(range(len(RECIPES)))
    assert {e.index for e in events if e.status} == set(range(len(RECIPES)))
    assert weights(tmp_path) == weights(trained)
    again = list(run_missing(RECIPES, tmp_path, jobs=1))
    assert finished(again) == list(range(len(RECIPES)))
    assert not [e for e in again if e.status]
    record = make_record(small_study(), "quick", PLAN, tmp_path, "the command")
    assert record.runs == len(RECIPES)
    record.save(tmp_path / "results")
    (read,) = read_records(tmp_path / "results")
    assert read.to_dict() == json.loads(json.dumps(record.to_dict()))
    assert {"processor", "cores", "torch", "commit"} <= set(read.machine)


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_that_fails_does_not_stop_the_others(tmp_path: Path, jobs: int) -> None:
    recipes = (DIVERGING, *RECIPES[:2])
    events = list(run_missing(recipes, tmp_path, jobs=jobs))
    failed = {e.index: e.failed for e in events if e.failed}
    assert finished(events) == [1, 2]
    assert list(failed) == [0]
    assert "loss is no longer finite" in failed[0]
    assert "\n" not in failed[0]
    assert str(tmp_path) not in failed[0], "a record holds no paths of one machine"


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_of_another_process_is_waited_for_after_the_others_and_taken_over(
    tmp_path: Path, trained: Path, jobs: int
) -> None:
    """It was killed here, so that its run is still to be trained."""
    recipes = RECIPES[:3]
    folder = make_run(recipes[0], tmp_path).folder
    folder.mkdir(parents=True)
    events = []
    with contextlib.ExitStack() as other:
        other.enter_context(locked(folder))
        for event in run_missing(recipes, tmp_path, jobs=jobs):
            events.append(event)
            if len(finished(events)) == 2:
                other.close()
    assert [e.index for e in events if e.done][-1] == 0
    assert finished(events) == [0, 1, 2]
    assert [e.index for e in events if e.waits] == [0]
    assert not [e for e in events if e.failed]
    assert (folder / "last/weights.safetensors").read_bytes() == weights(trained)[0]


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("jobs", [1, 2])
def test_waiting_for_another_process_can_be_stopped(tmp_path: Path, jobs: int) -> None:
    stop, waiting = Stop(), set()
    folders = [make_run(r, tmp_path).folder for r in RECIPES[:2]]

    def stop_it(event: Event) -> None:
        assert event.waits
        waiting.add(event.index)
        if len(waiting) == 2:
            stop.receive(signal.SIGTERM)

    with contextlib.ExitStack() as other:
        for folder in folders:
            folder.mkdir(parents=True)
            other.enter_context(locked(folder))
        with pytest.raises(Stopped, match="by SIGTERM"):
            list(map(stop_it, run_missing(RECIPES[:2], tmp_path, jobs=jobs, stop=stop)))


@pytest.mark.usefixtures("forked")
def test_a_process_that_is_killed_costs_its_run_alone(tmp_path: Path) -> None:
    recipes = tuple(r.override(epochs=2) for r in RECIPES[:2]) + RECIPES[4:6]
    before = set(multiprocessing.active_children())
    events, killed = [], False
    for event in run_missing(recipes, tmp_path, jobs=2):
        if not killed:
            victim = min(set(multiprocessing.active_children()) - before, key=lambda process: process.pid or 0)
            os.kill(victim.pid or 0, signal.SIGKILL)
            killed = True
        events.append(event)
    (lost,) = [e for e in events if e.failed]
    assert lost.failed == KILLED
    assert sorted([*finished(events), lost.index]) == [0, 1, 2, 3]
    assert finished(list(run_missing(recipes, tmp_path))) == [0, 1, 2, 3], "it goes on"


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_stop_saves_the_step_of_every_run(tmp_path: Path, trained: Path, jobs: int) -> None:
    """Within an epoch, and nothing else is begun. (How a run goes on from there: tests/training/test_resume.py.)"""
    stop, seen = Stop(), set()
    begun = [r.override(batch_size=2, lr=0.001) for r in RECIPES[:jobs]]  # 718 steps, the first status after 100
    later = RECIPES[0].override(seed=2)

    def stop_it(event: Event) -> None:
        assert not event.done
        assert not event.failed
        seen.add(event.index)
        if len(seen) == jobs:
            stop.receive(signal.SIGTERM)

    with pytest.raises(Stopped, match="by SIGTERM"):
        list(map(stop_it, run_missing((*begun, later), tmp_path, jobs=jobs, stop=stop)))
    for r in begun:
        state = json.loads((make_run(r, tmp_path).folder / "last/state.json").read_text())
        assert 100 <= state["progress"]["step"] < 718
    assert not make_run(later, tmp_path).folder.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "code"),
    [(signal.SIGTERM, 75), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)],
    ids=["TERM", "INT"],
)
def test_the_command_says_that_every_run_is_saved(tmp_path: Path, sent: signal.Signals, code: int) -> None:
    """As sent by a scheduler, or a terminal: to all processes."""
    options = ["study", "run", "degradation", "--seeds", "1", "--jobs", "2"]
    command = [sys.executable, "-m", "resnetlab", *options]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    ) as process:
        while process.poll() is None and len(list(tmp_path.glob("runs/*/last/state.json"))) < 2:
            time.sleep(0.05)
        os.killpg(process.pid, sent)
        _, said = process.communicate()
    assert process.returncode == code, said
    assert said.splitlines()[-1] == (
        f"stopped by {sent.name} with each run's last step saved; to resume: resnetlab {' '.join(options)}"
    )
    assert "Traceback" not in said
    assert "resource_tracker" not in said
    assert "FAILED" not in said


def test_a_damaged_folder_and_a_fault_of_the_code_are_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run(RECIPES[0], tmp_path).folder
    folder.mkdir()
    (folder / "run.json").write_text("{")
    (one,) = run_missing(RECIPES[:1], tmp_path)
    assert one.failed.startswith(f"{folder.name}/run.json: damaged, not JSON")

    def broken(*_: object, **__: object) -> None:
        raise KeyError("made\nup")

    monkeypatch.setattr(runner, "train", broken)
    (one,) = run_missing(RECIPES[1:2], tmp_path)
    assert one.failed.startswith("KeyError: 'made\\nup' (test_runner.py, line ")


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_full_disk_stops_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int) -> None:
    def full(*_: object, **__: object) -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise UserError("can't write") from error

    if jobs == 1:
        monkeypatch.setattr(runner, "train", full)
        with pytest.raises(UserError, match="can't write"):
            list(run_missing(RECIPES, tmp_path))
        return
    monkeypatch.syspath_prepend(Path(__file__).parents[2])  # the other processes import the stand-in from this file
    monkeypatch.setattr(runner, "_one", _on_a_full_disk)
    with pytest.raises(UserError, match="no room at all"):
        list(run_missing(RECIPES[:2], tmp_path, jobs=2))
    assert not [r for r in RECIPES if make_run(r, tmp_path).result()]


def _on_a_full_disk(*_: object) -> runner.End:
    return runner.End("no room at all", full=True)


def test_data_that_is_not_there_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    recipes = (RECIPES[0], RECIPES[1].override(data=f"cifar10:{tmp_path}/none"))
    with pytest.raises(UserError, match="none"):
        list(run_missing(recipes, tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


def test_what_failed_runs_leave_open_is_not_judged(tmp_path: Path, trained: Path) -> None:
    """Also a finished run whose folder is damaged since, and with no run left at all."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    record = make_record(small_study(), "quick", PLAN, tmp_path, "c", {3: "it diverged."})
    assert (record.runs, len(record.failures)) == (len(RECIPES) - 1, 1)
    (failure,) = record.failures
    assert (failure["net"], failure["seed"], failure["reason"]) == ("cifar_plain14", 1, "it diverged.")
    assert failure["recipe"].startswith("digits, 1 epoch, batches of ")
    assert [row["verdict"] == NOT_JUDGED.word for row in record.rows] == [
        *(True, False, False),  # not tested: that the training error falls
        *(True, True, False, False),
    ]
    assert record.rows[0]["measured"]["en"] == "1 of the 4 runs it needs failed"
    assert record.rule == small_study().rule_of(PLAN, "quick"), "it doesn't depend on what failed"
    assert "(1) training error in %: plain-14 above plain-8" in str(record.rule)
    assert "3 not judged" in record.verdict
    (make_run(RECIPES[0], tmp_path).folder / "metrics.jsonl").write_text("{")
    record = make_record(small_study(), "quick", PLAN, tmp_path, "c")
    assert "metrics.jsonl: damaged" in record.failures[0]["reason"]
    record = make_record(small_study(), "quick", PLAN, tmp_path, "c", dict.fromkeys(range(len(RECIPES)), "no."))
    assert (record.runs, record.verdict, record.figures) == (0, "0 of 6 reproduced, 6 not judged; 1 not tested", [])
    record.save(tmp_path / "results")
    page = write_report(tmp_path / "results").read_text()
    assert f"{len(RECIPES)} of {len(RECIPES)} runs failed." in page


def test_records_of_another_version_and_damaged_ones_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no results of studies"):
        read_records(tmp_path)
    path = tmp_path / "degradation-quick.json"
    path.write_text('{"format": 99}')
    with pytest.raises(UserError, match="degradation-quick.json: a record of another version"):
        read_records(tmp_path)
    path.write_text(f'{{"format": {RECORD_FORMAT}, "study": "degradation"}}')
    with pytest.raises(UserError, match="degradation-quick.json: a damaged record"):
        read_records(tmp_path)


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_states_itself(name: str) -> None:
    found = study(name)
    assert found.name == name
    assert all((found.title, found.claim, found.source, found.method, found.rule))


@pytest.mark.slow
def test_the_study_on_the_command_line(
    tmp_path: Path, resnetlab: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """The whole of `make demo`, and the effect it must show."""
    done = resnetlab("study", "run", "degradation", "--scale", "quick", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["study"], answer["scale"], answer["verdict"]) == (
        *("degradation", "quick"),
        "4 of 4 reproduced; 3 not tested",
    )
    assert Path(tmp_path / answer["report"]).read_text().startswith("<!doctype html>")
    (record,) = read_records(tmp_path / "reports")
    assert isinstance(record, Record)
    errors = {row[0]: float(row[1].split()[0]) for row in record.tables[0]["rows"]}
    assert errors["plain-56"] > 30
    assert errors["residual-56"] < 3
