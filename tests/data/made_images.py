"""Encoded images for the tests of decoding, and what Pillow makes of them."""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from resnetlab.data.decoding import (
    Box,
    Unreadable,
)

Crop = Callable[[int, int], Box]


def sample(name: str = "china.jpg", width: int = 320, height: int = 214) -> Image.Image:
    """A photograph of scikit-learn's, at another size."""
    package = find_spec("sklearn")  # which takes a second to import
    assert package is not None
    assert package.origin is not None
    pixels = np.asarray(Image.open(Path(package.origin).parent / "datasets/images" / name))
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


PHOTO = sample()


SMALL = sample("flower.jpg", 31, 23)


def encode(image: Image.Image, name: str = "JPEG", **options: object) -> bytes:
    made = io.BytesIO()
    image.save(made, name, **options)
    return made.getvalue()


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = orientation
    return block


def with_segment(jpeg: bytes, kind: int, content: bytes) -> bytes:
    """A JPEG with one more segment at its start."""
    return jpeg[:2] + struct.pack(">BBH", 0xFF, kind, len(content) + 2) + content + jpeg[2:]


def with_size(jpeg: bytes, height: int, width: int) -> bytes:
    """A JPEG whose frame header claims another size."""
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + struct.pack(">HH", height, width) + jpeg[at + 4 :]


def png(width: int, height: int, bits: int, colour: int, rows: bytes) -> bytes:
    """A PNG of any header; each row starts with a byte for its filter."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def by_pillow(content: bytes) -> np.ndarray:
    """Signed, so that differences are right."""
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")).astype(np.int16)


def resized_by_pillow(content: bytes, box: Box, size: int) -> np.ndarray:
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
    part = image.crop((box.left, box.top, box.left + box.width, box.top + box.height))
    return np.asarray(part.resize((size, size), Image.Resampling.BILINEAR)).astype(np.int16)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = np.mean((a.astype(float) - b) ** 2)
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def this(box: Box) -> Crop:
    return lambda height, width: box


def whole(height: int, width: int) -> Box:
    return Box(0, 0, height, width)


def line(function: Callable[..., object], *arguments: object) -> str:
    """What Unreadable says: one line, of no file and no object."""
    with pytest.raises(Unreadable) as caught:
        function(*arguments)
    words = str(caught.value)
    assert words
    assert words.isprintable()
    assert "BytesIO" not in words
    return words


def levels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(np.int16)
