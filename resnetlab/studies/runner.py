"""Runs what a study is missing, in one process or several side by side, and keeps the record."""

from __future__ import annotations

import contextlib
import datetime
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext
from pathlib import Path
from types import MappingProxyType

from resnetlab.data.images import Data
from resnetlab.errors import UserError
from resnetlab.nets.zoo import spec
from resnetlab.studies.study import FAILED_RULE, Failure, Outcome, Record, Study
from resnetlab.training.loop import Status, train
from resnetlab.training.metrics import epochs_of
from resnetlab.training.recipe import Recipe
from resnetlab.training.run import (
    Run,
    available_cores,
    check_format,
    disk_errors,
    disk_is_full,
    machine,
    make_run,
    read_json,
)

LONGEST_REASON = 300  # characters
KILLED = "its process was killed, perhaps for want of memory: try fewer --jobs."


@dataclass(frozen=True)
class Event:
    """Run `index` of the plan: how it goes, that it is finished (`done`), or why it `failed`, in one line."""

    index: int
    status: Status | None = None
    done: bool = False
    failed: str = ""


@dataclass(frozen=True)
class End:
    """How a training ended: `failed` is empty or the one line why, `full` that the disk is, `last` its last status."""

    failed: str = ""
    full: bool = False
    last: Status | None = None

    def event(self, index: int) -> Event:
        """As the event of a run. Raises UserError if no other run can be written either."""
        if self.full:
            raise UserError(self.failed)
        return Event(index, done=not self.failed, failed=self.failed)


