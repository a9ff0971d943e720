"""The processes that decode images for the server. They can be killed, and their total memory is bounded."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any, Self, TypeVar

import numpy as np

from resnetlab.data.decoding import Part
from resnetlab.use.decoding_process import UNREAD, Task
from resnetlab.use.forms import Refused

Result = TypeVar("Result")
PROCESSES = 2
BESIDE = 25_000_000  # pixels of other images that may be decoded at the same time as one of maximum size
PIPE_BYTES = 2**20  # capacity of a pipe, enough for a small image and its pixels; Linux's default is 2**16
BROKEN = f"{UNREAD}: decoding it takes too long, or crashes the decoder"


class Decoders:
    """A pool of processes, each for one image at a time. Close it, or use it in `with`.

    All images that are being decoded have at most `pixels` pixels together; an image beyond that is refused with 503,
    but small images never are.
    """

    def __init__(self, pixels: int, processes: int = PROCESSES, command: tuple[str, ...] | None = None) -> None:
        self.most_pixels, self._pixels = pixels, 0
        self._command = command or (sys.executable, "-P", "-m", "resnetlab.use.decoding_process")
        self._lock, self._closed = threading.Lock(), False
        self._threads = ThreadPoolExecutor(processes, thread_name_prefix="decode")  # each waits for a process
        self._processes = processes
        self._idle: list[_Process] = []
        self._busy: set[_Process] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the processes now; otherwise each starts with the first image that needs it, which has to wait."""
        with self._lock:
            for _ in range(self._processes - len(self._idle) - len(self._busy)):
                self._idle.append(_Process(self._command))

    def close(self) -> None:
        """End all processes."""
        with self._lock:
            self._closed = True
            for process in self._busy:
                process.kill()
        self._threads.shutdown(cancel_futures=True)
        while self._idle:
            self._idle.pop().close()

    async def decoded(self, task: Task, body: bytearray, then: Callable[[Part], Result]) -> Result:
        """Decode the image in a body, and return `then` of it, computed in a thread.

        Raises Refused, and what `then` raises. Cancelling kills the process.
        """
        job = _Job()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._work, job, task, body, then)
        except asyncio.CancelledError:
            job.abandon()
            raise

    def _work(self, job: _Job, task: Task, body: bytearray, then: Callable[[Part], Result]) -> Result:
        with self._process() as process, self._counted() as admit, job.done_by(process):
            return then(process.decoded(task, body, admit))

    @contextlib.contextmanager
    def _process(self) -> Iterator[_Process]:
        """A process for one image; if it ends, another replaces it."""
        with self._lock:
            process = self._idle.pop() if self._idle else _Process(self._command)
            if not process.lives:
                process.close()
                process = _Process(self._command)
            self._busy.add(process)
        try:
            yield process
        finally:
            with self._lock:
                self._busy.remove(process)
                if process.fit:
                    self._idle.append(process)
                else:
                    process.close()
                    if not self._closed:
                        with contextlib.suppress(OSError):  # the next image starts one
                            self._idle.append(_Process(self._command))

    @contextlib.contextmanager
    def _counted(self) -> Iterator[Callable[[int], bool]]:
        """Yield a function that says whether there is room for some pixels; admitted pixels count until the end."""
        held = 0

        def admit(pixels: int) -> bool:
            nonlocal held
            with self._lock:
                if self._pixels + pixels > self.most_pixels:
                    return False
                self._pixels += pixels
            held += pixels
            return True

        try:
            yield admit
        finally:
            with self._lock:
                self._pixels -= held


class _Job:
    """An image that may be abandoned, which kills the process that decodes it, and no other."""

    def __init__(self) -> None:
        self._lock, self._abandoned = threading.Lock(), False
        self._process: _Process | None = None

    def abandon(self) -> None:
        with self._lock:
            self._abandoned = True
            if self._process is not None:
                self._process.kill()

    @contextlib.contextmanager
    def done_by(self, process: _Process) -> Iterator[None]:
        with self._lock:
            if self._abandoned:
                raise asyncio.CancelledError
            self._process = process
        try:
            yield
        finally:
            with self._lock:
                self._process = None


class _Process:
    """One process. It is `fit` for another image if the last one ended normally."""

    def __init__(self, command: tuple[str, ...]) -> None:
        self._well, self._killed = True, False  # whether the last image ended normally; whether `kill` was called
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # libraries' complaints about a client's bytes
            process_group=0,  # so that Ctrl-C does not reach it
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OPENBLAS_NUM_THREADS": "1"},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout
        for pipe in (self._to, self._from):
            _widen(pipe.fileno())

    @property
    def lives(self) -> bool:
        return self._process.poll() is None

    @property
    def fit(self) -> bool:
        return self._well and not self._killed  # it may be killed after its image, and lives for a moment

    def kill(self) -> None:
        self._killed = True
        self._process.kill()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._from.close()
        with contextlib.suppress(BrokenPipeError):  # of bytes that were not sent yet
            self._to.close()

    def decoded(self, task: Task, body: bytearray, admit: Callable[[int], bool]) -> Part:
        """The image in a body. Raises Refused."""
        self._well = False
        try:
            self._send(json.dumps(asdict(task)).encode() + b"\n", body)
            said = self._said()
            if "weight" in said:
                self._send(b"yes\n" if admit(said["weight"]) else b"no\n")
                said = self._said()
        except BrokenPipeError:
            raise Refused(422, BROKEN) from None
        part = self._part(said) if "shape" in said else None
        self._well = not said["last"]
        if part is not None:
            return part
        if "failure" in said:
            raise RuntimeError(f"an image could not be decoded:\n{said['failure']}")
        raise Refused(said["status"], said["detail"])

    def _send(self, *contents: bytes | bytearray) -> None:
        for content in contents:
            self._to.write(content)
        self._to.flush()

    def _said(self) -> dict[str, Any]:
        line = self._from.readline()
        if not line.endswith(b"\n"):
            raise Refused(422, BROKEN)
        return json.loads(line)

    def _part(self, said: dict[str, Any]) -> Part:
        pixels = np.empty(said["shape"], np.uint8)
        if self._from.readinto(pixels.data.cast("B")) < pixels.nbytes:  # type: ignore[attr-defined]
            raise Refused(422, BROKEN)
        box, size, turn = (tuple(said[name]) for name in ("box", "size", "turn"))
        return Part(pixels, box, size, turn, said["interpolation"])


def _widen(pipe: int) -> None:
    """Let a pipe hold PIPE_BYTES, if the system supports and allows that."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # it has a limit of its own
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
