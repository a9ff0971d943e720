"""The lines of a training's log: one at the end of each epoch, and one every minute within it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from resnetlab.training.loop import Status

LINE_SECONDS = 60  # between lines within an epoch


@dataclass
class LogLines:
    """Gives the line that is due at a status, if one is."""

    clock: Callable[[], float] = time.monotonic
    begun: float = field(init=False, default=0.0)  # time of the first status
    said: float = field(init=False, default=0.0)  # time of the last line
    first: Status | None = field(init=False, default=None)
    epochs: int = field(init=False, default=0)  # at the last line

    def due(self, status: Status) -> str:
        """The line that is due now; "" for none. The first status of a session is within an epoch."""
        now = self.clock()
        if self.first is None:
            self.first, self.epochs, self.begun, self.said = status, status.epochs_done, now, now
        step = f"step {status.step} of {status.steps}, lr {status.lr:.4g}: {words_of(status)}"
        if status.epochs_done > self.epochs:
            self.epochs, self.said = status.epochs_done, now
            return f"epoch {status.epochs_done}, {step}"
        if now - self.said < LINE_SECONDS:
            return ""
        self.said = now
        return f"in epoch {status.epochs_done + 1}, {step}{self._left(status, now)}"

    def _left(self, status: Status, now: float) -> str:
        """The time left at the speed since the first status, in words."""
        assert self.first is not None
        done = status.step - self.first.step
        return f", about {duration((now - self.begun) / done * (status.steps - status.step))} left" if done else ""


def words_of(status: Status) -> str:
    """Errors and speed of a status."""
    test = f", test {status.test_error:.2f} %" if status.test_error is not None else ""
    return f"error {status.train_error:.2f} %{test}, {status.images_per_second:,.0f} images/s"


def duration(seconds: float) -> str:
    """A time in a suitable unit, e.g. "2.5 h"."""
    for name, unit in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.1f} s"
