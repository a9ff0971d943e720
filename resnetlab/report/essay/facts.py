"""What a part of the essay can say, and helpers that find it in a record."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from resnetlab.report.essay.library import Library
from resnetlab.report.essay.values import Book, Number, Place, named, pointer
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


def seeds_of(book: Book, table: int = 0) -> Number:
    """How many seeds the networks of a record have, from the last row of a table."""
    rows: list[Any] = book.at(("tables", table, "rows"))
    return book.cell(table, ("tables", table, "rows", len(rows) - 1), "seeds", ".0f")


def panel_of(book: Book, figure: str, index: int) -> Panel:
    """A panel of a record's figure. Raises LookupError where there is none."""
    for one in book.values["figures"]:
        if one["name"] == figure:
            found = one["panels"][index]
            series = [Series(**s) for s in found["series"]]
            return Panel(**{**found, "title": both(found["title"]), "series": series})
    raise LookupError(f"no figure {figure}")


def series_at(book: Book, line: Place, **changes: Any) -> Series:
    """A line of a record, with another label or colour."""
    return replace(Series(**book.at(line)), **changes)


def deepest_row(book: Book, table: int, kind: str) -> tuple[int, Place]:
    """The depth and the row of the deepest net of a kind."""
    rows: list[list[str]] = book.at(("tables", table, "rows"))
    found = [int(m[1]) for row in rows if (m := re.fullmatch(rf"{kind}-(\d+)", row[0]))]
    if not found:
        raise LookupError(f"no {kind} nets in table {table}")
    return max(found), book.row(table, named(f"{kind}-{max(found)}"))


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
