"""A run goes on from any step: killed, stopped or damaged, it ends as an unbroken one, to the last bit."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import resnetlab as package
from resnetlab.errors import UserError
from resnetlab.training import checkpoint, loop, session
from resnetlab.training.loop import train
from resnetlab.training.recipes import recipe
from resnetlab.training.run import Run, make_run
from resnetlab.training.signals import Stop, Stopped, stop_on_signals
from resnetlab.training.step import Stepper

SMALL: dict[str, Any] = {"net": "cifar_resnet8", "iterations": 9, "batch_size": 300}  # 5 steps an epoch
SHAKEN: dict[str, Any] = {
    "net": "cifar_resnet8(mix=DropoutShortcut(0.3), stochastic_depth=0.2)",
    "augment": "crop_flip",
    "mixup": 0.2,
    "schedule": "plateau",
    "patience": 1,
    "warmup": "train_error",
    "warmup_lr": 0.01,
    "warmup_steps": 20,
    "validation_images": 100,
    "batch_size": 200,  # 7 steps an epoch
    "epochs": 4,
}
FAST: dict[str, Any] = {
    "net": "cifar_resnet8",
    "precision": "auto",
    "channels_last": "auto",
    "compile": "auto",
    "optimiser": "muon",
    "batch_size": 200,
    "epochs": 3,
}
PICTURES: dict[str, Any] = {
    "net": "cifar_resnet8(mix=DropoutShortcut(0.3))",
    "image_size": 16,
    "augment": "resized_crop_flip",
    "policy": "trivialaugment",
    "cutmix": 1.0,
    "normalise": "imagenet",
    "schedule": "cosine",
    "unreadable": "skip",
    "batch_size": 8,  # 6 steps an epoch
    "epochs": 3,
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two classes of noise; some of it can't be read."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for place in (folder / part / name for part in ("train", "val") for name in "ab"):
        place.mkdir(parents=True)
        for i in range(24 if place.parent.name == "train" else 6):
            Image.fromarray(random.integers(0, 256, (20, 24, 3), np.uint8)).save(place / f"{i}.png")
    for i in (3, 4, 5):
        (folder / "train/a" / f"{i}.png").write_bytes(b"damaged")
    return f"folder:{folder}"


def made(root: Path, **changes: Any) -> Run:
    return make_run(recipe("digits", **changes), root)


def finished(run: Run, **options: Any) -> Run:
    for _ in train(run, threads=1, **options):
        pass
    return run


def outcome(folder: Path) -> dict[str, Any]:
    """All that a run leaves, but its times."""
    result = json.loads((folder / "result.json").read_text())
    del result["seconds"]
    names = ("last/weights.safetensors", "last/state.safetensors", "best/weights.safetensors", "metrics.jsonl")
    return {"result": result} | {name: (folder / name).read_bytes() for name in names}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The outcome of a run of SMALL that nothing stopped."""
    return outcome(finished(made(tmp_path_factory.mktemp("unbroken"), **SMALL)).folder)


