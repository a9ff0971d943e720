"""TurboJPEG 3 through its C interface: decode a part of a JPEG, at full size or at 1/2, 1/4 or 1/8 of it.

No Python package offers the decoding of a part. The library comes with the wheel `turbojpeg`, of which
nothing else is used; one that the system has does as well. Reference: libjpeg-turbo's turbojpeg.h.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np

_DECOMPRESS, _RGB = 1, 0  # TJINIT_DECOMPRESS, TJPF_RGB
_WIDTH, _HEIGHT, _BITS, _COLOURS = 5, 6, 7, 8  # TJPARAM_JPEGWIDTH, _JPEGHEIGHT, _PRECISION, _COLORSPACE
_CMYK = 3  # TJCS_CMYK; from here on the colours are not red, green, blue or grey
_MCU = 16  # pixels: a region starts at a whole MCU. Those of 4:1:1 have 32; half of its regions are refused.
_MARGIN = 2  # pixels around a box: chroma of half the size is interpolated, and a resize may reach out by one


class JpegError(Exception):
    """What TurboJPEG does not decode without a word; another decoder should try."""


class Box(NamedTuple):
    """Part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def check_inside(self, height: int, width: int) -> None:
        """Raise ValueError, a mistake of the caller's, if it has no pixels or reaches out of an image of that size."""
        if not (0 <= self.top < self.top + self.height <= height and 0 <= self.left < self.left + self.width <= width):
            raise ValueError(f"{self} is not inside an image of {height}x{width}")


class _Region(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_int) for name in ("x", "y", "w", "h"))


class _Scale(ctypes.Structure):
    _fields_ = (("num", ctypes.c_int), ("denom", ctypes.c_int))


@cache
def library() -> ctypes.CDLL | None:
    """TurboJPEG of version 3 or later; None where there is none."""
    for path in _paths():
        try:
            return _declare(ctypes.CDLL(path))
        except (OSError, AttributeError):  # it doesn't load; it is of version 2, which can't decode a part
            continue
    return None


def _paths() -> Iterator[str]:
    """Where the library may be: the wheel's, then the system's, whose search starts programs."""
    try:
        files = metadata.files("turbojpeg") or []
    except metadata.PackageNotFoundError:
        files = []
    yield from (str(f.locate()) for f in files if f.name.startswith("libturbojpeg"))
    system = ctypes.util.find_library("turbojpeg")
    if system:
        yield system


def _declare(lib: ctypes.CDLL) -> ctypes.CDLL:
    handle, content = ctypes.c_void_p, (ctypes.c_char_p, ctypes.c_size_t)
    lib.tj3Init.restype = handle
    lib.tj3Init.argtypes = (ctypes.c_int,)
    lib.tj3Destroy.restype = None
    lib.tj3Destroy.argtypes = (handle,)
    lib.tj3DecompressHeader.argtypes = (handle, *content)
    lib.tj3Get.argtypes = (handle, ctypes.c_int)
    lib.tj3SetScalingFactor.argtypes = (handle, _Scale)
    lib.tj3SetCroppingRegion.argtypes = (handle, _Region)
    lib.tj3Decompress8.argtypes = (handle, *content, ctypes.c_void_p, ctypes.c_int, ctypes.c_int)
    lib.tj3GetErrorStr.argtypes = (handle,)
    lib.tj3GetErrorStr.restype = ctypes.c_char_p
    return lib


class Jpeg:
    """One JPEG, opened for decoding. A handle for each: after an error its state is not to be trusted."""

    def __init__(self, content: bytes) -> None:
        """Read the header. Raises JpegError where there is no library, or no JPEG of RGB or grey with 8 bits."""
        lib = library()
        if lib is None:
            raise JpegError("no TurboJPEG here")
        self.lib, self.content = lib, content
        self.handle = lib.tj3Init(_DECOMPRESS)
        try:
            self._check(lib.tj3DecompressHeader(self.handle, content, len(content)))
            keys = (_HEIGHT, _WIDTH, _BITS, _COLOURS)
            self.height, self.width, bits, colours = (lib.tj3Get(self.handle, key) for key in keys)
            if self.height < 1 or self.width < 1 or bits != 8 or not 0 <= colours < _CMYK:
                raise JpegError("not RGB or grey with 8 bits")
        except JpegError:
            self.close()
            raise

    def decode(self, box: Box, scale: int = 1) -> tuple[np.ndarray, float, float]:
        """Decode the part of the image that covers `box`, both sides divided by `scale` (1, 2, 4 or 8).

        Returns uint8 H W 3, and the place of the box's upper left corner in it: top, left. Raises JpegError,
        also for warnings; ValueError for a box that is not inside the image.
        """
        box.check_inside(self.height, self.width)  # what is written below has the size of a box that is
        height, width = -(-self.height // scale), -(-self.width // scale)
        left = max(0, (box.left // scale - _MARGIN) // _MCU * _MCU)
        right = min(width, -(-(box.left + box.width) // scale) + _MARGIN)
        top = max(0, box.top // scale - _MARGIN)
        bottom = min(height, -(-(box.top + box.height) // scale) + _MARGIN)
        out = np.empty((bottom - top, right - left, 3), np.uint8)
        lib, handle = self.lib, self.handle
        self._check(lib.tj3SetScalingFactor(handle, _Scale(1, scale)))
        self._check(lib.tj3SetCroppingRegion(handle, _Region(left, top, right - left, bottom - top)))
        self._check(lib.tj3Decompress8(handle, self.content, len(self.content), out.ctypes.data, 0, _RGB))
        return out, box.top / scale - top, box.left / scale - left

    def _check(self, code: int) -> None:
        if code:
            raise JpegError((self.lib.tj3GetErrorStr(self.handle) or b"").decode(errors="replace"))

    def close(self) -> None:
        """Free what the library holds."""
        if self.handle:
            self.lib.tj3Destroy(self.handle)
            self.handle = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
