"""metrics.jsonl: what a run logs, a line per epoch and per LOG_STEPS steps."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from pathlib import Path
from typing import Any

from resnetlab.errors import UserError
from resnetlab.storage import disk_errors

EPOCH_KEYS = ("epoch", "step", "train_error", "test_error")


class Metrics:
    """metrics.jsonl: one line per evaluation and per logged step, without times, so that a run repeats it."""

    def __init__(self, folder: Path, length: int, epochs: int):
        path = folder / "metrics.jsonl"
        with disk_errors(folder):
            path.touch()
            if path.stat().st_size < length:
                raise UserError(f"{path}: shorter than its checkpoint says; move {folder} away to start the run again.")
            os.truncate(path, length)  # what was logged after the checkpoint that is resumed
            found = epochs_of(folder)
            if len(found) != epochs:
                raise UserError(f"{path}: damaged, it should hold {epochs} epochs; move {folder} away to start anew.")
            self.file = path.open("ab", buffering=0)  # a failed write must not be tried again when the file closes
        self.folder = folder
        self.length = length
        self.last_epoch = found[-1] if found else None  # its line

    def write(self, line: dict[str, Any]) -> None:
        """Append a line. Raises UserError where the disk is full."""
        content = json.dumps(line).encode() + b"\n"
        with disk_errors(self.folder):
            if self.file.write(content) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.length += len(content)

    def sync(self) -> None:
        """Have on the disk what was written: a checkpoint must not say more than the file holds. Raises OSError."""
        os.fsync(self.file.fileno())


class NoMetrics:
    """What the processes of a run but the first hold in place of Metrics."""

    length = 0
    last_epoch: dict[str, Any] | None = None

    def __init__(self) -> None:
        self.file = contextlib.nullcontext()

    def write(self, line: dict[str, Any]) -> None:
        """Leave it to the first process."""

    def sync(self) -> None:
        """Leave it to the first process."""


def epochs_of(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics that end an epoch. Raises UserError if the file is damaged."""
    path = folder / "metrics.jsonl"
    try:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        epochs = [line for line in lines if "epoch" in line]
        if not all(isinstance(line[key], int | float) for line in epochs for key in EPOCH_KEYS):
            raise ValueError("an epoch without its errors")
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(f"{path}: damaged ({error}); move {folder} away to start the run again.") from error
    return epochs
