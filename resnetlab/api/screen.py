"""Output for people: tables, progress bars on a terminal or in a notebook, plain lines in a log."""

from __future__ import annotations

import contextlib
import html
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from functools import cache
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from resnetlab.errors import printable

SECONDS_BETWEEN_LINES = 10
QUIET_SECONDS = 20  # without progress, after which a line says so
SECONDS_BETWEEN_UPDATES = 0.2  # of a notebook's bar; more of them only make the browser slow
_silent: ContextVar[bool] = ContextVar("silent", default=False)


class _Answers(Console):
    """Where answers go: a reader that has closed the pipe, such as head, ends the command, as it ends print."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


class _Progress(Console):
    """Where progress goes: if nobody reads it any longer, the work goes on without a word."""

    def on_broken_pipe(self) -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


@cache
def console() -> Console:
    """Standard output, for plain text; wide enough in a log that tables are not cut."""
    return _Answers(width=None if sys.stdout.isatty() else 140, highlight=False, markup=False)


@cache
def errors() -> Console:
    """Standard error, where progress goes, so that standard output holds the answer only.

    In a notebook it is standard output, which has no red background there.
    """
    if in_notebook():
        return _Progress(file=sys.stdout, force_jupyter=False, width=140, highlight=False, markup=False)
    return _Progress(stderr=True, width=None if sys.stderr.isatty() else 140, highlight=False, markup=False)


def has_bars() -> bool:
    """Whether progress is shown as bars, which need no lines beside them."""
    return not _silent.get() and (sys.stderr.isatty() or in_notebook())


@contextlib.contextmanager
def silenced(quiet: bool = True) -> Iterator[None]:
    """If quiet, no line of progress and no bar is shown meanwhile."""
    token = _silent.set(_silent.get() or quiet)
    try:
        yield
    finally:
        _silent.reset(token)


def fits(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> bool:
    """Whether a table of these cells fits the console without breaking any of their lines."""
    widths = [
        max(len(line) for cell in column for line in cell.split("\n")) for column in zip(headers, *rows, strict=True)
    ]
    return sum(widths) + 3 * len(widths) + 1 <= console().width  # each column has a border and two spaces


def print_listed(headers: Sequence[str], rows: Iterable[Sequence[str]], width: int = 0) -> None:
    """Print the rows of a table one below the other, for a terminal so narrow that it would cut numbers and names.

    width: columns of the headers; by default as many as they need.
    """
    width = width or max(map(len, headers)) + 1
    for row in rows:
        for header, cell in zip(headers, row, strict=True):
            if cell:
                text = cell.replace("\n", ", ")
                console().print(f"{header:<{width}}{text}", soft_wrap=True)
        console().print()


def print_table(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    left: Iterable[str],
    *,
    title: str = "",
    least: int | None = None,
    **style: Any,
) -> None:
    """Print a table, the columns `left` aligned to the left; rows one below the other where the table does not fit.

    least: the columns of a console from which on it counts as fitting, although lines are broken. style: rich's.
    """
    from rich.table import Table
    from rich.text import Text

    if not (fits(headers, rows) if least is None else console().width >= least):
        if title:
            console().print(title)
        print_listed(headers, rows)
        return
    table = Table(title=title or None, title_justify="left", **style)
    for header in headers:
        table.add_column(Text(header), justify="left" if header in left else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console().print(table)


def progress_bars(*, shown: bool = True) -> Progress | NotebookBars:
    """Bars on a terminal or in a notebook if shown; nothing in a log, where `say` prints lines."""
    if shown and has_bars() and in_notebook():
        return NotebookBars()
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[words]}", markup=False),
        TimeRemainingColumn(compact=True),
        console=errors(),
        disable=not (shown and has_bars()),
    )


@contextlib.contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """A function to call with the number done and in all: shows a bar on a terminal, or sometimes a line in a log."""
    with progress_bars() as bars:
        task, said = None, time.monotonic()

        def show(done: int, total: int) -> None:
            nonlocal task, said
            if task is None:
                task = bars.add_task(what, total=total, words="")
            bars.update(task, completed=done, total=total, words=f"{done:,} of {total:,}")
            if time.monotonic() - said > SECONDS_BETWEEN_LINES and not has_bars():
                said = time.monotonic()
                say(f"{what}: {done:,} of {total:,}")

        yield show


def say(line: str) -> None:
    """Print a line of progress; it stays one line, whatever the names of files and classes in it are."""
    if not _silent.get():
        errors().print(printable(line), soft_wrap=True)


def say_beside(bars: Progress | NotebookBars, line: str) -> None:
    """Say a line while bars are shown: on a terminal it stands above them; in a notebook the bars say enough."""
    if isinstance(bars, Progress) and not bars.disable:
        bars.console.print(printable(line), soft_wrap=True, markup=False)
    elif not has_bars():
        say(line)


@contextlib.contextmanager
def watching() -> Iterator[Callable[[str], None]]:
    """A function to call at each progress with what happens next; a long time without progress is reported in a line.

    The line comes after QUIET_SECONDS, and then at intervals that double each time.
    """
    quiet = QUIET_SECONDS
    ended, doing, since = threading.Event(), "starting", time.monotonic()

    def sign_of_life(what: str) -> None:
        nonlocal doing, since
        doing, since = what, time.monotonic()

    def watch() -> None:
        said, next_line = since, quiet
        while not ended.wait(quiet / 20):
            if since != said:
                said, next_line = since, quiet
            if (silent := time.monotonic() - since) > next_line:
                next_line *= 2
                why = "; waiting for images or for a long step" if doing == "training" else ""
                # An evaluation tells nothing until its end, however well it goes.
                told = "still evaluating after" if doing == "evaluating" else f"{doing}: no progress for"
                say(f"{told} {silent:.0f} s{why}")

    thread = threading.Thread(target=copy_context().run, args=(watch,), daemon=True)
    thread.start()
    try:
        yield sign_of_life
    finally:
        ended.set()
        thread.join()


def in_notebook() -> bool:
    """Whether this is the kernel of a notebook, which shows HTML; IPython on a terminal is not."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and hasattr(shell, "kernel")


