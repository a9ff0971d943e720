"""Unusual properties of readable images: a wrong extension, an unusual size, or few levels in use."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np

from resnetlab.data.decoding import Header

TINY = 32  # pixels of the shorter side: a smaller image is named
HUGE = 25_000_000  # pixels: an image of more is named
STRETCHED = 4  # times as long as wide: an image of more is named
NARROW = 64  # of 255 levels: an image in which no colour spans more is named; 14 bits in 16 reach it
FORMATS = {  # what a file's extension promises
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), ("JPEG", "MPO")),
    **dict.fromkeys((".tif", ".tiff"), ("TIFF",)),
    **dict.fromkeys((".ppm", ".pgm", ".pbm", ".pnm"), ("PPM",)),
    ".png": ("PNG",),
    ".gif": ("GIF",),
    ".bmp": ("BMP", "DIB"),
    ".webp": ("WEBP",),
    ".avif": ("AVIF",),
}


def oddities(name: str, header: Header, levels: tuple[int, int, int]) -> Iterator[tuple[str, str]]:
    """The lists of an audit to which an image belongs, with the reason; `levels` are those of `levels_of`."""
    short, long = sorted((header.height, header.width))
    ending = os.path.splitext(name)[1].lower()
    if header.format not in FORMATS.get(ending, (header.format,)):
        yield "mismatched", f"extension {ending}, format {header.format}"
    size = f"{header.width:,} x {header.height:,}"
    if short < TINY:
        yield "tiny", size
    if short * long > HUGE:
        yield "huge", size
    if long > STRETCHED * short:
        yield "stretched", size
    lowest, highest, span = levels
    if span <= NARROW:
        words = f"levels {lowest} to {highest} of 255" if span else "one colour"
        yield "narrow", words + _bits_in_words(header.mode, highest)


def levels_of(pixels: np.ndarray) -> tuple[int, int, int]:
    """The lowest and the highest level of an image, uint8 H W 3, and the widest span of one of its colours."""
    low, high = pixels.min((0, 1)).astype(int), pixels.max((0, 1)).astype(int)
    return int(low.min()), int(high.max()), int((high - low).max())


def _bits_in_words(mode: str, highest: int) -> str:
    """Of 16-bit grey, how many of its bits may be the image's: cameras and scanners use 10, 12 or 14."""
    bits = next((bits for bits in (8, 10, 12, 14) if highest <= round((2**bits - 1) / 257)), None)
    return f": perhaps {bits} bits stored in 16" if bits and highest and mode.startswith("I") else ""


# What Pillow calls an image's mode, in words; the names of other modes are words already.
_MODES = {
    "1": "black and white",
    "L": "grey",
    "LA": "grey with alpha",
    "P": "palette",
    "PA": "palette with alpha",
    "RGBA": "RGB with alpha",
    "I;16": "16-bit grey",
    "I;16B": "16-bit grey",
    "I": "32-bit integers",
    "F": "floating point",
    "LAB": "L*a*b*",
}


def mode_words(mode: str) -> str:
    """A mode in words for readers who don't know Pillow."""
    return _MODES.get(mode, mode)
