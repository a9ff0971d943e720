"""The lines of a training in a log: at each epoch's end, and once a minute within it."""

from __future__ import annotations

import pytest

from resnetlab.training import log_lines
from resnetlab.training.log_lines import LogLines, duration
from resnetlab.training.loop import Status


def status(step: int, epochs: int = 0, test_error: float | None = None) -> Status:
    return Status(epochs, step, 1000, 0.1, 50.0, test_error, 2000.0)


def test_lines_come_at_the_end_of_an_epoch_and_a_minute_after_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_lines, "LINE_SECONDS", 60)
    times = iter([0.0, 59.0, 61.0, 120.0, 121.5, 130.0, 189.0, 191.0])
    lines = LogLines(lambda: next(times))
    within = [status(step) for step in (10, 100, 110, 200, 210)]
    after = [status(step, 1, 30.0) for step in (250, 260, 510)]
    told = [lines.due(each) for each in within + after]
    assert told == [
        "",
        "",
        "in epoch 1, step 110 of 1000, lr 0.1: error 50.00 %, 2,000 images/s, about 9.0 min left",
        "",
        "in epoch 1, step 210 of 1000, lr 0.1: error 50.00 %, 2,000 images/s, about 8.0 min left",
        "epoch 1, step 250 of 1000, lr 0.1: error 50.00 %, test 30.00 %, 2,000 images/s",
        "",
        "in epoch 2, step 510 of 1000, lr 0.1: error 50.00 %, test 30.00 %, 2,000 images/s, about 3.1 min left",
    ]


def test_a_resumed_run_counts_from_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_lines, "LINE_SECONDS", 60)
    now = 0.0
    lines = LogLines(lambda: now)
    assert lines.due(status(900, 3)) == ""
    now = 60.0
    assert lines.due(status(900, 3)).endswith("images/s")  # nothing done yet: no guess
    now = 120.0
    assert lines.due(status(950, 3)).endswith("about 2.0 min left")


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.5, "0.5 s"), (119, "119.0 s"), (120, "2.0 min"), (7200, "2.0 h"), (172800, "2.0 days")]
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words