@dataclass
class Bar:
    """A bar, and where it is shown."""

    label: str
    total: float
    done: float
    words: str
    handle: Any = None  # IPython's; None: not shown yet
    updated: float = 0.0  # when, by time.monotonic

    def html(self) -> str:
        """The bar, with what it counts before it and words after it."""
        label, words = html.escape(self.label), html.escape(self.words)
        bar = f'<progress value="{self.done:g}" max="{self.total:g}" aria-label="{label}"></progress>'
        return f'<div style="font-family: monospace">{label} {bar} {words}</div>'


class NotebookBars:
    """The progress bars of a notebook, with the methods of rich.progress.Progress that are used here."""

    def __init__(self) -> None:
        self._bars: list[Bar] = []

    def __enter__(self) -> NotebookBars:
        return self

    def __exit__(self, *_: object) -> None:
        for bar in self._bars:
            if bar.handle:
                self._show(bar)

    def add_task(self, description: str, *, total: float = 100.0, words: str = "") -> TaskID:
        """Add a bar, which is shown from its first update on; return its number."""
        self._bars.append(Bar(description, total, 0.0, words))
        return TaskID(len(self._bars) - 1)

    def update(self, task: TaskID, *, completed: float, total: float | None = None, words: str | None = None) -> None:
        """Say how far a bar is."""
        bar = self._bars[task]
        bar.done, bar.total = completed, bar.total if total is None else total
        bar.words = bar.words if words is None else words
        if time.monotonic() - bar.updated > SECONDS_BETWEEN_UPDATES:
            self._show(bar)

    def remove_task(self, task: TaskID) -> None:
        """Take a bar away."""
        from IPython.display import HTML

        if handle := self._bars[task].handle:
            handle.update(HTML(""))
            self._bars[task].handle = None

    def _show(self, bar: Bar) -> None:
        from IPython.display import HTML, display

        bar.updated = time.monotonic()
        if bar.handle is None:
            bar.handle = display(HTML(bar.html()), display_id=True)
        else:
            bar.handle.update(HTML(bar.html()))
