"""The test images that a split file names, as they are now: some may have been renamed, others are gone."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple

from resnetlab.errors import shown, some
from resnetlab.paths import one_form


class Standing(NamedTuple):
    """The test images of a split as they are now; names are those of `text`."""

    test: frozenset[str]  # those that are there
    renamed: dict[str, str]  # the renamed ones among them, with their names in the file
    gone: list[str]  # those that the file names and that are missing

    def words(self, of: int) -> list[str]:
        """Lines about renamed and missing images; of: the number of test images that the file names."""
        lines = []
        if self.renamed:
            pairs = some(_both(was, now) for now, was in sorted(self.renamed.items()))
            lines.append(f"renamed, and still test images: {len(self.renamed):,} of its {of:,} images, {pairs}")
        if self.gone:
            names = some(map(shown, self.gone))
            count = f"{len(self.gone):,} of its {of:,} test images"
            lines.append(f"missing: {count}, {names} (put them back, or delete the file to draw a new split)")
        return lines


def text(name: str) -> str:
    """A file's name as it stands in a split file, which is the same text in every locale."""
    return os.fsencode(name).decode("utf-8", "surrogateescape")


def standing(written: frozenset[str], names: Iterable[str]) -> Standing:
    """Find the test images that the file names among `names`, even if their extension or normal form has changed.

    An image saved in another format keeps its name up to the extension, and one copied via a Mac may change the
    encoding of its accents: it is the same test image, on which earlier runs have not trained.
    """
    names = [text(name) for name in names] if written else []
    there = written.intersection(names)
    if len(there) == len(written):
        return Standing(there, {}, [])
    kept = {_stem(name) for name in there}
    missing = {_stem(name): name for name in sorted(written - there) if _stem(name) not in kept}
    renamed = {name: missing[_stem(name)] for name in names if name not in there and _stem(name) in missing}
    found = {_stem(name) for name in renamed}
    return Standing(
        there | renamed.keys(),
        renamed,
        [name for name in sorted(written - there) if _stem(name) in missing and _stem(name) not in found],
    )


def _stem(name: str) -> str:
    return one_form(os.path.splitext(name)[0])


def _both(was: str, now: str) -> str:
    """Two names, with escapes where they would look the same."""
    show = ascii if one_form(was) == one_form(now) else shown
    return f"{show(was)} is now {show(now)}"
