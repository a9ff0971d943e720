"""kill -9 at moments that follow from a seed: nothing half is taken for whole, and the same command completes."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import SUBJECTS, digest
from conftest import Prepared, Promised
from injecting import Ended, counting, killed, run

pytestmark = pytest.mark.faults
KILLS = 6
FEWER = {"export": 3, "study run": 4}  # which take longest


def same_each_time(folder: Path, written: str) -> str:
    """A hash of what a command wrote, without a run's times."""
    if written == "runs":
        (weights,) = (folder / "runs").glob("*/last/weights.safetensors")
        return digest(weights)
    if written == "report":
        return digest(folder / "report" / "predictions.csv")
    return digest(folder / written)


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_killed_command(name: str, source: Path, after_install: Prepared, tmp_path: Path, promised: Promised) -> None:
    subject, drawn, kills = SUBJECTS[name], random.Random(name), FEWER.get(name, KILLS)
    arguments = subject.arguments(source)
    unbroken, folder, tally = tmp_path / "unbroken", tmp_path / "killed", tmp_path / "tally"
    for made in (unbroken, folder):
        made.mkdir()
    with promised(
        f"kill -9, {kills} times", name, "nothing half is taken for whole, and the same command ends as an unbroken one"
    ) as row:
        run(unbroken, *arguments, fault=after_install(lambda: counting(unbroken, tally)())).went_well()
        events, died = tally.stat().st_size, 0
        for _ in range(kills):
            fault = killed(folder, drawn.randint(1, events), half=drawn.random() < 0.5)
            ended = run(folder, *arguments, fault=after_install(fault))
            subject.check(folder)
            died += ended.code == -signal.SIGKILL
            if ended.code != -signal.SIGKILL:  # what was left had fewer events, or is finished
                finished(ended, folder)
        last = run(folder, *arguments, fault=after_install(lambda: None))
        if last.code:
            finished(last, folder)
            last = run(folder, *arguments, fault=after_install(lambda: None))
        last.went_well()
        subject.check(folder)
        assert same_each_time(folder, subject.written) == same_each_time(unbroken, subject.written)
        left = [str(p.relative_to(folder)) for p in folder.rglob("*") if re.search(r"\.(part|new|tmp)\b", p.name)]
        assert not left, f"left behind: {left}"
        assert died, "it never died"
        row.seen = f"died {died} times of {events} moments to die at; the same bytes as an unbroken one, no remains"


def finished(ended: Ended, folder: Path) -> None:
    """How a command ends that finds its work done: well, or with the line which file to remove; then it is removed."""
    if ended.code:
        there = re.search(r"error: (\S+): already exists; remove it", ended.refused())
        assert there, ended.err
        (folder / there[1]).unlink()


def test_a_killed_server(source: Path, tmp_path: Path, promised: Promised) -> None:
    with promised("kill -9", "serve", "the next server listens on the same port at once; nothing is written") as row:
        port = 0
        for _ in range(2):
            with _server(source, tmp_path, port) as (process, url):
                port = int(url.rpartition(":")[2].strip("/"))
                with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{url}health") as answer:
                    assert answer.status == 200
                os.kill(process.pid, signal.SIGKILL)
        assert not list(tmp_path.iterdir())
        row.seen = "killed after an answer, twice; the second one answered on the port of the first"


@contextlib.contextmanager
def _server(source: Path, folder: Path, port: int) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-m", "resnetlab", "serve", str(source / "run"), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder) as process:
        try:
            assert process.stdout
            found = re.search(r"http://\S+/", process.stdout.readline())
            assert found
            yield process, found[0]
        finally:
            process.kill()
