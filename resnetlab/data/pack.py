"""Packs: a data set of files as a few large tars and one index, read without unpacking; `packing` writes them.

    DIR/train-00000.tar ...   plain tars of CLASS/FILE, about 1 GiB each
    DIR/test-00000.tar ...
    DIR/index.safetensors     where each image lies; names, labels, checksums; what was packed, and how

The index is written last and renamed into its place. Until then index.safetensors.part stands for it.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from resnetlab.data.files import Files
from resnetlab.data.folder import ALL, DRAWN, SPLIT, write_split
from resnetlab.data.images import Data, Purpose
from resnetlab.data.source import InsideFiles, Names
from resnetlab.errors import UserError, shown

INDEX = "index.safetensors"
FORMAT, DRAWN_FORMAT = 1, 2  # of a pack whose test images are drawn; versions that know 1 alone would keep them so
ARRAYS = {
    "names": np.uint8,  # all of them, end to end
    "ends": np.int64,  # where each name ends
    "labels": np.int32,
    "sizes": np.int64,
    "which": np.int32,  # the shard of each
    "starts": np.int64,  # its first byte there
    "crc32": np.uint32,
}
SHARD = re.compile(r"(train|test)-\d{5}\.tar")


@dataclass(frozen=True)
class Shard:
    """One tar of a pack."""

    file: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Skipped:
    """An image that could not be read and was left out."""

    side: str  # "train" or "test"
    name: str
    reason: str


@dataclass(frozen=True)
class Contents:
    """What a pack says of itself."""

    name: str
    classes: tuple[str, ...]
    train: int  # images; the test images stand after them
    test: int
    shards: tuple[Shard, ...]
    skipped: tuple[Skipped, ...]
    short_side: int | None  # None: the files as they were
    quality: int | None
    source: str  # the fingerprint of what was packed
    resnetlab: str  # the version that packed it
    drawn: bool = False  # whether the test images were drawn to pack them, and written down nowhere else


@dataclass(frozen=True)
class CheckedFiles(InsideFiles):
    """The images of a pack; each is held to its checksum when it is read."""

    crc32: np.ndarray  # uint32 N

    def read(self, row: int) -> bytes:
        """The bytes of one image. Raises OSError if they can't be read or are not those that were packed."""
        content = super().read(row)
        if zlib.crc32(content) != self.crc32[row]:
            raise OSError(f"{self.place(row)}: damaged, its checksum differs")
        return content


def read_pack(_: str, folder: Path, purpose: Purpose = "train", trained_on: Collection[str] = frozenset()) -> Data:
    """Open a pack; `purpose` and `trained_on` are those of `open_data`.

    A pack that was made from folders of classes without a split means what they do: the first training on it writes
    down `resnetlab-split.json` in its folder, and until then it is tested whole. Raises UserError for what is none, for
    an unfinished or damaged one, for a missing shard, and to train on test images alone.
    """
    contents, source = read_index(folder)
    for shard in contents.shards:
        if trouble := _shard_trouble(folder, shard):
            raise UserError(f"{folder / shard.file}: {trouble}; pack the data again or fetch the file again.")
    if purpose == "train" and not contents.train:
        raise UserError(f"{folder}: a pack with test images only; pack training images with them.")
    data = _data(contents, source)
    if not contents.drawn or (folder / SPLIT).exists():
        return data
    if purpose == "train":
        assert isinstance(data.test, Files)
        write_split(folder / SPLIT, sorted(data.test.name(i) for i in range(len(data.test))))
        return data
    if purpose == "read":
        return replace(data, part=DRAWN, drawn=True)
    if data.fingerprint in trained_on:
        return data
    rows = sorted(range(len(source.labels)), key=lambda row: (source.labels[row], source.names[row]))
    every = Files(source, np.array(rows, dtype=np.int64))  # in the order of the folder
    return replace(data, train=every[:0], test=every, part=ALL)


def _data(contents: Contents, source: CheckedFiles) -> Data:
    rows = np.arange(len(source.labels))
    train, test = (Files(source, part) for part in (rows[: contents.train], rows[contents.train :]))
    return Data(contents.name, train, test, contents.classes, "by the pack" if contents.train else "test images only")


def _shard_trouble(folder: Path, shard: Shard) -> str:
    try:
        size = (folder / shard.file).stat().st_size
    except OSError as error:
        return f"this part of the pack can't be read ({error.strerror})"
    return "" if size == shard.bytes else f"has {size:,} bytes, but had {shard.bytes:,} when it was packed"


def verify(folder: Path, progress: Callable[[int, int], None] = lambda done, total: None) -> list[str]:
    """Read every byte of a pack; return what is damaged, a line each. `progress` is told bytes done and in all.

    Raises UserError as `read_pack` does, but a missing or cut shard is damage, with its images uncounted.
    """
    contents, source = read_index(folder)
    total, done, damage = sum(2 * shard.bytes for shard in contents.shards), 0, []
    for number, shard in enumerate(contents.shards):
        path, after = folder / shard.file, done + 2 * shard.bytes
        if trouble := _shard_trouble(folder, shard):
            damage.append(f"{path}: {trouble}")
        else:
            hashed = hashlib.sha256()
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    hashed.update(block)
                    done += len(block)
                    progress(done, total)
            if hashed.hexdigest() != shard.sha256:
                damage.append(f"{path}: damaged, its SHA-256 differs")
            for row in np.flatnonzero(source.which == number).tolist():
                try:
                    source.read(row)
                except OSError as error:
                    damage.append(str(error))
                done += int(source.sizes[row])
                progress(min(done, after), total)
        done = after
        progress(done, total)
    return damage


