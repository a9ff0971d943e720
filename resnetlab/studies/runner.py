"""Runs what a study is missing, in one process or several side by side, and keeps the record."""

from __future__ import annotations

import contextlib
import datetime
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from resnetlab.data.images import Data
from resnetlab.errors import UserError
from resnetlab.nets.zoo import spec
from resnetlab.studies.study import Outcome, Record, Study
from resnetlab.training.loop import Status, train
from resnetlab.training.metrics import epochs_of
from resnetlab.training.recipe import Recipe
from resnetlab.training.run import Run, available_cores, make_run, read_json


@dataclass(frozen=True)
class Event:
    """Run `index` of the plan: how it goes, or, with `done`, that it is finished."""

    index: int
    status: Status | None
    done: bool = False


def run_missing(recipes: tuple[Recipe, ...], runs: Path, *, jobs: int = 1, device: str = "cpu") -> Iterator[Event]:
    """Train each recipe that has no finished run below `runs`; yields how it goes.

    With several jobs the cores are shared out among as many processes. Interrupted, every run goes on from
    its last checkpoint when asked for again. Raises UserError when a run fails.
    """
    jobs = max(1, min(jobs, len(recipes)))
    threads = max(1, available_cores() // jobs)
    if jobs == 1:
        for index, run in enumerate(_resolved(recipes, runs)):
            for status in train(run, device=device, threads=threads):
                yield Event(index, status)
            yield Event(index, None, done=True)
        return
    yield from _side_by_side(recipes, runs, jobs, threads, device)


def _resolved(recipes: tuple[Recipe, ...], runs: Path) -> Iterator[Run]:
    """The recipes as runs; each data set is read once."""
    opened: dict[str, Data] = {}
    for recipe in recipes:
        run = make_run(recipe, runs, opened.get(recipe.data))
        opened[recipe.data] = run.data
        yield run


def _side_by_side(recipes: tuple[Recipe, ...], runs: Path, jobs: int, threads: int, device: str) -> Iterator[Event]:
    context = multiprocessing.get_context("spawn")  # forking a process that has used torch's threads can hang
    others = multiprocessing.active_children()
    events: Any = context.Queue()
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_receive, initargs=(events,))
    try:
        # Long runs first, so that none is left alone at the end.
        order = sorted(range(len(recipes)), key=lambda i: -_cost(recipes[i]))
        with _ctrl_c_ignored():  # the processes that start here inherit it: Ctrl-C is the parent's
            futures: dict[int, Future[None]] = {
                i: pool.submit(_train_one, i, recipes[i], runs, threads, device) for i in order
            }
        waiting = set(futures)
        while waiting:
            try:
                event: Event = events.get(timeout=0.2)
                waiting -= {event.index} if event.done else set()
                yield event
            except queue.Empty:
                for i in sorted(waiting):
                    if futures[i].done():
                        futures[i].result()  # raises what the run failed with
        pool.shutdown()
    except BrokenProcessPool as error:
        raise UserError("a training process was killed, perhaps for want of memory: try fewer --jobs.") from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            if process not in others:
                process.terminate()  # what it trained goes on from its last checkpoint next time


_events: Any = None


def _receive(events: Any) -> None:
    """In each process: keep the queue to report to, and end when the parent is gone."""
    global _events
    _events = events
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


def _train_one(index: int, recipe: Recipe, runs: Path, threads: int, device: str) -> None:
    for status in train(make_run(recipe, runs), device=device, threads=threads):
        _events.put(Event(index, status))
    _events.put(Event(index, None, done=True))


def _cost(recipe: Recipe) -> float:
    """A network's depth, for want of a better measure before it is built."""
    return spec(recipe.net).depth


def outcome(run: Run) -> Outcome:
    """What a finished run ended with."""
    result = run.result()
    assert result is not None, f"{run.folder} is not finished"
    settings = read_json(run.folder / "run.json")
    return Outcome(run.recipe, result, epochs_of(run.folder), settings["machine"] | {"threads": settings["threads"]})


def conclude(study: Study, scale: str, data: str | None, runs: Path, command: str) -> Record:
    """Judge the finished runs of a study; return the record to keep."""
    plan = study.plan(scale, data)
    outcomes = [outcome(run) for run in _resolved(plan.recipes, runs)]
    finding = study.judge(scale, outcomes)
    others = [o for o in outcomes if o.machine != outcomes[-1].machine]
    mixed = f" {len(others)} of the runs were made on another machine, version or commit." if others else ""
    return Record(
        study=study.name,
        scale=scale,
        title=study.title,
        claim=study.claim,
        source=study.source,
        method=study.method,
        rule=study.rule,
        expected=plan.expected,
        verdict=finding.verdict,
        rows=[asdict(row) for row in finding.rows],
        figures=[asdict(figure) for figure in finding.figures],
        tables=[asdict(table) for table in finding.tables],
        words=finding.words,
        note=plan.note + mixed,
        machine=outcomes[-1].machine,
        runs=len(outcomes),
        training_seconds=round(sum(o.result["seconds"] for o in outcomes), 1),
        command=command,
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
