"""Two commands on one folder, a clock that goes backwards, too little memory, a worker that dies."""

from __future__ import annotations

import json
import os
import random
import signal
from pathlib import Path

import pytest
from commands import SUBJECTS, TRAIN
from conftest import Prepared, Promised
from injecting import Ended, Process, clock_backwards, counting, little_memory, pausing, run
from test_kills import same_each_time

pytestmark = pytest.mark.faults
BACKWARDS = ("train", "data pack", "features", "eval --report", "study run")
HELD = "another process"  # what the second one says, if it doesn't wait


def no_patience() -> None:
    """Give up on a file that another process is writing at once."""
    from resnetlab import storage

    storage.WRITING_SECONDS = 0


def what_it_said(ended: Ended) -> str:
    """What a command said: its one line, or of a study the line of the run it had to do without; "done" if neither."""
    if ended.code == 1:  # of a study
        (failed,) = [line for line in ended.err.splitlines() if "FAILED: " in line]
        return failed.partition("FAILED: ")[2]
    return ended.refused() if ended.code else "done"


@pytest.mark.parametrize("name", ["train", "data pack", "convert", "export", "features", "data fetch", "study run"])
def test_two_at_once(name: str, source: Path, after_install: Prepared, tmp_path: Path, promised: Promised) -> None:
    """The first one stops at a moment that follows from the seed, the second one runs to its end, the first goes on."""
    subject, drawn = SUBJECTS[name], random.Random(name)
    arguments = subject.arguments(source)
    unbroken, tally = tmp_path / "unbroken", tmp_path / "tally"
    unbroken.mkdir()
    promise = "what is written is whole and that of one of them; the other says one line, or finds it finished"
    with promised("two at once", name, promise) as row:
        run(unbroken, *arguments, fault=after_install(counting(unbroken, tally))).went_well()
        said = []
        for i in range(3):
            (folder := tmp_path / f"shared{i}").mkdir()
            stop = pausing(folder, drawn.randint(1, tally.stat().st_size))
            first = Process(folder, *arguments, fault=after_install(stop))
            assert first.wait_until_stopped()
            second = run(folder, *arguments, fault=after_install(no_patience))
            os.kill(first.pid, signal.SIGCONT)
            ended = first.wait()
            subject.check(folder)
            assert 0 in (ended.code, second.code), (ended, second)
            said += [what_it_said(one) for one in (ended, second)]
            assert same_each_time(folder, subject.written) == same_each_time(unbroken, subject.written)
        row.seen = f"first and second, three times: {'; '.join(said)}".replace(f"{tmp_path}/", "")


@pytest.mark.parametrize("name", BACKWARDS)
def test_a_clock_that_goes_backwards(
    name: str, source: Path, after_install: Prepared, tmp_path: Path, promised: Promised
) -> None:
    subject = SUBJECTS[name]
    arguments = subject.arguments(source)
    for folder in (forwards := tmp_path / "forwards", backwards := tmp_path / "backwards"):
        folder.mkdir()
    with promised("a clock that goes backwards", name, "the same bytes; no negative times; lists still work") as row:
        run(forwards, *arguments).went_well()
        run(backwards, *arguments, fault=clock_backwards).went_well()
        subject.check(backwards)
        assert same_each_time(backwards, subject.written) == same_each_time(forwards, subject.written)
        times = [json.loads(p.read_bytes())["seconds"] for p in backwards.glob("runs/*/result.json")]
        assert all(seconds >= 0 for seconds in times), times
        if times:
            run(backwards, "runs", fault=clock_backwards).went_well()
        row.seen = "the same bytes as with a clock that goes forwards"


def test_too_little_memory(source: Path, tmp_path: Path, promised: Promised) -> None:
    large = (
        "train",
        "digits",
        "--data",
        str(source / "images"),
        "--net",
        "resnet18",
        "--threads",
        "1",
        "--epochs",
        "1",
    )
    large += ("--image-size", "512", "--batch-size", "20", "--workers", "0")
    promise = "exit code 2 and one line that says what to do; the run goes on with what it takes"
    with promised("out of memory", "train", promise) as row:
        refused = run(tmp_path, *large, fault=little_memory(600 * 2**20)).refused()
        assert "memory" in refused
        assert "--batch-size" in refused or "batch_size" in refused
        SUBJECTS["train"].check(tmp_path)
        run(tmp_path, *TRAIN).went_well()
        row.seen = refused.replace(f"{source.parent}/", "")


def test_a_worker_that_dies(source: Path, tmp_path: Path, promised: Promised) -> None:
    """The process that decodes images ahead is killed in the run's second step."""
    train = ("train", "digits", "--data", str(source / "images"), "--net", "cifar_resnet8", "--image-size", "32")
    train += ("--batch-size", "4", "--epochs", "2", "--threads", "1", "--checkpoint-steps", "1", "--workers", "1")

    def kill_workers() -> None:
        from resnetlab.training.step import Stepper

        step, steps = Stepper.__call__, 0

        def killing(self: Stepper, *arguments: object) -> object:
            nonlocal steps
            steps += 1
            if steps == 2:
                me = os.getpid()
                for child in Path(f"/proc/{me}/task/{me}/children").read_text().split():
                    os.kill(int(child), signal.SIGKILL)
            return step(self, *arguments)  # type: ignore[arg-type]

        Stepper.__call__ = killing  # type: ignore[method-assign,assignment]

    (unbroken := tmp_path / "unbroken").mkdir()
    (folder := tmp_path / "killed").mkdir()
    promise = "exit code 2 and one line; the same command goes on to the same bytes"
    with promised("a dying worker", "train", promise) as row:
        run(unbroken, *train).went_well()
        refused = run(folder, *train, fault=kill_workers).refused()
        SUBJECTS["train"].check(folder)
        run(folder, *train).went_well()
        assert same_each_time(folder, "runs") == same_each_time(unbroken, "runs")
        row.seen = refused.replace(f"{source.parent}/", "")
