"""Converts a file's grey levels and transparent levels to 8 bits, which Pillow leaves to its callers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

# Tags of TIFF 6.0 and two of their values.
_BITS, _COMPRESSION, _PHOTOMETRIC, _PLANES, _SAMPLE_FORMAT = 258, 259, 262, 284, 339
_UNCOMPRESSED, _WHITE_IS_ZERO, _SEPARATE, _SIGNED = 1, 0, 2, 2


def without_range(mode: str, is_tiff: bool, tags: Mapping[int, Any]) -> str:
    """The kind of pixels if their range is not known, in words; "" for other pixels."""
    if mode == "F":
        return "floating-point numbers"
    if _SIGNED in _several(tags.get(_SAMPLE_FORMAT, 1)):  # which Pillow takes for unsigned, if they have 8 bits
        return "signed integers"
    return "32-bit integers" if mode == "I" and is_tiff else ""  # of a PGM, Pillow has made 16 bits


def is_misread(tags: Mapping[int, Any]) -> bool:
    """Whether Pillow takes a TIFF's bytes for pixels: of separate planes of more than 8 bits without compression."""
    planes = tags.get(_PLANES) == _SEPARATE and tags.get(_COMPRESSION, _UNCOMPRESSED) == _UNCOMPRESSED
    return planes and max(_several(tags.get(_BITS, 1))) > 8


def _several(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def levels(tags: Mapping[int, Any], transparent: object) -> np.ndarray:
    """A table that converts grey levels of 12 or 16 bits to 8: uint8 4096 or 65536."""
    greatest = 2 ** (12 if _several(tags.get(_BITS, 16))[0] == 12 else 16) - 1
    table = ((np.arange(greatest + 1) * 255 + greatest // 2) // greatest).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow inverts what has 8 bits or fewer
        table = 255 - table
    if isinstance(transparent, int) and transparent <= greatest:
        table[transparent] = 255
    return table


def transparent_level(level: Any, mode: str, bits: int) -> Any:
    """A PNG's transparent level or colour, converted from the file's bit depth to that of Pillow's pixels."""
    if mode == "L" and level < 2**bits <= 16:
        return level * (255 // (2**bits - 1))
    if mode == "RGB" and bits == 16:
        return tuple(value >> 8 for value in level)
    return level