@pytest.fixture(scope="module")
def shaken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The outcome of a run of SHAKEN that nothing stopped."""
    return outcome(finished(made(tmp_path_factory.mktemp("unbroken"), **SHAKEN)).folder)


Killed = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def killed() -> Iterator[Killed]:
    """killed(runs, workers, checkpoint_steps, kills, **fields): the outcome of a run whose processes were killed."""
    environment = os.environ | {"PYTHONPATH": str(Path(package.__file__).parents[1])}
    command = [sys.executable, str(Path(__file__).with_name("killed.py"))]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True, env=environment) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def trained(runs: Path, workers: int, checkpoint_steps: int, kills: int, **fields: Any) -> dict[str, Any]:
            print(json.dumps([str(runs), fields, workers, checkpoint_steps, 5, kills]), file=process.stdin, flush=True)
            answer = json.loads(process.stdout.readline())
            assert answer["died"] == kills
            return outcome(Path(answer["folder"]))

        yield trained


def test_a_run_that_is_killed_again_and_again_ends_as_an_unbroken_one(
    tmp_path: Path, killed: Killed, shaken: dict[str, Any]
) -> None:
    """SIGKILL at random steps and file operations."""
    assert killed(tmp_path / "killed", 0, 2, kills=2, **SHAKEN) == shaken


def test_so_does_one_on_the_fast_path(tmp_path: Path, killed: Killed) -> None:
    unbroken = outcome(finished(made(tmp_path / "unbroken", **FAST)).folder)
    assert killed(tmp_path / "killed", 0, 2, kills=3, **FAST) == unbroken


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_so_does_one_that_reads_files(tmp_path: Path, killed: Killed, pictures: str, workers: int) -> None:
    fields = PICTURES | {"data": pictures}
    unbroken = outcome(finished(made(tmp_path / "unbroken", **fields)).folder)
    assert b'"unreadable": 3' in unbroken["metrics.jsonl"]
    assert killed(tmp_path / "killed", workers, 1, kills=2, **fields) == unbroken


def test_so_does_one_that_is_fine_tuned(tmp_path: Path, killed: Killed) -> None:
    """With frozen parts, a rate for each part, and an early end."""
    source = finished(made(tmp_path / "source", net="cifar_resnet8", epochs=1)).folder
    fields: dict[str, Any] = {"start": str(source), "freeze": 2, "layer_decay": 0.5, "lr": 0.2, "batch_size": 200}
    fields |= {"validation_share": 0.1, "stop_after": 1, "epochs": 8, "schedule": "constant", "warmup": "none"}
    unbroken = outcome(finished(made(tmp_path / "unbroken", **fields)).folder)
    assert unbroken["result"]["epochs"] < 8
    assert killed(tmp_path / "killed", 0, 2, kills=2, **fields) == unbroken


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_however_often_it_is_killed(tmp_path: Path, killed: Killed, pictures: str, workers: int) -> None:
    for fields in (SHAKEN | {"epochs": 20}, PICTURES | {"data": pictures, "epochs": 30}):
        unbroken = outcome(finished(made(tmp_path / "unbroken", **fields)).folder)
        assert killed(tmp_path / "killed", workers, 2, kills=25, **fields) == unbroken


def stopped_after(run: Run, step: int, monkeypatch: pytest.MonkeyPatch, where: str = "step") -> int:
    """Train until a stop is asked for in that step of the session, or in its evaluation; return the step saved."""
    stop, taken, evaluate, count = Stop(), Stepper.__call__, loop.accuracy, 0

    def asking(self: Stepper, *arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count == step and where == "step":
            stop.receive(signal.SIGTERM)
        return taken(self, *arguments)

    def asking_in_evaluation(*arguments: Any) -> Any:
        if count >= step:
            stop.receive(signal.SIGTERM)
        return evaluate(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Stepper, "__call__", asking)
        if where == "evaluation":
            patched.setattr(loop, "accuracy", asking_in_evaluation)
        with pytest.raises(Stopped) as caught:
            finished(run, stop=stop)
    return caught.value.step


@pytest.mark.parametrize("step", [1, 5, 6, *(pytest.param(step, marks=pytest.mark.slow) for step in (4, 9))])
def test_a_stop_lets_the_step_end_and_saves_it(
    tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch, small: dict[str, Any]
) -> None:
    run = made(tmp_path / "stopped", **SMALL)
    assert stopped_after(run, step, monkeypatch) == step
    assert run.result() is None
    torch.manual_seed(99)  # what happens in between must not matter
    assert outcome(finished(run).folder) == small


def test_a_stop_during_an_evaluation_gives_it_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shaken: dict[str, Any]
) -> None:
    run = made(tmp_path / "stopped", **SHAKEN)
    assert stopped_after(run, 7, monkeypatch, "evaluation") == 7
    assert stopped_after(run, 7, monkeypatch, "evaluation") == 14
    assert outcome(finished(run).folder) == shaken


def test_a_second_signal_stops_at_once() -> None:
    with stop_on_signals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.number == signal.SIGTERM
        with pytest.raises(Stopped), stop.at_once():
            pass
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(SystemExit, match="143"):
            os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with stop_on_signals(alone=False) as stop:  # one of several processes, which may get many
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
        assert stop.number == signal.SIGINT
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_wait_for_images_is_given_up_at_once() -> None:
    with stop_on_signals() as stop, pytest.raises(Stopped, match="SIGINT before the first step"):
        wait(stop)


def wait(stop: Stop) -> None:
    """Ask for a stop, and then wait for ever."""
    with stop.at_once():
        os.kill(os.getpid(), signal.SIGINT)
        signal.pause()


def test_a_signal_within_logging_is_noted() -> None:
    kill = partial(os.kill, os.getpid(), signal.SIGINT)
    with stop_on_signals() as stop, stop.at_once():
        exec(compile("kill()", logging.__file__, "exec"), {"kill": kill})
    assert stop.number == signal.SIGINT


def test_checkpoints_by_time_and_by_step_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: dict[str, Any]
) -> None:
    assert outcome(finished(made(tmp_path / "b", **SMALL), checkpoint_steps=2).folder) == small
    monkeypatch.setattr(session, "CHECKPOINT_SECONDS", 0)
    monkeypatch.setattr(loop, "STATUS_SECONDS", 0)
    run = made(tmp_path / "c", **SMALL)
    assert [s.step for s in train(run, threads=1)] == [1, 2, 3, 4, 5, 5, 5, 6, 7, 8, 9, 9, 9]
    assert outcome(run.folder) == small


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run with checkpoints of steps 5 and 7."""
    run = made(tmp_path / "runs", **SMALL)
    stopped_after(run, 7, monkeypatch)
    return run


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


