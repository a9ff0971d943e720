"""What a part of the essay can say, and helpers that find it in a record."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from resnetlab.report.essay.library import Library
from resnetlab.report.essay.values import Book, Number, Place, pointer
from resnetlab.studies.figures.figure import Panel, Series
from resnetlab.studies.frame.text import both

LOST = 5.0  # points of error beyond which a network counts as worse in the text


@dataclass(frozen=True)
class Facts:
    """What a part of the essay can say."""

    book: Book
    values: dict[str, Any]
    fits: bool = True  # whether the measurements agree with the part's sentence; else the study's own answer is shown
    panels: tuple[Panel, ...] = ()
    further: tuple[str, ...] = ()  # texts that are shown only where they apply
    also: tuple[str, ...] = ()  # other studies that values were taken from
    data: dict[str, Any] = field(default_factory=dict)  # for the part's script


def seeds_of(book: Book) -> Number:
    """How many seeds the networks of a record have, from the last row of its first table."""
    return book.cell(0, [*book.rows(0)][-1], "seeds", ".0f")


def panel_of(book: Book, figure: str, index: int) -> Panel:
    """A panel of a record's figure. Raises LookupError where there is none."""
    found = book.figure(figure)[1]["panels"][index]
    series = [Series(**s) for s in found["series"]]
    return Panel(**{**found, "title": both(found["title"]), "series": series})


def series_at(book: Book, line: Place, **changes: Any) -> Series:
    """A line of a record, with another label or colour."""
    return replace(Series(**book.at(line)), **changes)


def deepest_row(book: Book, kind: str) -> tuple[int, Place]:
    """The depth and the row, in the first table, of the deepest net of a kind."""
    rows = book.rows(0).items()
    found = {int(m[1]): place for place, row in rows if (m := re.fullmatch(rf"{kind}-(\d+)", row[0]))}
    if not found:
        raise LookupError(f"no {kind} nets in the first table")
    return max(found), found[max(found)]


def points(book: Book, indexes: Sequence[Any], start: Place) -> list[dict[str, Any]]:
    """The points of some lines, in order of x, each with its place."""
    found = []
    for i in indexes:
        s = book.at((*start, i))
        for k, x in enumerate(s["x"]):
            place = pointer((*start, i, "mean", k))
            found.append({"x": x, "mean": s["mean"][k], "low": s["low"][k], "high": s["high"][k], "at": place})
    return sorted(found, key=lambda point: point["x"])


Gather = Callable[[Library], Facts]
