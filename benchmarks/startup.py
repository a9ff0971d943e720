"""Start-up: how long a command takes until it answers, beside Python and torch alone; ms.

python -m benchmarks.startup [--quick] [--first-step] [--json] [--record FILE] [--runs N]

`serve` is timed until its page is there. The limit of a command that needs no torch is a Python that does nothing, and
that of the others one that imports torch. All are timed in turn; files are in the system's cache from a first round.

With --first-step: what a training waits until its first step is done, beyond the time of a step, with batches of 16 and
nothing compiled yet. Each time is that of a process of its own; the peer is the plain loop, compiled as a whole.
"""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from functools import partial

from benchmarks.serving import served
from benchmarks.timing import Row, in_a_process, keep, medians, options, run, show
from benchmarks.training import PLAIN, made_up, our_step, users_step
from resnetlab.nets.zoo import build

PYTHON, TORCH = "pass", "import torch"  # the limits
COMMANDS: dict[str, str] = {
    "--help": PYTHON,
    "--version": PYTHON,
    "describe resnet50": TORCH,
    "nets": TORCH,
}
SOURCE = "pretrained:cifar_resnet20"
QUICK = ("--help", "describe resnet50")
# Network, and whether it is also compiled as a whole: deeper, that takes minutes.
FIRST_STEPS = {"cifar_resnet20": True, "cifar_resnet56": True, "cifar_resnet110": False, "cifar_resnet1202": False}
FIRST_BATCH, LATER_STEPS = 16, 3


def called(*words: str) -> None:
    """Run Python with these arguments to its end."""
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)


def page(source: str) -> None:
    """Start the server, and read its page."""
    with served(source, None, "torch") as (port, _):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/").read()


def waited(name: str, ours: bool) -> float:
    """Milliseconds to make a network and take its first step, less those of a step, with empty caches of code."""
    pixels, labels, recipe = made_up(name, FIRST_BATCH)
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(XDG_CACHE_HOME=folder, TORCHINDUCTOR_CACHE_DIR=folder)
        ends = [time.perf_counter()]
        if ours:
            step = our_step(name, pixels, labels, recipe)
        else:
            step = users_step(build(name, seed=0), pixels / 255, labels, PLAIN._replace(compiled=True))
        for _ in range(1 + LATER_STEPS):
            step()
            ends.append(time.perf_counter())
    first, *later = (1000 * (end - start) for start, end in itertools.pairwise(ends))
    return first - statistics.median(later)


def first_step_rows(runs: int) -> list[Row]:
    """What the first step waits, by depth."""
    rows = []
    for name, peer in FIRST_STEPS.items():
        ours, theirs = (
            statistics.median(in_a_process(waited, name, our) for _ in range(runs)) if our or peer else None
            for our in (True, False)
        )
        assert ours is not None
        ratio = theirs / ours if theirs else None
        named = "plain loop + compiled" if theirs else None
        rows.append(Row(f"{name}: wait for the first step", "ms", ours, theirs, named, ratio, None, runs))
    return rows


def command_rows(quick: bool, runs: int) -> list[Row]:
    """What commands take until they answer."""
    commands = {name: limit for name, limit in COMMANDS.items() if not quick or name in QUICK}
    calls: dict[str, Callable[[], object]] = {limit: partial(called, "-c", limit) for limit in (PYTHON, TORCH)}
    calls |= {name: partial(called, "-m", "resnetlab", *name.split()) for name in commands}
    if not quick:
        commands[f"serve {SOURCE}"] = TORCH
        calls[f"serve {SOURCE}"] = partial(page, SOURCE)
    taken = dict(zip(calls, medians(list(calls.values()), runs), strict=True))
    return [Row(f"resnetlab {n}", "ms", taken[n], None, None, None, taken[of], runs) for n, of in commands.items()]


def main() -> None:
    """Measure, print and record."""
    parser = options("Start-up.", runs=7)
    parser.add_argument("--quick", action="store_true", help="two commands, three times each")
    parser.add_argument("--first-step", action="store_true", help="what the first step of a training waits instead")
    given = parser.parse_args()
    runs = min(given.runs, 3) if given.quick else given.runs
    rows = first_step_rows(runs) if given.first_step else command_rows(given.quick, runs)
    show(rows, as_json=given.json)
    keep(rows, given.record)


if __name__ == "__main__":
    run(main)
