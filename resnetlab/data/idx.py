"""MNIST and Fashion-MNIST from the official IDX files, gzipped or not.

An IDX file is two zero bytes, the code of the type of its values, the number of its dimensions, each dimension
as a big-endian 32-bit number, then the values (LeCun, Cortes, Burges: The MNIST database, "file formats").
"""

from __future__ import annotations

import gzip
import io
import math
import shlex
import struct
import zlib
from pathlib import Path

import numpy as np
import torch

from resnetlab.data.images import Data, Images
from resnetlab.errors import UserError
from resnetlab.storage import content_of

CLASSES = {
    "mnist": tuple(str(digit) for digit in range(10)),
    "fashion_mnist": (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
}
IMAGES, LABELS = "-images-idx3-ubyte", "-labels-idx1-ubyte"
COUNTS = {"train": 60_000, "t10k": 10_000}  # the most a file may promise, so that a header can't ask for all memory
SIZE = (28, 28)
_BYTES = 0x08  # the type's code


def read_mnist(kind: str, folder: Path, *_: object) -> Data:
    """Read "mnist" or "fashion_mnist" from `folder`, or from the folder "raw" inside it.

    Returns images of 1x28x28. Raises UserError, naming the file, for a missing, truncated or foreign one.
    """
    fetch = f"resnetlab data fetch {kind} {shlex.quote(str(folder))}"
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; to fetch {kind} into it: {fetch}")
    names = [part + content for part in COUNTS for content in (IMAGES, LABELS)]
    paths: dict[str, Path] = {}
    for place in (folder, folder / "raw"):
        for found in (place / (name + ending) for name in names for ending in ("", ".gz")):
            if found.is_file():
                paths.setdefault(found.name.removesuffix(".gz"), found)
    missing = [f"{name}[.gz]" for name in names if name not in paths]
    if missing:
        raise UserError(f"{folder}: not a {kind} folder, it lacks {', '.join(missing)}; to fetch it: {fetch}")
    try:
        train, test = (_part(paths[part + IMAGES], paths[part + LABELS], count) for part, count in COUNTS.items())
    except _Damaged as error:
        raise UserError(f"{error}; delete the file, then fetch it again: {fetch}") from error
    return Data(kind, train, test, CLASSES[kind])


class _Damaged(Exception):
    """What is wrong with which file."""


def _part(images: Path, labels: Path, most: int) -> Images:
    pixels, targets = _read(images, SIZE, most), _read(labels, (), most)
    if len(pixels) != len(targets):
        raise _Damaged(f"{labels}: {len(targets):,} labels, but {images.name} holds {len(pixels):,} images")
    if targets.max() > 9:
        raise _Damaged(f"{labels}: damaged, labels should be 0 to 9, but one is {targets.max()}")
    # N H W -> N C H W
    return Images(torch.from_numpy(pixels).unsqueeze(1), torch.from_numpy(targets).long())


def _read(path: Path, size: tuple[int, ...], most: int) -> np.ndarray:
    """Read an IDX file of at most `most` values of shape `size`: uint8 N, or N H W."""
    try:
        raw = content_of(path)
        gzipped = raw[:2] == b"\x1f\x8b"  # by content: browsers unpack what they leave named .gz
        with gzip.open(io.BytesIO(raw)) if gzipped else io.BytesIO(raw) as file:
            header = file.read(8 + 4 * len(size))
            if len(header) < 8 + 4 * len(size):
                raise _Damaged(f"{path}: truncated, its header has {len(header)} bytes")
            zeros, code, dimensions, count, *found = struct.unpack(f">HBBI{len(size)}I", header)
            if (zeros, code, dimensions) != (0, _BYTES, 1 + len(size)):
                wanted = bytes([0, 0, _BYTES, 1 + len(size)]).hex()
                raise _Damaged(
                    f"{path}: not the expected IDX file, it starts with {header[:4].hex()} instead of {wanted}"
                )
            if tuple(found) != size:
                shape = "x".join(map(str, size))
                raise _Damaged(f"{path}: images of {'x'.join(map(str, found))} instead of {shape}")
            if not 0 < count <= most:
                raise _Damaged(f"{path}: its header declares {count:,} entries, not 1 to {most:,}")
            promised = count * math.prod(size)
            # One byte more than promised: enough to see that there is more, however much a gzip would unfold to.
            content = bytearray(file.read(promised + 1))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _Damaged(f"{path}: truncated or damaged ({error})") from error
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}).") from error
    if len(content) < promised:
        raise _Damaged(f"{path}: truncated, {len(content):,} of {promised:,} bytes")
    if len(content) > promised:
        raise _Damaged(f"{path}: damaged, it holds more than the {promised:,} bytes that its header declares")
    return np.frombuffer(content, dtype=np.uint8).reshape(count, *size)
