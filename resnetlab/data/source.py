"""Sources of encoded images, with their names and labels: files of their own, or parts of larger files."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np


class StringArray(Sequence[str]):
    """A list of texts in one block of bytes; a Python list of them would take four times the memory."""

    def __init__(self, names: Iterable[str] | bytes, ends: np.ndarray | None = None):
        """From texts; or from what `content` and `ends` of another one held."""
        if isinstance(names, bytes):
            assert ends is not None
            self.content, self.ends = names, ends
            return
        content, lengths = bytearray(), array("q")
        for name in names:
            encoded = os.fsencode(name)  # a file's name may be any bytes
            content += encoded
            lengths.append(len(encoded))
        self.content = bytes(content)
        self.ends = np.cumsum(lengths, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, i: int) -> str:  # type: ignore[override]  # no slices
        if not 0 <= i < len(self):
            raise IndexError(i)
        return os.fsdecode(self.content[self.ends[i - 1] if i else 0 : self.ends[i]])


class Source(Protocol):
    """Where encoded images come from; each file, tar or pack of them is one."""

    @property
    def names(self) -> StringArray:
        """The name of each image, "CLASS/FILE"; sources with equal names and sizes are interchangeable."""

    @property
    def labels(self) -> np.ndarray:
        """int32 N."""

    @property
    def sizes(self) -> np.ndarray:
        """Encoded bytes of each, int64 N."""

    def read(self, row: int) -> bytes:
        """The encoded image. Raises OSError if it can't be read."""
        ...

    def place(self, row: int) -> str:
        """Where it lies, for a message."""
        ...

    def file(self, row: int) -> Path | None:
        """The file that it lies in, alone or with others; None where no single file is known."""
        ...


@dataclass(frozen=True)
class FolderFiles:
    """Images that are files of their own, at `folder`/`paths[i]`."""

    folder: Path
    names: StringArray
    labels: np.ndarray
    sizes: np.ndarray
    paths: StringArray | None = None  # where they are not the names

    def read(self, row: int) -> bytes:
        """The file's content."""
        return Path(self.place(row)).read_bytes()

    def place(self, row: int) -> str:
        """The file's path."""
        return os.path.join(self.folder, (self.paths or self.names)[row])

    def file(self, row: int) -> Path | None:
        """The file."""
        return Path(self.place(row))


@dataclass(frozen=True)
class ArchiveFiles:
    """Images that lie one after another in larger files: tars, or the tars of a pack."""

    containers: tuple[Path, ...]
    names: StringArray
    labels: np.ndarray
    sizes: np.ndarray
    which: np.ndarray  # the container of each, int32 N
    starts: np.ndarray  # its first byte there, int64 N

    def read(self, row: int) -> bytes:
        """The bytes of one image; only those are read."""
        path, wanted = self.containers[int(self.which[row])], int(self.sizes[row])
        # Opened each time: some 10 microseconds, and a data set of 1,000 tars holds no 1,000 descriptors open.
        with path.open("rb", buffering=0) as file:
            content = os.pread(file.fileno(), wanted, int(self.starts[row]))
        if len(content) < wanted:
            raise OSError(f"{path} ends within it")
        return content

    def place(self, row: int) -> str:
        """The container's path, and the image's name in it."""
        return f"{self.containers[int(self.which[row])]}: {self.names[row]}"

    def file(self, row: int) -> Path | None:
        """The container."""
        return self.containers[int(self.which[row])]
