"""Where each file lies in a tar, and in the tars within a tar: read once from the headers, then kept in a file."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import tarfile
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from resnetlab.data.source import Names
from resnetlab.errors import UserError
from resnetlab.storage import cache_folder, keep_if_possible

FORMAT = "1"
SAY_EVERY = 10_000_000_000  # bytes of a tar

_log = logging.getLogger(__name__)


class Index(NamedTuple):
    """The regular files in a tar, as they lie in it; one in a tar within it is called "TAR/FILE", without ".tar"."""

    names: Names
    starts: np.ndarray  # the first byte of each in the outer tar, int64 N
    sizes: np.ndarray  # int64 N


def index_of(tar: Path) -> Index:
    """Read the index from `TAR.index.safetensors`, or make it, which for ImageNet's takes minutes, and keep it there.

    Where the tar's folder can't be written it is kept in $XDG_CACHE_HOME/resnetlab (~/.cache/resnetlab). An index
    of a tar of another size or time is made anew. Raises UserError for a tar that is none, is cut, or can't be read.
    """
    try:
        status = tar.stat()
    except OSError as error:
        raise UserError(f"{tar}: can't be read ({error.strerror}).") from error
    key = {"format": FORMAT, "name": tar.name, "bytes": str(status.st_size), "time": str(status.st_mtime_ns)}
    places = [tar.with_name(f"{tar.name}.index.safetensors"), _cache(tar)]
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
        found = Names(names())
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


def _cache(tar: Path) -> Path:
    digest = hashlib.sha256(os.fsencode(tar.absolute())).hexdigest()[:16]
    return cache_folder() / f"{tar.name}.{digest}.index.safetensors"


def _load(place: Path, key: dict[str, str], size: int) -> Index | None:
    """The index, if it is there, whole, of this tar, and within it; else None, and it is made anew."""
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
    return Index(Names(content.tobytes(), ends), starts, sizes)
