"""Start-up: how long a command takes until it answers, beside Python and torch alone; ms.

python -m benchmarks.startup [--quick] [--json] [--record FILE] [--runs N]

`serve` is timed until its page is there. The limit of a command that needs no torch is a Python that does nothing, and
that of the others one that imports torch. All are timed in turn; files are in the system's cache from a first round.
"""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections.abc import Callable
from functools import partial

from benchmarks.serving import served
from benchmarks.timing import Row, keep, medians, options, run, show

PYTHON, TORCH = "pass", "import torch"  # the limits
COMMANDS: dict[str, str] = {
    "--help": PYTHON,
    "--version": PYTHON,
    "describe resnet50": TORCH,
    "nets": TORCH,
}
SOURCE = "pretrained:cifar_resnet20"
QUICK = ("--help", "describe resnet50")


def called(*words: str) -> None:
    """Run Python with these arguments to its end."""
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)


def page(source: str) -> None:
    """Start the server, and read its page."""
    with served(source, None, "torch") as (port, _):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/").read()


def main() -> None:
    """Measure, print and record."""
    parser = options("Start-up.", runs=7)
    parser.add_argument("--quick", action="store_true", help="two commands, three times each")
    given = parser.parse_args()
    commands = {name: limit for name, limit in COMMANDS.items() if not given.quick or name in QUICK}
    calls: dict[str, Callable[[], object]] = {limit: partial(called, "-c", limit) for limit in (PYTHON, TORCH)}
    calls |= {name: partial(called, "-m", "resnetlab", *name.split()) for name in commands}
    if not given.quick:
        commands[f"serve {SOURCE}"] = TORCH
        calls[f"serve {SOURCE}"] = partial(page, SOURCE)
    runs = min(given.runs, 3) if given.quick else given.runs
    taken = dict(zip(calls, medians(list(calls.values()), runs), strict=True))
    rows = [Row(f"resnetlab {n}", "ms", taken[n], None, None, None, taken[of], runs) for n, of in commands.items()]
    show(rows, as_json=given.json)
    keep(rows, given.record)


if __name__ == "__main__":
    run(main)
