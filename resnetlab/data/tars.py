"""Tars of images: an index of existing ones, read once from the headers and saved; and writing new ones."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import tarfile
import zlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from resnetlab.data.source import ArchiveFiles, StringArray
from resnetlab.errors import UserError, shown
from resnetlab.schema import Whole
from resnetlab.storage import cache_folder, flush_to_disk, keep_if_possible

FORMAT = "1"  # of the index of a tar
SAY_EVERY = 10_000_000_000  # bytes of a tar
# What is noted of the images of tars that are written, as arrays.
ARRAYS = {
    "names": np.uint8,  # all of them, end to end
    "ends": np.int64,  # where each name ends
    "labels": np.int32,
    "sizes": np.int64,
    "which": np.int32,  # the shard of each
    "starts": np.int64,  # its first byte there
    "crc32": np.uint32,
}

_log = logging.getLogger(__name__)


class Index(NamedTuple):
    """The regular files in a tar, as they lie in it; one in a tar within it is called "TAR/FILE", without ".tar"."""

    names: StringArray
    starts: np.ndarray  # the first byte of each in the outer tar, int64 N
    sizes: np.ndarray  # int64 N


def index_of(tar: Path) -> Index:
    """Read the index from `TAR.index.safetensors`, or make it, which takes minutes for ImageNet, and save it there.

    If the tar's folder can't be written, it is saved in $XDG_CACHE_HOME/resnetlab (~/.cache/resnetlab). If the tar's
    size or time has changed, the index is made again. Raises UserError for a file that is not a tar, is truncated, or
    can't be read.
    """
    try:
        status = tar.stat()
    except OSError as error:
        raise UserError(f"{tar}: can't be read ({error.strerror}).") from error
    key = {"format": FORMAT, "name": tar.name, "bytes": str(status.st_size), "time": str(status.st_mtime_ns)}
    mark = hashlib.sha256(os.fsencode(tar.absolute())).hexdigest()[:16]
    cached = cache_folder() / f"{tar.name}.{mark}.index.safetensors"
    places = [tar.with_name(f"{tar.name}.index.safetensors"), cached]
    for place in places:
        if index := _load(place, key, status.st_size):
            return index
    index = make_index(tar)
    tensors = {
        "names": np.frombuffer(index.names.content, dtype=np.uint8),
        "ends": index.names.ends,
        "starts": index.starts,
        "sizes": index.sizes,
    }
    content = save(tensors, {"index": json.dumps(key)})
    for place in places:
        if keep_if_possible(place, content):
            return index
    _log.warning("%s: its index can't be saved, neither in %s nor in %s", tar, places[0].parent, places[1].parent)
    return index


def make_index(tar: Path) -> Index:
    """Read the index from the headers in a tar. Raises UserError as `index_of` does."""
    starts, sizes = array("q"), array("q")

    def names() -> Iterator[str]:
        said = 0
        with tar.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            for name, start, length in _members(file.fileno(), 0, size):
                if start - said >= SAY_EVERY:
                    said = start
                    _log.warning("%s: %d %% indexed", tar, 100 * start // size)
                inner = name.endswith(".tar")
                inside = _members(file.fileno(), start, length) if inner else [("", start, length)]
                for below, first, wanted in inside:
                    starts.append(first)
                    sizes.append(wanted)
                    yield f"{name.removesuffix('.tar')}/{below}" if inner else name

    _log.warning("%s: indexing the headers, once; the index is kept", tar)
    try:
        found = StringArray(names())
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise UserError(f"{tar}: not a complete tar ({error}); check its checksum, or download it again.") from error
    except OSError as error:
        raise UserError(f"{tar}: can't be read ({error.strerror or error}).") from error
    return Index(found, np.array(starts, dtype=np.int64), np.array(sizes, dtype=np.int64))


class _Window(io.RawIOBase):
    """Part of a file, read-only, from byte `start` on; without a buffer, as of each file only the header is wanted."""

    def __init__(self, descriptor: int, start: int, size: int):
        self.descriptor, self.start, self.size, self.at = descriptor, start, size, 0

    def read(self, count: int = -1) -> bytes:
        left = max(0, self.size - self.at)
        content = os.pread(self.descriptor, left if count < 0 else min(count, left), self.start + self.at)
        self.at += len(content)
        return content

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.size}[whence]
        return self.at

    def tell(self) -> int:
        return self.at


def _members(descriptor: int, start: int, size: int) -> Iterator[tuple[str, int, int]]:
    """The regular files of the tar at `start`: name, first byte in the whole file, bytes. Raises tarfile.TarError."""
    window = _Window(descriptor, start, size)
    with tarfile.open(fileobj=window, mode="r:") as tar:
        while member := tar.next():
            tar.members = []  # type: ignore[attr-defined]  # it would keep a gigabyte of ImageNet's
            if member.isreg() and not member.issparse():
                yield member.name.removeprefix("./"), start + member.offset_data, member.size
        # tarfile takes anything after the first header that it doesn't know for the end; the end is a block of zeros.
        window.seek(tar.offset)
        if window.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"it is truncated or damaged at byte {start + tar.offset:,}")


def _load(place: Path, key: dict[str, str], size: int) -> Index | None:
    """The index if it exists, is complete and fits this tar; else None, and it is made again."""
    try:
        with safe_open(place, "numpy") as file:
            if json.loads((file.metadata() or {}).get("index", "null")) != key:
                return None
            content, ends, starts, sizes = (file.get_tensor(name) for name in ("names", "ends", "starts", "sizes"))
    except (OSError, ValueError, SafetensorError):
        return None
    if not (len(ends) == len(starts) == len(sizes) and {ends.dtype, starts.dtype, sizes.dtype} == {np.dtype("int64")}):
        return None
    within = (starts >= 0) & (sizes >= 0) & (sizes <= size) & (starts <= size - sizes)
    ordered = np.diff(ends, prepend=0) >= 0
    if not (within.all() and ordered.all() and (ends[-1] if len(ends) else 0) == len(content)):
        return None
    return Index(StringArray(content.tobytes(), ends), starts, sizes)


@dataclass(frozen=True)
class Shard:
    """One tar of a pack."""

    file: str
    bytes: Whole
    sha256: str

    def trouble(self, folder: Path) -> str:
        """What is wrong with it as far as that shows without reading it, in words; "" if nothing is."""
        try:
            size = (folder / self.file).stat().st_size
        except OSError as error:
            return f"this part of the pack can't be read ({error.strerror})"
        return "" if size == self.bytes else f"has {size:,} bytes, but had {self.bytes:,} when it was packed"

    def check(self, folder: Path) -> None:
        """Raise UserError if `trouble` finds any."""
        if trouble := self.trouble(folder):
            raise UserError(
                f"{folder / self.file}: {trouble}; remove {folder} and pack the data again, or fetch the file again."
            )


@dataclass(frozen=True)
class CheckedFiles(ArchiveFiles):
    """Images written by `TarWriter`; each is compared with its checksum when it is read."""

    crc32: np.ndarray  # uint32 N

    @classmethod
    def of(cls, folder: Path, shards: Sequence[Shard], classes: int, arrays: Mapping[str, np.ndarray]) -> CheckedFiles:
        """From what `TarWriter` noted. Raises ValueError or LookupError for values that lead outside of a shard."""
        for name, kind in ARRAYS.items():
            require(arrays[name].dtype == kind and arrays[name].ndim == 1, f"{name} is not a list of {kind.__name__}")
        ends, labels, sizes, which, starts = (arrays[name] for name in ("ends", "labels", "sizes", "which", "starts"))
        count = len(labels)
        same = all(len(array) == count for name, array in arrays.items() if name != "names")
        require(same, "its lists differ in length")
        if count:
            require(ends[0] >= 0 and (ends[1:] >= ends[:-1]).all(), "its names are out of order")
            require(labels.min() >= 0 and labels.max() < classes, "a label has no class")
            require(which.min() >= 0 and which.max() < len(shards), "an image has no shard")
            room = np.array([shard.bytes for shard in shards], dtype=np.int64)[which] - starts
            require(starts.min() >= 0 and sizes.min() >= 0 and (sizes <= room).all(), "an image lies outside its shard")
        require(len(arrays["names"]) == (ends[-1] if count else 0), "its names are cut")
        names = StringArray(arrays["names"].tobytes(), ends)
        return cls(tuple(folder / s.file for s in shards), names, labels, sizes, which, starts, arrays["crc32"])

    def read(self, row: int) -> bytes:
        """The bytes of one image. Raises OSError if they can't be read or are not those that were packed."""
        content = super().read(row)
        if zlib.crc32(content) != self.crc32[row]:
            raise OSError(f"{self.place(row)}: damaged, its checksum differs")
        return content