FILES = ("weights.safetensors", "state.safetensors", "state.json")


@pytest.mark.parametrize("file", FILES)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    stopped: Run, file: str, caplog: pytest.LogCaptureFixture, small: dict[str, Any]
) -> None:
    flip(stopped.folder / "last" / file)
    with caplog.at_level(logging.WARNING):
        finished(stopped)
    (line,) = caplog.messages
    assert str(stopped.folder / "last") in line
    assert "resumes from the previous checkpoint, step 5" in line
    assert (stopped.folder / "last.damaged" / file).exists()
    assert outcome(stopped.folder) == small


def test_a_missing_file_is_damage_too(stopped: Run, caplog: pytest.LogCaptureFixture) -> None:
    (stopped.folder / "last/state.json").unlink()
    finished(stopped)
    assert "can't be read (No such file or directory)" in caplog.text


def test_two_damaged_checkpoints_are_both_named_and_kept(stopped: Run) -> None:
    for name in ("last", "last.old"):
        flip(stopped.folder / name / "weights.safetensors")
    left = {p: p.read_bytes() for p in stopped.folder.rglob("*.*") if p.is_file()}
    last = stopped.folder / "last"
    with pytest.raises(UserError, match=rf"{last}/.*checksum differs; {last}\.old/.*remove {last} and {last}\.old "):
        finished(stopped)
    assert {p: p.read_bytes() for p in left} == left


