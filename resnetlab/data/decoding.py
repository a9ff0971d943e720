"""Pixels from encoded images: the fastest way for each format, one stated conversion to RGB, a limit on size."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

MOST_PIXELS = 89_478_485


class Unreadable(Exception):
    """Why an image can't be decoded, in a line without the image's name."""


class Box(NamedTuple):
    """Part of an image, in pixels of the upright image."""

    top: int
    left: int
    height: int
    width: int


class Header(NamedTuple):
    """What an encoded image says of itself; the size is that of the upright image."""

    height: int
    width: int
    orientation: int  # EXIF's, 1 to 8; 1 is upright
    format: str  # as Pillow calls it: "JPEG", "PNG"
    mode: str  # as Pillow calls it: "RGB", "L", "CMYK", "P", "I;16"


def read_header(content: bytes) -> Header:
    """Read format and size without decoding. Raises Unreadable."""
    raise NotImplementedError


def decode(content: bytes) -> np.ndarray:
    """Decode a whole image: uint8 H W 3, RGB, upright. Raises Unreadable."""
    raise NotImplementedError


def decode_crop(content: bytes, crop: Callable[[int, int], Box], size: int) -> np.ndarray:
    """Cut `crop(height, width)` out of the image and resize it: uint8 size size 3. Raises Unreadable."""
    raise NotImplementedError


def decode_resized(content: bytes, short_side: int) -> np.ndarray:
    """Decode the image with its shorter side resized to `short_side`: uint8 H W 3. Raises Unreadable."""
    raise NotImplementedError