def run_missing(recipes: tuple[Recipe, ...], runs: Path, *, jobs: int = 1, device: str = "cpu") -> Iterator[Event]:
    """Train each recipe that has no finished run below `runs`; yields how it goes.

    With several jobs the cores are shared out among as many processes. A run that fails, or whose process is
    killed, does not stop the others. Interrupted, every run goes on from its last checkpoint when asked for again.
    Raises UserError for a recipe that can't be, before anything is trained, and for a full disk.
    """
    jobs = max(1, min(jobs, len(recipes)))
    threads = max(1, available_cores() // jobs)
    resolved = resolve(recipes, runs)
    if jobs > 1:
        yield from _side_by_side(recipes, runs, jobs, threads, device)
        return
    for index, run in enumerate(resolved):
        try:
            for status in train(run, device=device, threads=threads):
                yield Event(index, status)
            end = End()
        except Exception as error:
            end = end_of(error, runs)
        yield end.event(index)


def resolve(recipes: tuple[Recipe, ...], runs: Path) -> list[Run]:
    """The recipes as runs; each data set is read once. Raises UserError for what can't be, or can't be written."""
    opened: dict[str, Data] = {}
    resolved = []
    for recipe in recipes:
        run = make_run(recipe, runs, opened.get(recipe.data))
        opened[recipe.data] = run.data
        resolved.append(run)
    with disk_errors(runs):
        runs.mkdir(parents=True, exist_ok=True)
    return resolved


def attempt(
    recipe: Recipe, runs: Path, threads: int, device: str, report: Callable[[Status], object] = lambda _: None
) -> End:
    """Train a recipe in this process, whatever comes of it; it never raises an Exception."""
    status = None
    try:
        for status in train(make_run(recipe, runs), device=device, threads=threads):
            report(status)
    except Exception as error:
        return end_of(error, runs)
    return End(last=status)


def end_of(error: Exception, runs: Path) -> End:
    """An error as the end of a run; the path of the runs' folder is left out of its words."""
    return End(one_line(error).replace(f"{runs}{os.sep}", ""), disk_is_full(error))


def one_line(error: BaseException) -> str:
    """Why something failed, in one line; for what is no UserError also where, since that is a fault of the code."""
    words = " ".join(str(error).split())
    if not isinstance(error, UserError):
        frames = traceback.extract_tb(error.__traceback__)
        where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
        words = f"{type(error).__name__}: {words[:LONGEST_REASON]}{where}"
    return words if len(words) <= LONGEST_REASON else f"{words[:LONGEST_REASON]}..."


@dataclass
class _Lane:
    """A process that trains a run, and then another. Each has a pool to itself, so that it dies for its run alone."""

    pool: ProcessPoolExecutor
    statuses: Connection  # what its process sends
    index: int
    future: Future[End]


def _side_by_side(recipes: tuple[Recipe, ...], runs: Path, jobs: int, threads: int, device: str) -> Iterator[Event]:
    context = multiprocessing.get_context("spawn")  # forking a process that has used torch's threads can hang
    others = multiprocessing.active_children()
    # Long runs first, so that none is left alone at the end; they are taken from the list's end.
    waiting = sorted(range(len(recipes)), key=lambda i: (cost(recipes[i]), -i))
    idle: list[tuple[ProcessPoolExecutor, Connection]] = []
    busy: list[_Lane] = []
    try:
        while waiting or busy:
            while waiting and len(busy) < jobs:
                pool, statuses = idle.pop() if idle else _new_process(context)
                i = waiting.pop()
                try:
                    future = pool.submit(_train_one, recipes[i], runs, threads, device)
                    busy.append(_Lane(pool, statuses, i, future))
                except BrokenProcessPool:  # killed before it had a run
                    yield Event(i, failed=KILLED)
            wait([lane.statuses for lane in busy], timeout=0.2)
            for lane in list(busy):
                ended = lane.future.done()  # asked first: what it had to say before is then there to be read
                yield from (Event(lane.index, status) for status in _received(lane.statuses))
                if not ended:
                    continue
                busy.remove(lane)
                if isinstance(lane.future.exception(), BrokenProcessPool):
                    lane.pool.shutdown(wait=False)
                    lane.statuses.close()
                    yield Event(lane.index, failed=KILLED)
                else:
                    idle.append((lane.pool, lane.statuses))
                    yield lane.future.result().event(lane.index)
        for pool, _ in idle:
            pool.shutdown()
    finally:
        for pool in [pool for pool, _ in idle] + [lane.pool for lane in busy]:
            pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            if process not in others:
                process.terminate()  # what it trained goes on from its last checkpoint next time
        for connection in [statuses for _, statuses in idle] + [lane.statuses for lane in busy]:
            connection.close()


def _new_process(context: SpawnContext) -> tuple[ProcessPoolExecutor, Connection]:
    """A pool of one process that has started, and where its statuses can be read.

    They come through a pipe of its own: a lock that was held by a process that is killed would never be released.
    """
    reading, writing = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(1, mp_context=context, initializer=_receive, initargs=(writing,))
    with _ctrl_c_ignored():  # the process that starts here inherits it: Ctrl-C is the parent's
        pool.submit(int)
    writing.close()  # the process has its own
    return pool, reading


def _received(statuses: Connection) -> Iterator[Status]:
    try:
        while statuses.poll():
            yield statuses.recv()
    except (EOFError, OSError):  # the process is gone, perhaps in the middle of a word
        return


_statuses: Connection | None = None


def _receive(statuses: Connection) -> None:
    """In each process: keep the pipe to report to, and end when the parent is gone."""
    global _statuses
    _statuses = statuses
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


@contextlib.contextmanager
def _ctrl_c_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # where signals can't be set
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _train_one(recipe: Recipe, runs: Path, threads: int, device: str) -> End:
    assert _statuses is not None
    return attempt(recipe, runs, threads, device, _statuses.send)


def cost(recipe: Recipe) -> float:
    """A network's depth, for want of a better measure before it is built."""
    return spec(recipe.net).depth


def outcome(run: Run) -> Outcome:
    """What a finished run ended with. Raises UserError if it is not finished, or its folder is damaged."""
    result = run.result()
    if result is None:
        raise UserError(f"{run.folder}: is not finished.")
    settings = read_json(run.folder / "run.json")
    check_format(run.folder / "run.json", settings)
    return Outcome(run.recipe, result, epochs_of(run.folder), settings["machine"] | {"threads": settings["threads"]})


def failure(recipe: Recipe, reason: str) -> Failure:
    """A failed run in words; where its data lies is left out, as it says nothing to a reader."""
    length = f"{recipe.epochs:g} epochs" if recipe.epochs is not None else f"{recipe.iterations:,} steps"
    words = f"{recipe.data.split(':')[0]}, {length}, batches of {recipe.batch_size}, lr {recipe.lr:g}"
    if recipe.warmup != "none":
        words += f", warm-up {recipe.warmup}"
    return Failure(recipe.net, words, recipe.seed, reason)


def conclude(
    study: Study,
    scale: str,
    data: str | None,
    runs: Path,
    command: str,
    failed: Mapping[int, str] = MappingProxyType({}),
) -> Record:
    """Judge the finished runs of a study; return the record to keep.

    `failed` says why runs of the plan failed, by index; a run that can't be read counts among them.
    """
    plan = study.plan(scale, data)
    outcomes: list[Outcome] = []
    failures: list[Failure] = []
    without: list[Recipe] = []
    for index, run in enumerate(resolve(plan.recipes, runs)):
        try:
            if index in failed:
                raise UserError(failed[index])
            outcomes.append(outcome(run))
        except UserError as error:
            without.append(run.recipe)
            failures.append(failure(run.recipe, end_of(error, runs).failed))
    finding = study.judge(scale, outcomes, without)
    made_on = outcomes[-1].machine if outcomes else machine()
    others = [o for o in outcomes if o.machine != made_on]
    mixed = f" {len(others)} of the runs were made on another machine, version or commit." if others else ""
    return Record(
        study=study.name,
        scale=scale,
        title=study.title,
        claim=study.claim,
        source=study.source,
        method=study.method,
        rule=f"{study.rule} {FAILED_RULE}",
        expected=plan.expected,
        verdict=finding.verdict,
        rows=[asdict(row) for row in finding.rows],
        figures=[asdict(figure) for figure in finding.figures],
        tables=[asdict(table) for table in finding.tables],
        words=finding.words,
        note=plan.note + mixed,
        machine=made_on,
        runs=len(outcomes),
        training_seconds=round(sum(o.result["seconds"] for o in outcomes), 1),
        command=command,
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        failures=[asdict(f) for f in failures],
    )
