"""What the benchmarks share: interleaved timing, rows, and how they are printed and recorded."""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from resnetlab.api.errors import as_user_errors
from resnetlab.errors import UserError
from resnetlab.machine import machine
from resnetlab.measuring.cost import interleaved

T = TypeVar("T")
RECORD = "write the rows to this JSON file, with the machine they are from"


@dataclass(frozen=True)
class Row:
    """One comparison; `ratio` > 1 means that ours is better. `limit` is what can't be undercut, in `unit`."""

    what: str
    unit: str
    ours: float
    peer: float | None
    peer_name: str | None
    ratio: float | None
    limit: float | None
    runs: int


def medians(candidates: Sequence[Callable[[], object]], runs: int) -> list[float]:
    """Median milliseconds of each, taken in turn, so that a busy moment of the machine meets them all."""
    return [1000 * statistics.median(seconds) for seconds in interleaved(candidates, runs)]


SLOW = 3  # times the fastest: what is slower at first is timed once


def medians_apart(makers: Sequence[Callable[[], Callable[[], object]]], runs: int) -> list[float]:
    """Median milliseconds of what each maker returns, made and called in a process of its own; taken in turn.

    So each has memory, threads and compiled code of its own, as a training has. Raises UserError if one is killed.
    """
    with contextlib.ExitStack() as open_pools:
        spawn = multiprocessing.get_context("spawn")
        pools = [open_pools.enter_context(ProcessPoolExecutor(1, mp_context=spawn)) for _ in makers]
        try:
            for pool, maker in zip(pools, makers, strict=True):
                pool.submit(_make, maker).result()
            seconds = [[pool.submit(_seconds).result()] for pool in pools]
            longest = SLOW * min(first for (first,) in seconds)
            for _ in range(runs - 1):
                for pool, own in zip(pools, seconds, strict=True):
                    if own[0] <= longest:
                        own.append(pool.submit(_seconds).result())
        except BrokenProcessPool as error:
            raise UserError("a process that is timed was killed, maybe for want of memory.") from error
    return [1000 * statistics.median(own) for own in seconds]


_made: list[Callable[[], object]] = []  # in a process of `medians_apart`: what it times


def _make(maker: Callable[[], Callable[[], object]]) -> None:
    _made.append(maker())
    _made[0]()  # the first one allocates, compiles and chooses kernels


def _seconds() -> float:
    start = time.perf_counter()
    _made[0]()
    return time.perf_counter() - start


def in_a_process(function: Callable[..., T], *arguments: object) -> T:
    """What a function of a module returns in a process of its own, whose memory, threads and caches are its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def options(description: str, runs: int) -> argparse.ArgumentParser:
    """The options every benchmark takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument("--record", type=record_path, help=RECORD)
    parser.add_argument("--runs", type=positive, default=runs, help="how often each is timed")
    return parser


def positive(text: str) -> int:
    """A whole number of 1 or more."""
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of 1 or more")
    return int(text)


def record_path(text: str) -> Path:
    """A file that can be written when everything is measured, as far as that can be known before."""
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: is a folder" if path.is_dir() else f"{path.parent}: no such folder")
    return path


def folder(text: str) -> Path:
    """A folder that is there."""
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text}: no such folder")
    return Path(text)


def say_absent(packages: Iterable[str]) -> None:
    """Say which peers are not compared, since they are not installed; on stderr, as rows may be read by programs."""
    if absent := [name for name in packages if not find_spec(name)]:
        print(f"not installed, so not compared: {', '.join(absent)}", file=sys.stderr)


def run(main: Callable[[], None]) -> None:
    """Run a benchmark; bad input, and a file that can't be used, is one line and exit code 2, as of the command."""
    try:
        with as_user_errors("benchmarks"):
            main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error


def show(rows: list[Row], *, as_json: bool, taken: str = "median") -> None:
    """Print the rows, as JSON or for people; taken: which of a row's runs it has."""
    if as_json:
        print(json.dumps([asdict(row) for row in rows]))
        return
    for row in rows:
        peer = f"{row.peer_name} {row.peer:.1f}, ratio {row.ratio:.2f}" if row.peer and row.ratio else "no peer"
        limit = f", limit {row.limit:.1f}" if row.limit else ""
        print(f"{row.what}: ours {row.ours:.1f} {row.unit}; {peer}{limit} ({taken} of {row.runs})")


def keep(rows: list[Row], path: Path | None) -> None:
    """Write the rows to a record, if there is to be one."""
    if path:
        path.write_text(json.dumps({"machine": machine(), "rows": [asdict(row) for row in rows]}, indent=1) + "\n")
