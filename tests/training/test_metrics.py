"""metrics.jsonl as a resumed run takes it up: what its checkpoint does not know is dropped, what it lacks is damage."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from resnetlab.errors import UserError
from resnetlab.training.metrics import Metrics

LINES = [
    {"step": 4 * i, "train_error": 50.0, "test_error": 60.0 - i} | ({"epoch": i // 2} if i % 2 == 0 else {})
    for i in (1, 2, 3, 4, 5)
]


def test_a_run_goes_on_behind_the_lines_that_its_checkpoint_knows(tmp_path: Path) -> None:
    contents = [json.dumps(line).encode() + b"\n" for line in LINES]
    (tmp_path / "metrics.jsonl").write_bytes(b"".join(contents))
    known = sum(map(len, contents[:4]))
    metrics = Metrics(tmp_path, known, 2)
    assert metrics.last_epoch == LINES[3]
    with metrics.file:
        metrics.write(LINES[0])
        metrics.sync()
    assert (tmp_path / "metrics.jsonl").read_bytes() == b"".join([*contents[:4], contents[0]])
    assert metrics.length == known + len(contents[0])
    with pytest.raises(UserError, match="metrics.jsonl: damaged, it should hold 3 epochs, but has 2"):
        Metrics(tmp_path, known, 3)


def test_a_line_that_is_written_in_part_is_a_full_disk(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, 0, 0)
    metrics.file.close()
    metrics.file = SimpleNamespace(write=lambda content: len(content) - 1)  # type: ignore[assignment]
    with pytest.raises(UserError, match="can't write .No space left on device"):
        metrics.write(LINES[0])
    assert metrics.length == 0