def part_of(folder: Path) -> Path:
    """What stands for the index of a pack that is not finished."""
    return folder / f"{INDEX}.part"


def read_index(folder: Path) -> tuple[Contents, CheckedFiles]:
    """Read an index and hold every value of it to its range. Raises UserError."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    path = folder / INDEX
    try:
        content = path.read_bytes()
    except OSError as error:
        if part_of(folder).exists():
            raise UserError(f"{folder}: an unfinished pack; repeat the command that packed it.") from error
        raise UserError(f"{folder}: not a pack, {INDEX} can't be read ({error.strerror}).") from error
    try:
        arrays = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        card = json.loads(header["__metadata__"]["resnetlab"])
        if (found := card["index"]["format"]) not in (FORMAT, DRAWN_FORMAT):
            raise UserError(f"{path}: a pack of format {shown(found)}; this version reads {FORMAT} and {DRAWN_FORMAT}.")
        _check(card["sha256"] == _checksum(arrays, card["index"]), "its checksum differs")
        contents = _contents(card["index"])
        return contents, _checked_files(folder, contents, arrays)
    except UserError:
        raise
    except (SafetensorError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        words = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{path}: damaged ({words}); pack the data again or copy the file again.") from error


def _check(right: object, words: str) -> None:
    if not right:
        raise ValueError(words)


def _contents(values: dict[str, Any]) -> Contents:
    """From JSON. Raises ValueError, LookupError or TypeError for other values than `index_bytes` writes."""
    shards = tuple(Shard(**shard) for shard in values["shards"])
    skipped = tuple(Skipped(**image) for image in values["skipped"])
    rest = {k: v for k, v in values.items() if k not in ("format", "shards", "skipped", "classes")}
    contents = Contents(classes=tuple(values["classes"]), shards=shards, skipped=skipped, **rest)
    texts = [contents.name, contents.source, contents.resnetlab, *contents.classes]
    texts += [text for image in skipped for text in (image.side, image.name, image.reason)]
    _check(all(isinstance(text, str) for text in texts), "a text is none")
    for shard in shards:
        _check(isinstance(shard.file, str) and SHARD.fullmatch(shard.file), f"no shard: {shown(shard.file)}")
        _check(type(shard.bytes) is int and 0 <= shard.bytes < 2**62, "a shard's size is out of range")
        _check(isinstance(shard.sha256, str), "a shard's SHA-256 is none")
    _check(len({shard.file for shard in shards}) == len(shards), "a shard is listed twice")
    _check(type(contents.drawn) is bool, "whether its test images were drawn is neither true nor false")
    for number in (contents.short_side, contents.quality):
        _check(number is None or type(number) is int, "how it was made is no number")
    return contents


def _checked_files(folder: Path, contents: Contents, arrays: dict[str, np.ndarray]) -> CheckedFiles:
    """The arrays as a source. Raises ValueError or LookupError for values that lead outside of a shard."""
    for name, kind in ARRAYS.items():
        _check(arrays[name].dtype == kind and arrays[name].ndim == 1, f"{name} is no list of {kind.__name__}")
    ends, labels, sizes, which, starts = (arrays[name] for name in ("ends", "labels", "sizes", "which", "starts"))
    count = len(labels)
    _check(all(len(array) == count for name, array in arrays.items() if name != "names"), "its lists differ in length")
    numbers = type(contents.train) is int and type(contents.test) is int and contents.train >= 0 and contents.test >= 0
    _check(numbers and contents.train + contents.test == count, "its images are miscounted")
    if count:
        _check(ends[0] >= 0 and (ends[1:] >= ends[:-1]).all(), "its names are out of order")
        _check(labels.min() >= 0 and labels.max() < len(contents.classes), "a label has no class")
        _check(which.min() >= 0 and which.max() < len(contents.shards), "an image has no shard")
        room = np.array([shard.bytes for shard in contents.shards], dtype=np.int64)[which] - starts
        _check(starts.min() >= 0 and sizes.min() >= 0 and (sizes <= room).all(), "an image lies outside its shard")
    _check(len(arrays["names"]) == (ends[-1] if count else 0), "its names are cut")
    names = Names(arrays["names"].tobytes(), ends)
    containers = tuple(folder / shard.file for shard in contents.shards)
    return CheckedFiles(containers, names, labels, sizes, which, starts, arrays["crc32"])


def _checksum(arrays: dict[str, np.ndarray], index: dict[str, Any]) -> str:
    hashed = hashlib.sha256(json.dumps(index).encode())
    for name in ARRAYS:
        hashed.update(np.ascontiguousarray(arrays[name]).data)
    return hashed.hexdigest()


def index_bytes(contents: Contents, arrays: dict[str, np.ndarray]) -> bytes:
    from safetensors.numpy import save

    index = {"format": DRAWN_FORMAT if contents.drawn else FORMAT, **asdict(contents)}
    if not contents.drawn:
        del index["drawn"]  # which format 1 doesn't know
    index = json.loads(json.dumps(index))  # as it will be read
    card = {"sha256": _checksum(arrays, index), "index": index}
    return save(arrays, {"resnetlab": json.dumps(card)})  # one key: the order of several is not fixed
