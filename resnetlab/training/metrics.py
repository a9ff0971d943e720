"""metrics.jsonl, the log of a run: a line per epoch and per LOG_STEPS steps."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from pathlib import Path
from typing import Any

from resnetlab.run_files import METRICS, START_ANEW, read_epochs
from resnetlab.storage import Damaged, disk_errors, open_to_append


class Metrics:
    """metrics.jsonl: one line per evaluation and per logged step, without times, so that a repeated run equals it."""

    def __init__(self, folder: Path, length: int, epochs: int):
        path = folder / METRICS
        found = read_epochs(folder, length)
        if len(found) != epochs:
            raise Damaged(path, f"damaged, it should hold {epochs} epochs, but has {len(found)}", START_ANEW)
        with disk_errors(path):
            self.file = open_to_append(path)  # unbuffered: a failed write must not be tried again when it closes
            self.file.truncate(length)  # drops lines logged after the checkpoint from which the run resumes
        self.folder = folder
        self.length = length
        self.last_epoch = found[-1] if found else None  # its line

    def write(self, line: dict[str, Any]) -> None:
        """Append a line. Raises UserError if the disk is full."""
        content = json.dumps(line).encode() + b"\n"
        with disk_errors(self.folder):
            if self.file.write(content) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.length += len(content)

    def sync(self) -> None:
        """Flush the file to disk, so that no checkpoint counts on more than it holds. Raises OSError."""
        os.fsync(self.file.fileno())


class NoMetrics:
    """In place of Metrics in all processes of a run except the first."""

    length = 0
    last_epoch: dict[str, Any] | None = None

    def __init__(self) -> None:
        self.file = contextlib.nullcontext()

    def write(self, line: dict[str, Any]) -> None:
        """Leave it to the first process."""

    def sync(self) -> None:
        """Leave it to the first process."""
