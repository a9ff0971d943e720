"""Makes packs: a data set of files into a few tars and an index, whole or not at all, the same bytes each time."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import os
import tarfile
import zlib
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

import resnetlab
from resnetlab.data import decoding
from resnetlab.data.files import Files
from resnetlab.data.images import Data
from resnetlab.data.pack import ARRAYS, INDEX, SHARD, Contents, Shard, Skipped, index_bytes, part_of, read_index
from resnetlab.data.understood import Understood
from resnetlab.data.workers import KILLED, check_workers, over_images
from resnetlab.errors import UserError, check_choice, shown
from resnetlab.storage import disk_errors, flush_to_disk, try_lock

SHARD_BYTES = 1 << 30
UNREADABLE = ("error", "skip")
_BLOCK = 512  # of a tar


def pack(
    data: Data,
    folder: Path,
    *,
    short_side: int | None = None,
    quality: int = 90,
    unreadable: str = "error",
    workers: int | None = None,
    told: Callable[[str], object] = lambda line: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    shard_bytes: int = SHARD_BYTES,
) -> tuple[Contents, bool]:
    """Write the images of `data` as a pack; return what is in it, and whether it was there before.

    The files go in as they are and are not decoded. With `short_side`, pixels, every image is decoded, and one whose
    shorter side is longer becomes a JPEG of that size and of `quality`, 1 to 95, upright, 4:2:0; the others go in as
    they are. The same input gives the same bytes, with any number of `workers`. `told` is called with a line that says
    what is packed, before it is; `progress` with images done and in all.

    Raises UserError for data in memory, for a folder that holds anything but the same pack or an unfinished one, for
    an image that can't be read unless `unreadable` is "skip", for a full disk. What was written is removed then.
    """
    if not isinstance(data.train, Files) or not isinstance(data.test, Files):
        raise UserError(f"{data.name} is loaded into memory; only data sets of image files can be packed.")
    check_choice("unreadable", unreadable, UNREADABLE)
    if short_side is not None and not 16 <= short_side <= 4096:
        raise UserError(f"short_side={shown(short_side)} must be 16 to 4096 pixels.")
    if not 1 <= quality <= 95:
        raise UserError(f"quality={shown(quality)} must be 1 to 95.")
    workers = check_workers(workers)
    told(str(Understood.of(data)))
    how_good = quality if short_side else None
    if (folder / INDEX).exists():
        there = read_index(folder)[0]
        asked = (short_side, how_good, data.fingerprint)
        if (there.short_side, there.quality, there.source) != asked or (there.skipped and unreadable == "error"):
            raise UserError(f"{folder}: holds another pack, of {there.name}; choose another folder or move it away.")
        return there, True
    prepare = functools.partial(_prepare, short_side=short_side, quality=quality)
    count = len(data.train) + len(data.test)
    outcome = "; what was written was removed. Make room or choose another folder, then repeat the command."
    with disk_errors(folder, outcome), _started(folder) as index, _Writer(folder, shard_bytes) as writer:
        skipped: list[Skipped] = []
        written: list[int] = []
        for side, files in (("train", data.train), ("test", data.test)):
            taken = {files.name(i) for i in range(len(files))} if short_side else set()
            before, done = len(writer.labels), len(data.train) if files is data.test else 0
            writer.open(side)
            with contextlib.closing(over_images(prepare, files, workers)) as results:
                for i, result in enumerate(results):
                    content, anew, trouble = result or _Prepared(b"", False, KILLED)
                    name = files.name(i)
                    if trouble and unreadable == "error":
                        raise UserError(
                            f"{files.place(i)}: {trouble}. Repair or remove it, or skip such images with "
                            "--unreadable skip."
                        )
                    if trouble:
                        skipped.append(Skipped(side, name, trouble))
                    else:
                        writer.add(_jpeg_name(name, taken) if anew else name, int(files.labels[i]), content)
                    progress(done + i + 1, count)
            writer.close()
            written.append(len(writer.labels) - before)
        if any(len(files) and not count for files, count in zip((data.train, data.test), written, strict=True)):
            raise UserError(
                f"{data.name}: none of its training images or none of its test images can be read; nothing was packed."
            )
        train, test = written
        shards, version = tuple(writer.shards), resnetlab.__version__
        contents = Contents(
            data.name,
            data.classes,
            train,
            test,
            shards,
            tuple(skipped),
            short_side,
            how_good,
            data.fingerprint,
            version,
            data.drawn,
        )
        index.write(index_bytes(contents, writer.arrays()))
        flush_to_disk(index)
        part_of(folder).replace(folder / INDEX)
        return contents, False


class _Prepared(NamedTuple):
    """An image as it goes into the pack, whether it was encoded anew, and what is wrong with it."""

    content: bytes
    anew: bool
    trouble: str


def _prepare(files: Files, i: int, *, short_side: int | None, quality: int) -> _Prepared:
    try:
        content = files.read(i)
        if len(content) != files.source.sizes[files.rows[i]]:
            return _Prepared(b"", False, "has changed since packing began")
        if short_side is None:
            return _Prepared(content, False, "")
        header = decoding.read_header(content)
        if min(header.height, header.width) <= short_side:
            decoding.decode(content)
            return _Prepared(content, False, "")
        return _Prepared(encode_jpeg(decoding.decode_resized(content, short_side), quality), True, "")
    except decoding.Unreadable as error:
        return _Prepared(b"", False, str(error))
    except OSError as error:
        return _Prepared(b"", False, error.strerror or str(error))
    except MemoryError:
        return _Prepared(b"", False, "does not fit into memory")


def encode_jpeg(pixels: np.ndarray, quality: int) -> bytes:
    """A JPEG, 4:2:0, of uint8 H W 3."""
    from PIL import Image

    made = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(made, "JPEG", quality=quality, subsampling="4:2:0")
    return made.getvalue()


def _jpeg_name(name: str, taken: set[str]) -> str:
    """What an image is called that is a JPEG now: x.jpg for x.png, or x.png.jpg where there is an x.jpg too."""
    stem, extension = os.path.splitext(name)
    if extension.lower() in (".jpg", ".jpeg"):
        return name
    new = f"{stem}.jpg"
    while new in taken:
        name = new = f"{name}.jpg"
    taken.add(new)
    return new


@contextlib.contextmanager
def _started(folder: Path) -> Iterator[BinaryIO]:
    """Hold the folder for a new pack, without what an unfinished one left; yield the index's .part.

    If the pack is not finished after all, what was written is removed. Raises UserError for a folder with other files
    or in the hands of another process, and for a full disk.
    """
    ours = False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not part_of(folder).exists() and (other := next(folder.iterdir(), None)):
            raise UserError(f"{folder}: is not empty, it holds {shown(other.name)}; choose another folder.")
        with part_of(folder).open("ab") as index:
            if not try_lock(index):
                raise UserError(f"{folder}: another process is packing into it; wait for it or stop it.")
            for path in sorted(folder.iterdir()):
                if path != part_of(folder) and not SHARD.fullmatch(path.name):  # a finished index, too
                    raise UserError(f"{folder}: holds {shown(path.name)}, which is not part of an unfinished pack.")
            ours = True
            _remove_shards(folder)
            index.truncate(0)
            yield index
    except BaseException:
        if ours and not (folder / INDEX).exists():
            with contextlib.suppress(OSError):
                _remove_shards(folder)
                part_of(folder).unlink()
        raise


def _remove_shards(folder: Path) -> None:
    for path in folder.iterdir():
        if SHARD.fullmatch(path.name):
            path.unlink()


class _Writer:
    """Writes shards one after another, and notes where each image went."""

    def __init__(self, folder: Path, shard_bytes: int):
        self.folder, self.shard_bytes = folder, shard_bytes
        self.shards: list[Shard] = []
        self.names = bytearray()
        self.ends, self.sizes, self.starts = array("q"), array("q"), array("q")
        self.labels, self.which, self.crc32 = array("i"), array("i"), array("I")
        self.file: BinaryIO | None = None
        self.size = 0  # of the shard at hand

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        if self.file:
            self.file.close()

    def open(self, side: str) -> None:
        """Go on with images of this side."""
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
        self._write(content + bytes(-len(content) % _BLOCK))
        self.names += os.fsencode(name)
        self.ends.append(len(self.names))
        self.labels.append(label)
        self.sizes.append(len(content))
        self.which.append(len(self.shards))
        self.crc32.append(zlib.crc32(content))

    def close(self) -> None:
        """End the shard at hand, if there is one."""
        if self.file:
            self._write(bytes(2 * _BLOCK))
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
        """What the index holds."""
        return {name: np.frombuffer(getattr(self, name), dtype=kind) for name, kind in ARRAYS.items()}
