"""Applies a function to every image of files, in processes; an image that kills its process does not stop the rest."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver, resource_tracker
from typing import Any, TypeVar

from resnetlab.data.files import Files
from resnetlab.errors import UserError, shown
from resnetlab.machine import available_cores

T = TypeVar("T")
CHUNK = 8  # images that a process gets at once: few, so that the results that wait stay small
MOST_WORKERS = 256
KILLED = "crashes the decoder"

_work: tuple[Callable[[Files, int], Any], Files]  # of a worker


def check_workers(workers: int | None) -> int:
    """How many processes to use; None means one for each processor. Raises UserError unless that is sensible."""
    processors = available_cores()
    if workers is not None and not 1 <= workers <= 4 * processors:
        raise UserError(f"workers={shown(workers)} must be 1 to {4 * processors}, 4 per core.")
    return workers or processors


def decoding_workers(asked: int | None, device: str, *, in_memory: bool, processes: int = 1) -> int:
    """The number of processes that decode ahead: none for images in memory, one if the CPU trains, all cores for a GPU.

    asked: the user's choice. processes: the number of processes that share the cores. Raises UserError.
    """
    if asked is not None and not 0 <= asked <= MOST_WORKERS:
        raise UserError(f"workers={asked} must be 0 to {MOST_WORKERS}.")
    if in_memory:
        return 0
    if asked is not None:
        return asked
    return min(max(available_cores() // processes, 1), 16) if device.startswith("cuda") else 1


def over_images(function: Callable[[Files, int], T], files: Files, workers: int) -> Generator[T | None, None, None]:
    """Yield function(files, i) for every image, in order; None for an image that killed its process.

    `function` can be pickled and never returns None. Raises UserError if no process can be started.
    """
    chunks = iter(range(start, min(start + CHUNK, len(files))) for start in range(0, len(files), CHUNK))
    # A pool for each process. One pool of several hangs now and then when a process dies while it starts another
    # (Python 3.11 terminates those it knows of, then waits for all), and it can't tell which chunk was the one.
    workers = min(workers, -(-len(files) // CHUNK))  # each takes a second to start
    lanes = [_pool(function, files) for _ in range(workers)]

    def alive(lane: int) -> ProcessPoolExecutor:
        """The pool, or a new one in its place if its process has died."""
        if isinstance(_submit(lanes[lane], range(0)).exception(), BrokenProcessPool):
            lanes[lane].shutdown()
            lanes[lane] = _pool(function, files)
        return lanes[lane]

    waiting: deque[tuple[int, range, Future[list[T]]]] = deque()
    turn = itertools.cycle(range(workers))
    try:
        while True:
            while len(waiting) < 3 * workers and (chunk := next(chunks, None)):
                lane = next(turn)
                waiting.append((lane, chunk, _submit(lanes[lane], chunk)))
            if not waiting:
                return
            lane, chunk, future = waiting.popleft()
            try:
                results: list[T | None] = [*future.result()]
            except BrokenProcessPool:
                results = []
                for i in chunk:
                    try:
                        results += _submit(alive(lane), range(i, i + 1)).result()
                    except BrokenProcessPool:
                        results.append(None)
                pool = alive(lane)
                # What waited behind it in the same process is handed out again.
                waiting = deque((k, c, _submit(pool, c) if k == lane else f) for k, c, f in waiting)
            yield from results
    finally:
        for pool in lanes:
            pool.shutdown(cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, chunk: range) -> Future[Any]:
    """Hand a chunk to a process; if that has died, the future says so."""
    try:
        with _interrupted_later():
            return pool.submit(_results, chunk)
    except BrokenProcessPool as error:
        dead: Future[Any] = Future()
        dead.set_exception(error)
        return dead


def _pool(function: Callable[[Files, int], Any], files: Files) -> ProcessPoolExecutor:
    # Not "fork", which copies locks that other threads hold; the server imports torch once, for all.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["resnetlab.data.audit", "resnetlab.data.pack"])
    resource_tracker.ensure_running()  # which the next one would start otherwise, and unblock signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Ctrl-C is for us; the processes inherit this
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    pool = ProcessPoolExecutor(1, mp_context=context, initializer=_start, initargs=(function, files))
    try:
        with _interrupted_later():
            started = pool.submit(_results, range(0))
        started.result()  # waits, so that no image is blamed for a process that can't start
    except BaseException as error:
        pool.shutdown(cancel_futures=True)
        if not isinstance(error, BrokenProcessPool):
            raise
        raise UserError(
            "the processes that decode images can't start; a script must be a file, and must call this inside "
            'if __name__ == "__main__".'
        ) from error
    return pool


@contextlib.contextmanager
def _interrupted_later() -> Iterator[None]:
    """Put off Ctrl-C: a process that is cut off while it starts complains at length."""
    asked: list[int] = []
    with ctrl_c_handled(lambda number, _: asked.append(number)):
        yield
    if asked:
        raise KeyboardInterrupt


@contextlib.contextmanager
def ctrl_c_handled(handler: Callable[[int, Any], object] | signal.Handlers) -> Iterator[None]:
    """A context in which Ctrl-C is handled so; where signals can't be set, outside the main thread, it does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _start(function: Callable[[Files, int], Any], files: Files) -> None:
    global _work
    import torch

    _work = (function, files)
    torch.set_num_threads(1)
    end_with_parent()


def end_with_parent() -> None:
    """End this process as soon as its parent is gone: one that is killed can't tell it to end."""
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _results(chunk: range) -> list[Any]:
    function, files = _work
    return [function(files, i) for i in chunk]
