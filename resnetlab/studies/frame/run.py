"""Runs the missing trainings and measurements of a study, in one process or in several side by side."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType

from resnetlab.data.workers import ctrl_c_handled, end_with_parent
from resnetlab.errors import UserError
from resnetlab.machine import available_cores
from resnetlab.nets.zoo import spec
from resnetlab.storage import InUse, disk_errors, disk_is_full, is_locked
from resnetlab.studies.frame.measurement import Measurement, measure_or_cached, opened
from resnetlab.studies.frame.record import reason
from resnetlab.studies.frame.study import Plan
from resnetlab.training.loop import Status, train
from resnetlab.training.precision import on_threads
from resnetlab.training.recipe import Recipe
from resnetlab.training.run import Run, make_run
from resnetlab.training.signals import Stop, Stopped, stop_on_signals

WAITING_SECONDS = 0.2  # between looks at what other processes do
KILLED = "its process was killed, perhaps for want of memory: try fewer --jobs."


@dataclass(frozen=True)
class Event:
    """News of run or measurement `index` of the plan: its status, that it is `done`, or in one line why it `failed`.

    Or that it `waits`, since another process is training it.
    """

    index: int
    status: Status | None = None
    done: bool = False
    failed: str = ""
    waits: bool = False


@dataclass(frozen=True)
class End:
    """How a training ended: why it `failed`, in one line, or "", whether the disk is `full`, and its `last` status."""

    failed: str = ""
    full: bool = False
    last: Status | None = None
    in_use: bool = False  # another process is training it

    def event(self, index: int) -> Event:
        """The event that reports it. Raises UserError if the disk is full, since no other run can be written either."""
        if self.full:
            raise UserError(self.failed)
        return Event(index, done=not self.failed, failed=self.failed)


def run_plan(
    plan: Plan,
    runs: Path,
    jobs: int = 1,
    device: str = "cpu",
    trainings: Iterator[Event] | None = None,
    stop: Stop | None = None,
) -> Iterator[Event]:
    """Do a plan's missing trainings, then its missing measurements; yields events.

    An event's index counts the plan's runs and then its measurements. Measurements of times come last, one after
    another. `trainings`, if given, trains the runs elsewhere. A measurement whose run failed fails too. Raises
    UserError and Stopped as `run_missing` does.
    """
    stop = stop or Stop()
    failed = set()
    events = _until_stopped(trainings, stop) if trainings else run_missing(plan.recipes, runs, jobs, device, stop)
    for event in events:
        failed |= {event.index} if event.failed else set()
        yield event
    first = len(plan.recipes)
    missing = [plan.recipes[i] for i in failed]
    ready = []
    for i, m in enumerate(plan.measurements):
        if m.run in missing:
            yield Event(first + i, failed="the run that it measures failed.")
        else:
            ready.append(i)
    for alone in (False, True):
        chosen = [i for i in ready if plan.measurements[i].alone is alone]
        work = tuple(plan.measurements[i] for i in chosen)
        for event in run_missing(work, runs, 1 if alone else jobs, device, stop):
            yield replace(event, index=first + chosen[event.index])


def _until_stopped(events: Iterator[Event], stop: Stop) -> Iterator[Event]:
    """The same events; raises Stopped, also while it waits for one, once `stop` is asked to."""
    while True:
        with stop.at_once():
            event = next(events, None)
        if event is None:
            return
        yield event


def run_missing(
    work: Sequence[Recipe | Measurement],
    runs: Path,
    jobs: int = 1,
    device: str = "cpu",
    stop: Stop | None = None,
) -> Iterator[Event]:
    """Train each recipe that has no finished run below `runs`, or take each measurement; yields events.

    With several jobs, as many processes share the cores. A run that fails, or whose process is killed, does not stop
    the others; one that another process is training is taken over after the others, once that process has ended: it is
    finished then, or is resumed. After an interruption, the next call resumes every run from its last checkpoint.
    Raises UserError for an invalid recipe, before anything is trained, and for a full disk; and Stopped, with
    each run's last step saved, once `stop` is asked to.
    """
    stop = stop or Stop()
    jobs = max(1, min(jobs, len(work)))
    threads = max(1, available_cores() // jobs)
    with stop.at_once():
        resolve(tuple(w for w in work if isinstance(w, Recipe)), runs)
    if jobs > 1:
        yield from _side_by_side(work, runs, jobs, threads, device, stop)
        return
    queue = _Queue(work, runs, range(len(work)))
    while queue:
        if (index := queue.next()) is None:
            with stop.at_once():
                time.sleep(WAITING_SECONDS)
            continue
        try:
            for status in _done(work[index], runs, threads, device, stop):
                yield Event(index, status)
            end = End()
        except Exception as error:
            end = end_of(error, runs)
        yield from queue.put_off(index) if end.in_use else [end.event(index)]


class _Queue:
    """What is still to be done, in order; what another process is training comes last, once that process has ended."""

    def __init__(self, work: Sequence[Recipe | Measurement], runs: Path, order: Iterable[int]) -> None:
        self._work, self._runs = work, runs
        self._waiting = deque(order)
        self._in_use: dict[int, Path] = {}  # the folders of what other processes were training
        self._told = set[int]()

    def __bool__(self) -> bool:
        return bool(self._waiting or self._in_use)

    def next(self) -> int | None:
        """The next one; None while other processes train all that are left."""
        if self._waiting:
            return self._waiting.popleft()
        for index, folder in self._in_use.items():
            if not is_locked(folder):
                del self._in_use[index]
                return index
        return None

    def put_off(self, index: int) -> Iterator[Event]:
        """Let one that another process is training come last; says so the first time."""
        recipe = self._work[index]
        assert isinstance(recipe, Recipe)
        self._in_use[index] = make_run(recipe, self._runs, opened(recipe.data)).folder
        if index not in self._told:
            self._told.add(index)
            yield Event(index, waits=True)


def _done(one: Recipe | Measurement, runs: Path, threads: int, device: str, stop: Stop) -> Iterator[Status]:
    """Train a recipe, yielding its statuses, or take a measurement, which a stop interrupts half-way."""
    if isinstance(one, Recipe):
        yield from train(make_run(one, runs), device=device, threads=threads, stop=stop)
    else:
        with on_threads(threads), stop.at_once():
            measure_or_cached(one, runs, device, again_if_busy=True)


def resolve(recipes: tuple[Recipe, ...], runs: Path) -> list[Run]:
    """The recipes as runs; each data set is read once. Raises UserError for invalid ones and an unwritable folder."""
    resolved = [make_run(recipe, runs, opened(recipe.data)) for recipe in recipes]
    with disk_errors(runs):
        runs.mkdir(parents=True, exist_ok=True)
    return resolved


def attempt(
    one: Recipe | Measurement,
    runs: Path,
    threads: int,
    device: str,
    report: Callable[[Status], object] = lambda _: None,
    stop: Stop | None = None,
) -> End:
    """Train a recipe or take a measurement in this process; never raises an Exception."""
    status = None
    try:
        for status in _done(one, runs, threads, device, stop or Stop()):
            report(status)
    except Exception as error:
        return end_of(error, runs)
    return End(last=status)


def end_of(error: Exception, runs: Path) -> End:
    """An error as the end of a run."""
    return End(reason(error, runs), disk_is_full(error), in_use=isinstance(error, InUse))


@dataclass
class _Lane:
    """A process that trains one run after another.

    Each process has a pool of its own, so that only its run is lost if it dies: in a pool of several (loky's, too), one
    that is killed takes all others with it.
    """

    pool: ProcessPoolExecutor
    statuses: Connection  # receives what its process sends
    index: int
    future: Future[End]


def _side_by_side(
    work: Sequence[Recipe | Measurement], runs: Path, jobs: int, threads: int, device: str, stop: Stop
) -> Iterator[Event]:
    context = multiprocessing.get_context("spawn")  # forking a process that has used torch's threads can hang
    others = multiprocessing.active_children()
    queue = _Queue(work, runs, in_turn(work))
    idle: list[tuple[ProcessPoolExecutor, Connection]] = []
    busy: list[_Lane] = []
    asked = False  # whether the processes were asked to save their last step and end
    try:
        while (queue and stop.number is None) or busy:
            if stop.number is not None and not asked:
                asked = True
                _end(others, BaseProcess.terminate)
            while len(busy) < jobs and stop.number is None and (i := queue.next()) is not None:
                pool, statuses = idle.pop() if idle else _new_process(context)
                try:
                    future = pool.submit(_one, work[i], runs, threads, device)
                    busy.append(_Lane(pool, statuses, i, future))
                except BrokenProcessPool:  # killed before it had a run
                    yield Event(i, failed=KILLED)
            wait([lane.statuses for lane in busy], timeout=WAITING_SECONDS)
            for lane in list(busy):
                ended = lane.future.done()  # asked before its statuses are read, so that none of them is missed
                yield from (Event(lane.index, status) for status in _received(lane.statuses))
                if not ended:
                    continue
                busy.remove(lane)
                if isinstance(lane.future.exception(), BrokenProcessPool):
                    lane.pool.shutdown(wait=False)
                    lane.statuses.close()
                    end = End(KILLED)
                else:
                    idle.append((lane.pool, lane.statuses))
                    end = lane.future.result()
                if end.in_use:
                    yield from queue.put_off(lane.index)
                    continue
                event = end.event(lane.index)
                if stop.number is None or event.done:
                    yield event
        for pool, _ in idle:
            pool.shutdown()
        if stop.number is not None:
            raise Stopped(stop.number)
    finally:
        for pool in [pool for pool, _ in idle] + [lane.pool for lane in busy]:
            pool.shutdown(wait=False, cancel_futures=True)
        # After a second signal the processes are killed; their runs resume from their last checkpoints next time.
        _end(others, BaseProcess.kill if asked else BaseProcess.terminate)
        for connection in [statuses for _, statuses in idle] + [lane.statuses for lane in busy]:
            connection.close()


def _end(others: list[BaseProcess], how: Callable[[BaseProcess], None]) -> None:
    """End the processes of this study, but not the caller's own."""
    for process in multiprocessing.active_children():
        if process not in others:
            how(process)


def _new_process(context: SpawnContext) -> tuple[ProcessPoolExecutor, Connection]:
    """A pool of one started process, and the connection from which its statuses can be read.

    Each process has a pipe of its own: a shared lock held by a process that is killed would never be released.
    """
    reading, writing = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(1, mp_context=context, initializer=_receive, initargs=(writing,))
    with ctrl_c_handled(signal.SIG_IGN), _script_hidden():  # inherited by the new process: Ctrl-C is for its parent
        pool.submit(int)
    writing.close()  # the process has its own
    return pool, reading


def _received(statuses: Connection) -> Iterator[Status]:
    try:
        while statuses.poll():
            yield statuses.recv()
    except (EOFError, OSError):  # the process is gone, perhaps in the middle of a message
        return


_statuses: Connection | None = None


def _receive(statuses: Connection) -> None:
    """In each process: keep the pipe to report to, and end when the parent is gone."""
    global _statuses
    _statuses = statuses
    end_with_parent()


@contextlib.contextmanager
def _script_hidden() -> Iterator[None]:
    """A context that hides the caller's script: a spawned process would import it, and run it all over again."""
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


def _one(one: Recipe | Measurement, runs: Path, threads: int, device: str) -> End:
    """Like `attempt`; after SIGTERM, from the parent or sent to all processes, it saves the last step and ends."""
    assert _statuses is not None
    try:
        with stop_on_signals(alone=False) as stop:
            return attempt(one, runs, threads, device, _statuses.send, stop)
    except Stopped as stopped:
        return End(f"{stopped}.")


def in_turn(work: Sequence[Recipe | Measurement]) -> list[int]:
    """The order in which work begins, as indices: the first seed of everything comes first, since it tells the most.

    Within a seed the deepest networks come first, so that none is left running alone at the end.
    """

    def turn(i: int) -> tuple[int, float, int]:
        recipe = one if isinstance(one := work[i], Recipe) else one.run
        return one.seed, -spec(recipe.net).depth if recipe else 0.0, i

    return sorted(range(len(work)), key=turn)