def rewrite(place: Path, file: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Change tensors of a checkpoint and make its checksums right again."""
    tensors = load_file(place / file)
    change(tensors)
    save_file(tensors, place / file)
    state = json.loads((place / "state.json").read_text())
    state["sha256"][file] = checkpoint.sha256((place / file).read_bytes())
    state["checksum"] = checkpoint.checksum({k: v for k, v in state.items() if k != "checksum"})
    (place / "state.json").write_text(json.dumps(state))


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (FILES[0], lambda t: t.update({"fc.weight": torch.zeros(3, 64)}), r"fc.weight is \(3, 64\), not \(10, 64\)"),
        (FILES[0], lambda t: t.pop("fc.bias"), "it lacks fc.bias"),
        (FILES[0], lambda t: t.update(extra=torch.zeros(1)), "it has the extra extra"),
        (FILES[1], lambda t: t.update({"momentum.0": torch.zeros(3)}), r"momentum.0 is \(3,\), not "),
        (FILES[1], lambda t: t.update({"momentum.999": torch.zeros(3)}), "it has the extra momentum.999"),
        (FILES[1], lambda t: t.pop("rng.0.cpu"), "it lacks the random state"),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    stopped: Run, file: str, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    shutil.rmtree(stopped.folder / "last.old")
    rewrite(stopped.folder / "last", file, change)
    left = {p: p.read_bytes() for p in stopped.folder.rglob("*.*") if p.is_file()}
    with pytest.raises(UserError, match=message) as caught:
        finished(stopped)
    assert "\n" not in str(caught.value)
    assert {p: p.read_bytes() for p in left} == left


def as_format_1(run: Run) -> None:
    """Make of a folder after its first epoch what the first version wrote, which knew whole epochs only."""
    shutil.rmtree(run.folder / "last.old", ignore_errors=True)
    settings = json.loads((run.folder / "run.json").read_text())
    (run.folder / "run.json").write_text(json.dumps(settings | {"format": 1}, indent=1) + "\n")
    place = run.folder / "last"
    momentum = {k: v for k, v in load_file(place / "state.safetensors").items() if k.startswith("momentum.")}
    save_file(momentum, place / "state.safetensors")
    now = json.loads((place / "state.json").read_text())
    kept = ("epoch", "step", "best_error", "metrics_bytes", "seconds")
    state = {
        "progress": {k: now["progress"][k] for k in kept},
        "schedule": now["schedule"],
        "sha256": {name: checkpoint.sha256((place / name).read_bytes()) for name in FILES[:2]},
    }
    (place / "state.json").write_text(json.dumps(state, indent=1))


def test_a_run_of_the_first_format_goes_on(tmp_path: Path, shaken: dict[str, Any]) -> None:
    """Its folder is found by the same command, and marked as of this format before anything of it is written."""
    run = made(tmp_path / "runs", **SHAKEN)
    going = train(run, threads=1)
    next(status for status in going if status.epochs_done == 1)
    going.close()  # type: ignore[attr-defined]  # a generator
    as_format_1(run)
    assert package.load(run.folder).spec == run.spec
    assert json.loads((run.folder / "run.json").read_text())["format"] == 1, "reading changes nothing"
    finished(made(tmp_path / "runs", **SHAKEN))
    assert json.loads((run.folder / "run.json").read_text())["format"] == 3
    assert outcome(run.folder) == shaken


def test_a_run_of_the_second_format_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shaken: dict[str, Any]
) -> None:
    """Within an epoch, of one process: its sums lay among the progress, and the random state had no rank."""
    run = made(tmp_path / "runs", **SHAKEN)
    stopped_after(run, 10, monkeypatch)
    settings = json.loads((run.folder / "run.json").read_text())
    (run.folder / "run.json").write_text(json.dumps(settings | {"format": 2}))
    place = run.folder / "last"
    state = json.loads((place / "state.json").read_text())
    (share,) = state.pop("shares")
    assert share["seen"] == 600
    state |= {"format": 2, "progress": state["progress"] | share}
    (place / "state.json").write_text(json.dumps(state))
    rewrite(place, FILES[1], lambda t: t.update({"rng.cpu": t.pop("rng.0.cpu")}))
    assert outcome(finished(run).folder) == shaken


def test_the_id_of_a_run_is_that_of_the_first_format(tmp_path: Path) -> None:
    assert made(tmp_path, net="cifar_resnet20").id == "1c22ca79e181"
