"""Lists of runs: what each folder is told to be, however damaged."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from resnetlab.errors import UserError
from resnetlab.training.loop import train
from resnetlab.training.recipes import recipe
from resnetlab.training.run import make_run
from resnetlab.training.run_details import details
from resnetlab.training.runs import find_run, list_runs, summary
from resnetlab.training.signals import Stop, Stopped


@pytest.fixture(scope="module")
def two_epochs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two epochs."""
    run = make_run(recipe("digits", net="cifar_resnet8", epochs=2), tmp_path_factory.mktemp("runs"))
    for _ in train(run, threads=1):
        pass
    return run.folder


@pytest.fixture
def folder(two_epochs: Path, tmp_path: Path) -> Path:
    """A copy of it to damage, alone in a folder of runs."""
    return shutil.copytree(two_epochs, tmp_path / "runs" / two_epochs.name)


def test_a_finished_run(folder: Path) -> None:
    found, last = summary(folder), json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    result = json.loads((folder / "result.json").read_text())
    assert (found.state, found.words, found.net, found.data, found.seed) == (
        "finished",
        "",
        "cifar_resnet8",
        "digits",
        0,
    )
    assert (found.epochs, found.step) == (2, 46)
    assert (found.train_error, found.test_error) == (last["train_error"], last["test_error"])
    assert found.best_error == result["best_error"]
    assert found.written == max((folder / n).stat().st_mtime for n in ("run.json", "metrics.jsonl", "result.json"))


def test_an_unfinished_run_tells_how_far_it_is(folder: Path) -> None:
    (folder / "result.json").unlink()
    assert (summary(folder).state, summary(folder).words) == ("unfinished", "epoch 2 of 2, step 46")
    state = json.loads((folder / "last" / "state.json").read_text())
    (folder / "last" / "state.json").write_text(json.dumps(state | {"progress": state["progress"] | {"step": 23}}))
    assert summary(folder).step == 46, "of the last line, which is later than the checkpoint"
    (folder / "last" / "state.json").write_text(json.dumps(state))
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1')  # being written
    assert summary(folder).epochs == 2
    settings = json.loads((folder / "run.json").read_text())
    settings["recipe"] |= {"epochs": None, "iterations": 64000}
    (folder / "run.json").write_text(json.dumps(settings))
    assert summary(folder).words == "step 46 of 64,000, epoch 2"
    (folder / "metrics.jsonl").unlink()
    found = summary(folder)
    assert (found.state, found.words, found.best_error) == ("unfinished", "step 46 of 64,000, epoch 0", None)
    (folder / "last" / "state.json").write_text("{")  # resuming reports it, and the list is of use without it
    assert (summary(folder).state, summary(folder).words) == ("unfinished", "step 0 of 64,000, epoch 0")


def test_a_run_that_was_stopped_within_an_epoch_is_as_far_as_its_checkpoint(tmp_path: Path) -> None:
    run, stop = make_run(recipe("digits", net="cifar_resnet8", epochs=2), tmp_path), Stop()
    statuses = iter(train(run, threads=1, checkpoint_steps=5, stop=stop))
    assert next(status for status in statuses if status.next == "evaluating").step == 23
    stop.receive(signal.SIGINT)
    with pytest.raises(Stopped):
        next(statuses)
    found = summary(run.folder)
    assert (found.words, found.step, found.epochs) == ("epoch 0 of 2, step 23", 23, 0)


def test_a_run_that_was_killed_before_its_first_checkpoint_is_unfinished(folder: Path) -> None:
    """Its epoch's line is written first; trained again, it starts anew."""
    (folder / "result.json").unlink()
    shutil.rmtree(folder / "last")
    shutil.rmtree(folder / "last.old")
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text(lines[0])
    assert summary(folder).state == "unfinished"
    (folder / "metrics.jsonl").write_text("".join(lines))
    assert summary(folder).state == "damaged", "a second epoch comes after the first one's checkpoint"


