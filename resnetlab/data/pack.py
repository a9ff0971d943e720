"""Packs: a data set of files as a few large tars and an index; made completely or not at all, read without unpacking.

    DIR/train-00000.tar ...   plain tars of CLASS/FILE, about 1 GiB each
    DIR/test-00000.tar ...
    DIR/index.safetensors     the place of each image; names, labels, checksums; what was packed, and how

The index is written last, as index.safetensors.part, and then renamed. The same data gives the same bytes.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import itertools
import json
import os
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

import resnetlab
from resnetlab.data import decoding
from resnetlab.data.files import Files
from resnetlab.data.folder import ALL, DRAWN, read_split, write_split
from resnetlab.data.images import Data, Purpose
from resnetlab.data.standing import text
from resnetlab.data.tars import ARRAYS, CheckedFiles, Shard, TarWriter, require
from resnetlab.data.understood import Understood
from resnetlab.data.walk import SPLIT
from resnetlab.data.workers import KILLED, check_workers, over_images
from resnetlab.errors import UserError, check_choice, shown
from resnetlab.schema import Whole, trouble
from resnetlab.storage import content_of, disk_errors, flush_to_disk, is_still, try_lock

INDEX = "index.safetensors"
PART = f"{INDEX}.part"  # marks an unfinished pack
FORMAT, DRAWN_FORMAT = 1, 2  # 2: the test images were drawn for packing, which older versions would take as a split
SHARD = re.compile(r"(train|test)-\d{5}\.tar")
SHARD_BYTES = 1 << 30
UNREADABLE = ("error", "skip")


@dataclass(frozen=True)
class Skipped:
    """An image that could not be read and was left out."""

    side: str  # "train" or "test"
    name: str
    reason: str


@dataclass(frozen=True)
class Contents:
    """The contents of a pack, as its index states them."""

    name: str
    classes: tuple[str, ...]
    train: Whole  # number of training images, which precede the test images
    test: Whole
    shards: tuple[Shard, ...]
    skipped: tuple[Skipped, ...]
    short_side: int | None  # None: the files as they were
    quality: int | None
    source: str  # the fingerprint of what was packed
    resnetlab: str  # the version that packed it
    drawn: bool = False  # whether the test images were drawn for packing, and not saved elsewhere


def read_pack(_: str, folder: Path, purpose: Purpose = "train", trained_on: Collection[str] = frozenset()) -> Data:
    """Open a pack; `purpose` and `trained_on` are those of `open_data`.

    A pack made from folders of classes without a split behaves as they do: the first training on it saves
    `resnetlab-split.json` in its folder, and until then it is tested as a whole. Raises UserError for a folder that is
    not a pack, an unfinished or damaged pack, a missing shard, another split, and for training on test images alone.
    """
    contents, source = read_index(folder)
    for shard in contents.shards:
        shard.check(folder)
    if purpose == "train" and not contents.train:
        raise UserError(f"{folder}: a pack with test images only; pack training images with them.")
    data = _data(contents, source)
    if not contents.drawn:
        return data
    assert isinstance(data.test, Files)
    tested = frozenset(text(data.test.name(i)) for i in range(len(data.test)))
    if (stated := read_split(folder / SPLIT)) and stated != tested:
        raise UserError(f"{folder / SPLIT}: names other test images than the pack; delete it, or pack the data anew.")
    if purpose == "train" and not stated:
        write_split(folder / SPLIT, sorted(tested))
    if purpose == "train" or stated:
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


def verify(folder: Path, progress: Callable[[int, int], None] = lambda done, total: None) -> list[str]:
    """Read every byte of a pack; return lines about damage. `progress` gets the bytes done and in all.

    Raises UserError as `read_pack` does, except that a missing or truncated shard is reported as one line of damage.
    """
    contents, source = read_index(folder)
    total, done, damage = sum(2 * shard.bytes for shard in contents.shards), 0, []
    for number, shard in enumerate(contents.shards):
        path, after = folder / shard.file, done + 2 * shard.bytes
        if words := shard.trouble(folder):
            damage.append(f"{path}: {words}")
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


def read_index(folder: Path) -> tuple[Contents, CheckedFiles]:
    """Read an index and check the range of every value. Raises UserError."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    path = folder / INDEX
    try:
        content = content_of(path)
    except OSError as error:
        if (folder / PART).exists():
            raise UserError(f"{folder}: an unfinished pack; repeat the command that packed it.") from error
        raise UserError(f"{folder}: not a pack, {INDEX} can't be read ({error.strerror}).") from error
    try:
        arrays = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        card = json.loads(header["__metadata__"]["resnetlab"])
        if (found := card["index"]["format"]) not in (FORMAT, DRAWN_FORMAT):
            raise UserError(f"{path}: a pack of format {shown(found)}; this version reads {FORMAT} and {DRAWN_FORMAT}.")
        require(card["sha256"] == _checksum(arrays, card["index"]), "its checksum differs")
        contents = _contents(card["index"])
        require(contents.train + contents.test == len(arrays["labels"]), "its images are miscounted")
        return contents, CheckedFiles.of(folder, contents.shards, len(contents.classes), arrays)
    except UserError:
        raise
    except (SafetensorError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        words = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(
            f"{path}: damaged ({words}); remove {folder} and pack the data again, or copy the file again."
        ) from error


def _contents(values: dict[str, Any]) -> Contents:
    """From JSON. Raises ValueError, LookupError or TypeError for other values than `index_bytes` writes."""
    stated = {name: value for name, value in values.items() if name != "format"}
    if wrong := trouble(stated, Contents):
        raise ValueError(wrong)
    shards = tuple(Shard(**shard) for shard in stated["shards"])
    for shard in shards:
        require(SHARD.fullmatch(shard.file), f"no shard: {shown(shard.file)}")
    require(len({shard.file for shard in shards}) == len(shards), "a shard is listed twice")
    skipped = tuple(Skipped(**image) for image in stated["skipped"])
    return Contents(**stated | {"classes": tuple(stated["classes"]), "shards": shards, "skipped": skipped})


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

    Files are copied unchanged, without decoding. With `short_side`, in pixels, every image is decoded, and one with a
    longer short side becomes a JPEG of that size and of `quality`, 1 to 95, upright, 4:2:0; the others are copied
    unchanged. The same input gives the same bytes, with any number of `workers`. `told` is called with a line that says
    what is packed, before the work; `progress` with images done and in all.

    Raises UserError for data in memory, for a folder that holds anything but the same pack or an unfinished one, for
    an unreadable image unless `unreadable` is "skip", and for a full disk; then what was written is removed.
    """
    if not isinstance(data.train, Files) or not isinstance(data.test, Files):
        raise UserError(f"{data.title} is loaded into memory; only data sets of image files can be packed.")
    how = _How(short_side, quality, unreadable, check_workers(workers))
    told(str(Understood.of(data)))
    if (folder / INDEX).exists():
        return _same_pack(folder, data, how), True
    sides = {"train": data.train, "test": data.test}
    count, done = len(data.train) + len(data.test), itertools.count(1)
    outcome = "; what was written was removed. Make room or choose another folder, then repeat the command."
    with disk_errors(folder, outcome), _started(folder) as index, TarWriter(folder, shard_bytes) as writer:
        skipped = {
            side: _write_side(writer, side, files, how, lambda: progress(next(done), count))
            for side, files in sides.items()
        }
        train, test = (len(files) - len(skipped[side]) for side, files in sides.items())
        if (data.train and not train) or (data.test and not test):
            raise UserError(
                f"{data.title}: none of its training images or none of its test images can be read; nothing was packed."
            )
        shards, left_out = tuple(writer.shards), (*skipped["train"], *skipped["test"])
        source, version = data.fingerprint, resnetlab.__version__
        contents = Contents(
            data.name, data.classes, train, test, shards, left_out, short_side, how.encoded, source, version, data.drawn
        )
        index.write(index_bytes(contents, writer.arrays()))
        flush_to_disk(index)
        (folder / PART).replace(folder / INDEX)
        return contents, False


@dataclass(frozen=True)
class _How:
    """How images are packed, as `pack` is asked to. Raises UserError for what can't be."""

    short_side: int | None
    quality: int
    unreadable: str
    workers: int

    def __post_init__(self) -> None:
        check_choice("unreadable", self.unreadable, UNREADABLE)
        if self.short_side is not None and not 16 <= self.short_side <= 4096:
            raise UserError(f"short_side={shown(self.short_side)} must be 16 to 4096 pixels.")
        if not 1 <= self.quality <= 95:
            raise UserError(f"quality={shown(self.quality)} must be 1 to 95.")

    @property
    def encoded(self) -> int | None:
        """The quality, where images are encoded again."""
        return self.quality if self.short_side else None


def _same_pack(folder: Path, data: Data, how: _How) -> Contents:
    """The contents of the existing pack. Raises UserError unless it was made from this data with these options."""
    there = read_index(folder)[0]
    for shard in there.shards:
        shard.check(folder)
    asked = (how.short_side, how.encoded, data.fingerprint)
    if (there.short_side, there.quality, there.source) != asked or (there.skipped and how.unreadable == "error"):
        what = f"holds another pack, of {there.name}: other images or options"
        raise UserError(f"{folder}: {what}; choose another folder or move it away.")
    return there


def _write_side(writer: TarWriter, side: str, files: Files, how: _How, step: Callable[[], None]) -> list[Skipped]:
    """Write the training or the test images; return those left out. `step` is called after each image."""
    skipped: list[Skipped] = []
    taken = {files.name(i) for i in range(len(files))} if how.short_side else set()
    prepare = functools.partial(_prepare, short_side=how.short_side, quality=how.quality)
    writer.open(side)
    with contextlib.closing(over_images(prepare, files, how.workers)) as results:
        for i, result in enumerate(results):
            content, anew, trouble = result or _Prepared(b"", False, KILLED)
            name = files.name(i)
            if trouble and how.unreadable == "error":
                raise UserError(
                    f"{files.place(i)}: {trouble}. Repair or remove it, or skip such images with --unreadable skip."
                )
            if trouble:
                skipped.append(Skipped(side, name, trouble))
            else:
                writer.add(_jpeg_name(name, taken) if anew else name, int(files.labels[i]), content)
            step()
    writer.close()
    return skipped


class _Prepared(NamedTuple):
    """An image for the pack, whether it was encoded anew, and what is wrong with it, or ""."""

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
    except (decoding.Unreadable, OSError, MemoryError) as error:
        return _Prepared(b"", False, decoding.reason(error))


def encode_jpeg(pixels: np.ndarray, quality: int) -> bytes:
    """A JPEG, 4:2:0, of uint8 H W 3."""
    from PIL import Image

    made = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(made, "JPEG", quality=quality, subsampling="4:2:0")
    return made.getvalue()


def _jpeg_name(name: str, taken: set[str]) -> str:
    """The name of an image that was encoded as JPEG: x.jpg for x.png, or x.png.jpg if there is an x.jpg too."""
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
    """Lock the folder for a new pack, remove the rest of an unfinished one, and yield the index's .part.

    If the pack is not finished after all, what was written is removed. Raises UserError for a folder with other files
    or in use by another process, and for a full disk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / PART).exists() and (other := next(folder.iterdir(), None)):
        raise UserError(f"{folder}: is not empty, it holds {shown(other.name)}; choose another folder.")
    with (folder / PART).open("ab") as index:
        if not try_lock(index) or not is_still(index, folder / PART):
            raise UserError(f"{folder}: another process is packing into it; wait for it or stop it.")
        for path in sorted(folder.iterdir()):
            if path != folder / PART and not SHARD.fullmatch(path.name):  # a finished index, too
                raise UserError(f"{folder}: holds {shown(path.name)}, which is not part of an unfinished pack.")
        try:
            _remove_shards(folder)
            index.truncate(0)
            yield index
        except BaseException:  # within the lock, or the shards of a process that packs anew would be removed
            if not (folder / INDEX).exists():
                with contextlib.suppress(OSError):
                    _remove_shards(folder)
                    (folder / PART).unlink()
            raise


def _remove_shards(folder: Path) -> None:
    for path in folder.iterdir():
        if SHARD.fullmatch(path.name):
            path.unlink()
