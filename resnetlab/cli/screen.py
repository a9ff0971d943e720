"""What people see: tables, progress bars on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
from functools import cache

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


@cache
def console() -> Console:
    """Standard output; wide enough in a log that tables are not cut."""
    return Console(width=None if sys.stdout.isatty() else 140)


@cache
def errors() -> Console:
    """Standard error, where progress goes, so that standard output holds the answer only."""
    return Console(stderr=True, width=None if sys.stderr.isatty() else 140, highlight=False)


def progress_bars() -> Progress:
    """Bars on a terminal; nothing in a log, where `say` prints lines."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[words]}"),
        TimeRemainingColumn(compact=True),
        console=errors(),
        disable=not sys.stderr.isatty(),
    )


def say(line: str) -> None:
    """Print a line of progress."""
    errors().print(line, markup=False)