def test_a_run_whose_lock_is_held_is_running(folder: Path) -> None:
    (folder / "result.json").unlink()
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert summary(folder).state == "running"
    assert summary(folder).state == "unfinished"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("run.json", "{", "run.json, not JSON (Expecting property name"),
        ("run.json", "[]", "run.json, it is [], not an object"),
        ("run.json", '{"format": 99}', "run.json, a run of format 99, but this version reads formats 1 to 3"),
        ("run.json", '{"format": 1, "spec": {}, "recipe": 3}', "run.json, it lacks data"),
        ("run.json", "[" * 100_000, "run.json, not JSON ("),
        ("run.json", None, "run.json, can't be read (No such file or directory)"),
        ("metrics.jsonl", '{"step": 1}\n\x00\n', "metrics.jsonl, line 2: not JSON ("),
        ("metrics.jsonl", '{"step": null}\n', "metrics.jsonl, line 1: step is None, not a whole number from 0"),
        ("metrics.jsonl", '{"epoch": 1, "step": 5}\n', "metrics.jsonl, line 1: it lacks train_error, test_error"),
        ("metrics.jsonl", "7\n", "metrics.jsonl, line 1: it is 7, not an object"),
        ("metrics.jsonl", "", "metrics.jsonl, it holds 0 of the 2 epochs that result.json counts"),
        ("metrics.jsonl", None, "metrics.jsonl, it holds 0 of the 2"),
        (
            "metrics.jsonl",
            '{"step": 23, "epoch": 1, "train_error": 9.0, "test_error": 9.0}\n',
            "metrics.jsonl, it holds 1 of the 2 epochs",
        ),
        ("result.json", "{}", "result.json, it lacks train_error, test_error, best_error, epochs, steps, seconds"),
        (
            "result.json",
            '{"train_error": 1, "test_error": 1, "best_error": 1, "epochs": 0, "steps": 0, "seconds": 1}',
            "result.json, epochs is 0, not a whole number from 1",
        ),
    ],
)
def test_damaged_runs_are_told_and_do_not_stop_the_list(
    folder: Path, two_epochs: Path, name: str, content: str | None, words: str
) -> None:
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    shutil.copytree(two_epochs, folder.parent / "whole")
    states = {run.folder.name: (run.state, run.words) for run in list_runs(folder.parent)[0]}
    assert states.pop("whole") == ("finished", "")
    ((state, told),) = states.values()
    assert state == "damaged"
    assert told.startswith(words)


def test_a_run_kept_without_its_weights_is_finished_and_tells_its_epochs_and_errors(folder: Path) -> None:
    whole = summary(folder)
    (weights := folder / "last" / "weights.safetensors").unlink()
    assert summary(folder) == replace(whole, words="without its weights")
    assert whole.state == "finished"
    assert whole.epochs
    weights.symlink_to("elsewhere")
    found = summary(folder)
    assert (found.state, found.epochs, found.test_error) == ("damaged", whole.epochs, whole.test_error)
    assert found.words.startswith("last/weights.safetensors, can't be read (No such file or directory)")
    assert dict(details(folder).facts())["length"].startswith(f"{whole.epochs} epochs, {whole.step} steps")
    (folder / "metrics.jsonl").write_text("{")
    assert "length" not in dict(details(folder).facts())


def test_a_finished_run_whose_metrics_were_cut_is_not_called_finished(folder: Path) -> None:
    run = make_run(recipe("digits", net="cifar_resnet8", epochs=2), folder.parent)
    assert run.result() is not None
    (folder / "metrics.jsonl").write_bytes(b"")
    with pytest.raises(UserError, match=r"metrics\.jsonl: damaged, it holds 0 of the 2 epochs that result.json"):
        run.result()


def test_the_list_is_by_time_and_leaves_foreign_things_out(folder: Path, two_epochs: Path) -> None:
    root = folder.parent
    shutil.copytree(two_epochs, root / "a-later-one")
    for file in folder.iterdir():
        os.utime(file, (1000, 1000))
    (root / "photos").mkdir()
    (root / "notes.txt").write_text("no run")
    (root / "nowhere").symlink_to(root / "gone")
    (root / "odd").mkdir()
    (root / "odd" / "run.json").mkdir()
    runs, others = list_runs(root)
    assert [run.folder for run in runs][0] == folder
    assert [run.written for run in runs] == sorted(run.written for run in runs)
    assert {run.folder.name: run.state for run in runs}["odd"] == "damaged"
    assert others == [root / "photos"]
    assert [run.folder for run in list_runs(folder)[0]] == [folder], "a run's own folder is a list of one"
    assert json.loads(json.dumps(runs[0].to_dict()))["written"] == "1970-01-01T00:16:40+00:00"


def test_numbers_that_are_not_finite_are_null_in_json(folder: Path) -> None:
    (folder / "result.json").unlink()
    line = {"epoch": 1, "step": 23, "train_error": 90.0, "test_error": float("nan")}
    (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    assert summary(folder).to_dict()["test_error"] is None


def test_runs_are_found_by_path_name_and_hash(folder: Path) -> None:
    root, name = folder.parent, folder.name
    for text in (str(folder), name, name.rpartition("-")[2]):
        assert find_run(text, root) == folder
    with pytest.raises(UserError, match=f"no such run folder, here or in .*Did you mean {name}"):
        find_run(name[:-3], root)
    with pytest.raises(UserError, match="no such run folder"):
        find_run("a\0b", root)
    with pytest.raises(UserError, match="no such run folder"):
        find_run("a" * 5000, root / "gone")
    (root / "photos").mkdir()
    with pytest.raises(UserError, match="photos: not a run folder, it has no run.json"):
        find_run("photos", root)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone: can't be read \(No such file or directory\); choose the folder with"):
        list_runs(tmp_path / "gone")
