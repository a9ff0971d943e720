"""The records that the essay reads, what a part of it can say, and helpers that find that in a record."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from resnetlab.report.essay.values import Book, Number, Place, pointer
from resnetlab.studies.figures.figure import Panel, Series
from resnetlab.studies.frame.record import Record

FULLEST = ("paper", "cifar", "weights", "quick")  # scales: images first, and trained here before trained by others


@dataclass(frozen=True)
class Library:
    """Records by study, the best first."""

    books: dict[str, list[Book]]

    @classmethod
    def of(cls, own: Sequence[Book], others: Sequence[Book] = ()) -> Library:
        """Sort the records of each study: full ones before shortened ones, one's own first, then by scale."""

        def rank(entry: tuple[int, Book]) -> tuple[int, int, int]:
            whose, book = entry
            return -book.record.fullness, whose, FULLEST.index(book.record.scale)

        books: dict[str, list[Book]] = {}
        for _, book in sorted([*((0, book) for book in own), *((1, book) for book in others)], key=rank):
            books.setdefault(book.record.study, []).append(book)
        return cls(books)

    @property
    def records(self) -> list[Record]:
        """The best record of each study."""
        return [books[0].record for books in self.books.values()]

    def best(self, study: str) -> Book:
        """The record of a study to judge by. Raises LookupError if there is none."""
        if study not in self.books:
            raise LookupError(f"no record of {study}")
        return self.books[study][0]

    def pictured(self, study: str) -> Book:
        """The record of a study to draw: one seed on larger images shows more than many on digits, and says so.

        Shorter runs never stand before whole ones. Raises LookupError if there is none.
        """
        best = self.best(study)
        whole = [book for book in self.books[study] if book.record.whole_runs and book.elsewhere == best.elsewhere]
        return min(whole, key=lambda book: FULLEST.index(book.record.scale), default=best)

    def next_best(self) -> Library:
        """The library without the best record of each study that has others. Raises LookupError if none has."""
        if all(len(books) == 1 for books in self.books.values()):
            raise LookupError("no other records")
        return Library({study: books[1:] or books for study, books in self.books.items()})


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
    return Panel.of(book.figure(figure)[1]["panels"][index])


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