def require(right: object, words: str) -> None:
    """Raise ValueError with these words unless the condition holds."""
    if not right:
        raise ValueError(words)


class TarWriter:
    """Writes tars of images one after another, the same bytes each time, and notes where each image went."""

    def __init__(self, folder: Path, shard_bytes: int):
        self.folder, self.shard_bytes = folder, shard_bytes
        self.shards: list[Shard] = []
        self.names = bytearray()
        self.ends, self.sizes, self.starts = array("q"), array("q"), array("q")
        self.labels, self.which, self.crc32 = array("i"), array("i"), array("I")
        self.file: BinaryIO | None = None
        self.size = 0  # of the shard at hand

    def __enter__(self) -> TarWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self.file:
            self.file.close()

    def open(self, side: str) -> None:
        """Begin with the images of this side."""
        self.side, self.number = side, 0

    def add(self, name: str, label: int, content: bytes) -> None:
        """Write an image. Raises UserError for a name that would lead out of the folder it is unpacked into."""
        if name.startswith("/") or ".." in name.split("/"):
            raise UserError(f"{shown(name)}: can't be packed under this name, which leads outside the pack; rename it.")
        member = tarfile.TarInfo(name)  # of user 0, changed at time 0: the same bytes each time
        member.size = len(content)
        header = member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        if self.file and self.size + len(header) + len(content) > self.shard_bytes:
            self.close()
        if not self.file:
            self.path = self.folder / f"{self.side}-{self.number:05d}.tar"
            self.file, self.size, self.hashed = self.path.open("xb"), 0, hashlib.sha256()
            self.number += 1
        self._write(header)
        self.starts.append(self.size)
        self._write(content + bytes(-len(content) % tarfile.BLOCKSIZE))
        self.names += os.fsencode(name)
        self.ends.append(len(self.names))
        self.labels.append(label)
        self.sizes.append(len(content))
        self.which.append(len(self.shards))
        self.crc32.append(zlib.crc32(content))

    def close(self) -> None:
        """End the shard at hand, if there is one."""
        if self.file:
            self._write(bytes(2 * tarfile.BLOCKSIZE))
            self._write(bytes(-self.size % tarfile.RECORDSIZE))
            with self.file as file:
                flush_to_disk(file)
            self.shards.append(Shard(self.path.name, self.size, self.hashed.hexdigest()))
            self.file = None

    def _write(self, content: bytes) -> None:
        assert self.file
        self.file.write(content)
        self.hashed.update(content)
        self.size += len(content)

    def arrays(self) -> dict[str, np.ndarray]:
        """What was noted, by the names and kinds of ARRAYS."""
        return {name: np.frombuffer(getattr(self, name), dtype=kind) for name, kind in ARRAYS.items()}
