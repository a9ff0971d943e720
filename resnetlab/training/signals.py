"""Stopping a run: after the first SIGTERM or Ctrl-C the current step ends and is saved; a second one stops at once.

With several processes, each one that gets a signal tells the others (`Distributed.until_stopped`), and a second signal
is ignored: schedulers signal all processes, and torchrun passes its own signal on. It kills those that take too long.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(BaseException):
    """A run was asked to stop, and did: its last step is saved. Not an Exception: handlers of errors let it pass."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        self.step = 0  # the one that is saved
        self.saved = ""  # what is saved, in words, if it is more than one run

    def __str__(self) -> str:
        where = f"after step {self.step}, which is saved" if self.step else "before the first step"
        return f"stopped by {signal.Signals(self.number).name} {self.saved or where}"


class Stop:
    """Whether a run should stop. `train` looks at it before each step; `receive` is a signal's handler."""

    def __init__(self, *, alone: bool = True) -> None:
        self.number: int | None = None  # of the signal that asked
        self._alone = alone  # the run is this process only
        self._may_raise = False
        self._process = os.getpid()

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """A context for work that may be given up half-way, such as a wait for data; raises Stopped once asked to."""
        self._may_raise = True
        try:
            if self.number is not None:
                raise Stopped(self.number)
            yield
        finally:
            self._may_raise = False

    def receive(self, number: int, frame: FrameType | None = None) -> None:
        """Take note of a signal. The second one raises KeyboardInterrupt, or SystemExit for SIGTERM, if alone."""
        if os.getpid() != self._process:  # a process forked from the run that has no handlers of its own yet
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return
        if self.number is not None:
            if not self._alone:
                return
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
        self.number = number
        # Of what logging does at a fork, Python prints and drops an exception; then the next batch ends the wait.
        if self._may_raise and not (frame and frame.f_code.co_filename == logging.__file__):
            raise Stopped(number)


@contextlib.contextmanager
def stop_on_signals(*, alone: bool = True) -> Iterator[Stop]:
    """A Stop that SIGTERM and Ctrl-C set; outside the main thread, where no signals arrive, nothing sets it.

    When several processes stop, torchrun signals those that end last; they ignore that.
    """
    stop = Stop(alone=alone)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.receive) for number in SIGNALS}
    try:
        yield stop
    except Stopped:
        if not alone:
            before = dict.fromkeys(SIGNALS, signal.SIG_IGN)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
