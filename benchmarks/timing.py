"""What the benchmarks share: interleaved timing, rows, and how they are printed and recorded."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from resnetlab.machine import machine


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
    for candidate in candidates:
        candidate()  # the first call allocates and chooses kernels
    taken: list[list[float]] = [[] for _ in candidates]
    for _ in range(runs):
        for times, candidate in zip(taken, candidates, strict=True):
            started = time.perf_counter()
            candidate()
            times.append(1000 * (time.perf_counter() - started))
    return [statistics.median(times) for times in taken]


def options(description: str, runs: int) -> argparse.ArgumentParser:
    """The options every benchmark takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument("--record", type=Path, help="write the rows to this JSON file, with the machine they are from")
    parser.add_argument("--runs", type=int, default=runs, help="how often each is timed")
    return parser


def show(rows: list[Row], *, as_json: bool) -> None:
    """Print the rows, as JSON or for people."""
    if as_json:
        print(json.dumps([asdict(row) for row in rows]))
        return
    for row in rows:
        peer = f"{row.peer_name} {row.peer:.1f}, ratio {row.ratio:.2f}" if row.peer and row.ratio else "no peer"
        limit = f", limit {row.limit:.1f}" if row.limit else ""
        print(f"{row.what}: ours {row.ours:.1f} {row.unit}; {peer}{limit} (median of {row.runs})")


def keep(rows: list[Row], path: Path | None) -> None:
    """Write the rows to a record, if there is to be one."""
    if path:
        path.write_text(json.dumps({"machine": machine(), "rows": [asdict(row) for row in rows]}, indent=1) + "\n")
