"""How busy the machine is while something is timed: what other work takes of its cores, and how long a thread waits."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resnetlab.machine import own_cores

BUSY_CORES = 0.25  # cores that other work may take, on average, while something is timed
BUSY_WAIT = 0.1  # share of the time that the one thread that is timed may not run
SECONDS_BEFORE = 0.5  # how long the machine is watched before something is timed


@dataclass(frozen=True)
class Load:
    """What other work took of the `cores` that this process may use: on average, in cores.

    `before` is of the time before the timing, when this process slept, `during` of the timing itself; None where the
    system doesn't tell. `waited` is the share of the timing in which the timing thread did not run; None if several
    threads computed, which wait for each other.
    """

    cores: int
    before: float | None
    during: float | None
    waited: float | None

    @property
    def others(self) -> float | None:
        """The most that other work took, before or during the timing; None where the system doesn't tell."""
        return max((taken for taken in (self.before, self.during) if taken is not None), default=None)

    @property
    def busy(self) -> bool:
        """Whether times that were taken under this load mean little."""
        return (self.others or 0.0) > BUSY_CORES or (self.waited or 0.0) > BUSY_WAIT


def busy_load(values: Mapping[str, Any]) -> Load | None:
    """The load under which something of a measurement's values, each with its "load", was timed, if it was busy."""
    loads = [Load(**value["load"]) for value in values.values() if isinstance(value, dict) and "load" in value]
    return next((load for load in loads if load.busy), None)


def watch(threads: int) -> Callable[[], Load]:
    """Watch the machine from now on; call what is returned after the timing, in the same thread.

    threads: how many compute what is timed.
    """
    cores = own_cores()
    before = _Clocks.now(cores)
    time.sleep(SECONDS_BEFORE)
    start = _Clocks.now(cores)

    def load() -> Load:
        end = _Clocks.now(cores)
        return Load(
            cores=len(cores),
            before=start.others_since(before),
            during=end.others_since(start),
            waited=end.waited_since(start) if threads == 1 else None,
        )

    return load


def other_work() -> float | None:
    """The cores that other work takes now, for half a second, if times under it mean little; else None."""
    taken = watch(0)().before
    return taken if taken is not None and taken > BUSY_CORES else None


@dataclass(frozen=True)
class _Clocks:
    """Seconds: of the wall, of this process and thread on cores, and of everything on these cores."""

    wall: float
    process: float
    thread: float
    all_work: float | None  # None where the system doesn't tell

    @classmethod
    def now(cls, cores: Container[int]) -> _Clocks:
        try:
            all_work = seconds_of_work(Path("/proc/stat").read_text(), cores, os.sysconf("SC_CLK_TCK"))
        except OSError:
            all_work = None
        return cls(time.perf_counter(), time.process_time(), time.thread_time(), all_work)

    def others_since(self, start: _Clocks) -> float | None:
        """Cores that other processes took on average."""
        if self.all_work is None or start.all_work is None:
            return None
        own, everyone = self.process - start.process, self.all_work - start.all_work
        if everyone < own / 2:  # a sandbox whose numbers stand still
            return None
        return max(0.0, everyone - own) / (self.wall - start.wall)

    def waited_since(self, start: _Clocks) -> float:
        """The share of the time in which this thread did not run."""
        return max(0.0, 1 - (self.thread - start.thread) / (self.wall - start.wall))


def seconds_of_work(stat: str, cores: Container[int], ticks: int) -> float | None:
    """How long these cores have worked since the system's start, by Linux's /proc/stat; None if it has none of them.

    stat: its text. ticks: of it in a second. Time that a host took from a virtual machine ("steal") counts as work.
    """
    found = []
    for line in stat.splitlines():
        name, _, numbers = line.partition(" ")
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cores:
            user, nice, system, _idle, _waiting_for_disk, *interrupts_and_steal = map(int, numbers.split()[:8])
            found.append(user + nice + system + sum(interrupts_and_steal))
    return sum(found) / ticks if found else None
