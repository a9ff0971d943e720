"""Progress bars below the cell of a notebook, in plain HTML, so that no widgets need to be installed."""

from __future__ import annotations

import html
import sys
import time
from dataclasses import dataclass
from typing import Any

from rich.progress import TaskID

SECONDS_BETWEEN_UPDATES = 0.2  # more of them only make the browser slow


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
