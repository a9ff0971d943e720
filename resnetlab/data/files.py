"""Encoded images that are read one at a time: some rows of a source, in an order."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from resnetlab.data.contents import content_marks
from resnetlab.data.source import Source


@dataclass(frozen=True)
class Files:
    """Labelled, encoded images, in an order: rows of a source."""

    source: Source
    rows: np.ndarray  # int64 N

    @classmethod
    def all_of(cls, source: Source) -> Files:
        """Every image of a source."""
        return cls(source, np.arange(len(source.names)))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Tensor | slice) -> Files:
        return Files(self.source, self.rows[index if isinstance(index, slice) else index.cpu().numpy()])

    @cached_property
    def labels(self) -> Tensor:
        """int64 N."""
        return torch.from_numpy(self.source.labels[self.rows].astype(np.int64))

    def name(self, i: int) -> str:
        """The name of the i-th image: "CLASS/FILE"."""
        return self.source.names[int(self.rows[i])]

    def place(self, i: int) -> str:
        """The place of the i-th image, for a message."""
        return self.source.place(int(self.rows[i]))

    def read(self, i: int) -> bytes:
        """The i-th image, encoded. Raises OSError if it can't be read."""
        return self.source.read(int(self.rows[i]))

    def digest_into(self, hashed: Any) -> None:
        """Feed names, sizes and labels to a hash of hashlib; they stand for the contents, which are too much to read.

        For formats whose size does not depend on the content, a hash of that is added (`content_marks`).
        """
        names, sizes, labels = self.source.names, self.source.sizes, self.source.labels
        marks = content_marks(self.source, self.rows.tolist())
        for row in self.rows.tolist():
            mark = f"\0{marks[row]}" if row in marks else ""
            hashed.update(os.fsencode(f"{names[row]}\0{sizes[row]}\0{labels[row]}{mark}\n"))


def written_since(files: Files, when: float) -> int:
    """The number of the images' files that were written after that time, in seconds since 1970."""
    count, before = 0, None
    for row in files.rows.tolist():
        path = files.source.file(row)
        if path and path != before:  # many images of a pack lie in one file
            with contextlib.suppress(OSError):
                count += path.stat().st_mtime > when
        before = path
    return count
