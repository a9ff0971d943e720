"""The records that the essay reads: the fullest one of each study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from resnetlab.report.essay.values import Book
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
