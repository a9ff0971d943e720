"""The machine's load: read from made-up numbers, and judged by made-up loads."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from resnetlab.measuring import load as load_module
from resnetlab.measuring.load import Load, _Clocks, busy_load, other_work, seconds_of_work, watch

# user nice system idle iowait irq softirq steal guest guest_nice
STAT = """cpu  9 9 9 9 9 9 9 9 9 9
cpu0 100 200 300 5000 600 10 20 70 40 0
cpu1 1 2 3 4000 5 6 7 8 0 0
cpu10 1000 0 0 0 0 0 0 0 0 0
intr 5 6
"""


def test_work_is_all_but_idleness_and_waiting_for_disks() -> None:
    assert seconds_of_work(STAT, {0}, 100) == 7.0
    assert seconds_of_work(STAT, {0, 1}, 100) == 7.27
    assert seconds_of_work(STAT, {10, 11}, 50) == 20.0
    assert seconds_of_work(STAT, {2}, 100) is None
    assert seconds_of_work("", {0}, 100) is None


def clocks(wall: float, process: float, thread: float, all_work: float | None) -> _Clocks:
    return _Clocks(wall, process, thread, all_work)


def test_others_took_what_this_process_did_not() -> None:
    start = clocks(100, 10, 8, 1000)
    assert clocks(110, 25, 17, 1020).others_since(start) == 0.5
    assert clocks(110, 25, 17, 1020).waited_since(start) == pytest.approx(0.1)
    assert clocks(110, 25, 18, 1014.9).others_since(start) == 0.0, "ticks are coarse"
    assert clocks(110, 25, 18, 1000).others_since(start) is None, "numbers that stand still say nothing"
    assert clocks(110, 25, 18, None).others_since(start) is None


@pytest.mark.parametrize(
    ("before", "during", "waited", "busy"),
    [
        (0.0, 0.0, 0.0, False),
        (0.25, 0.25, 0.1, False),
        (0.26, 0.0, 0.0, True),
        (0.0, 0.26, 0.0, True),
        (0.0, 0.0, 0.11, True),
        (None, None, None, False),
        (None, None, 0.5, True),
        (None, 1.0, None, True),
    ],
)
def test_a_machine_is_busy_by_the_rule(
    before: float | None, during: float | None, waited: float | None, busy: bool
) -> None:
    load = Load(2, before, during, waited)
    assert load.busy is busy
    values: dict[str, Any] = {"quiet": {"load": asdict(Load(2, 0.0, 0.0, 0.0))}, "net": {"load": asdict(load)}}
    assert busy_load(values | {"seed": 3, "other": {"seconds": [1]}}) == (load if busy else None)


def test_the_machine_at_hand_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_module, "SECONDS_BEFORE", 0.01)
    found = watch(threads=1)()
    assert found.cores == len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else found.cores > 0
    assert found.waited is not None
    assert 0 <= found.waited <= 1
    assert watch(threads=2)().waited is None

    def none(self: Path) -> str:
        raise FileNotFoundError(self)

    monkeypatch.setattr(Path, "read_text", none)
    assert watch(threads=1)().others is None


@pytest.mark.parametrize(("others", "said"), [(None, None), (0.25, None), (0.26, 0.26), (3.0, 3.0)])
def test_other_work_is_said_where_times_under_it_mean_little(
    others: float | None, said: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_module, "watch", lambda threads: lambda: Load(4, others, 9.0, None))
    assert other_work() == said
