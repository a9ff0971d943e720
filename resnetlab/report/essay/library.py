"""The records that the essay reads: of each study the fullest that there is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from resnetlab.report.essay.values import Book
from resnetlab.studies.frame.record import Record

FULLEST = ("paper", "cifar", "weights", "quick")  # scales: images first, and trained here before trained by others
DIGITS = "digits"


@dataclass(frozen=True)
class Library:
    """Records by study, the best first."""

    books: dict[str, list[Book]]

    @classmethod
    def of(cls, own: Sequence[Record], others: Sequence[Record] = ()) -> Library:
        """Of each study: full records before shortened ones, one's own before others', the fullest scale first."""
        ranked = [
            ((-r.fullness, place, FULLEST.index(r.scale)), r) for place, some in ((0, own), (1, others)) for r in some
        ]
        books: dict[str, list[Book]] = {}
        for _, record in sorted(ranked, key=lambda pair: pair[0]):
            books.setdefault(record.study, []).append(Book.of(record))
        return cls(books)

    def best(self, study: str) -> Book:
        """The record of a study to read from. Raises LookupError if there is none."""
        if study not in self.books:
            raise LookupError(f"no record of {study}")
        return self.books[study][0]


def data_of(record: Record) -> str:
    """The kind of data its networks saw, e.g. "cifar10"; the quick scale names none, and has the digits."""
    match = re.search(r"--data (\w+)", record.command)
    return match[1] if match else DIGITS
