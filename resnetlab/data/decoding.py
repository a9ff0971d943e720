"""Pixels from encoded images: the fastest way for each format, one stated conversion to RGB, a limit on size.

JPEGs are decoded by libjpeg-turbo, and only the part that is needed; if that is much larger than the size to which it
is resized, it is decoded at 1/4 or 1/8 of its size. Everything else, and every JPEG for which libjpeg-turbo gives a
warning, is decoded by Pillow.

    EXIF's orientation   is applied: sizes and boxes are those of the upright image; XMP's if EXIF has none
    damage               is an error if Pillow says so; the missing part of a JPEG becomes grey
    transparency         is shown on white
    palette, grey, CMYK  as Pillow converts them, CMYK without its colour profile
    more than 8 bits     the largest value that the format allows becomes 255
    several frames       the first
    no known range       refused: floating point, signed integers, 32 bits

docs/data.md has the whole table.
"""

from __future__ import annotations

import contextlib
import io
import threading
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from resnetlab.data.levels import is_misread, levels, transparent_level, without_range
from resnetlab.data.other_formats import not_read
from resnetlab.data.png_chunks import needed_chunks
from resnetlab.data.resizing import Interpolation
from resnetlab.data.turbojpeg import Box as Box  # exported: those who crop look for it here
from resnetlab.data.turbojpeg import Jpeg, JpegError

MOST_PIXELS = 89_478_485  # the limit at which Pillow warns of a decompression bomb: 256 MiB of RGB
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")  # not EPS, which runs a program
# At 1/2 the gain would be small, and most images of ImageNet would lose some fidelity. Compared with Pillow's resize
# from full size, smooth photographs keep 40 dB, and one with fine detail that is just 8 times as large keeps 33 dB.
SCALES = (8, 4)
_BAND = 2**20  # pixels that are converted at once
_NO_DECODER = "could not create decoder object"  # what Pillow says of WebP and AVIF files that are cut or damaged

# How each EXIF orientation turns the stored image upright: whether to exchange rows and columns, then to reverse
# rows, then to reverse columns (Exif 2.32, tag 0x0112).
_UPRIGHT = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


class Unreadable(Exception):
    """Why an image can't be decoded, in a line without its name."""


class TooManyPixels(Unreadable):
    """The image has more pixels than the limit."""


def reason(error: Exception) -> str:
    """Why an image can't be read, in words."""
    return getattr(error, "strerror", None) or str(error) or "does not fit into memory"


class Header(NamedTuple):
    """The header of an encoded image; the size is that of the upright image."""

    height: int
    width: int
    orientation: int  # EXIF's, 1 to 8; 1 is upright
    format: str  # as Pillow calls it: "JPEG", "PNG"
    mode: str  # as Pillow calls it: "RGB", "L", "CMYK", "P", "I;16"


class Part(NamedTuple):
    """A decoded part of an image, and the remaining steps to the requested image."""

    pixels: np.ndarray  # uint8 h w 3, as stored
    box: tuple[float, float, float, float]  # top, left, height and width of the requested part, in `pixels`
    size: tuple[int, int]  # rows and columns to which it is resized
    turn: tuple[bool, bool, bool] = _UPRIGHT[1]  # applied last
    interpolation: Interpolation = "bilinear"


def read_header(content: bytes) -> Header:
    """Read format and size without decoding. Raises Unreadable."""
    content = needed_chunks(content)
    with _opened(content) as image:
        orientation = _orientation(image, content)
        width, height = image.size
        if _UPRIGHT[orientation][0]:
            height, width = width, height
        return Header(height, width, orientation, image.format or "", image.mode)


def decode(content: bytes) -> np.ndarray:
    """Decode a whole image: uint8 H W 3, RGB, upright. Raises Unreadable."""
    return _decode(content, lambda height, width: Box(0, 0, height, width), lambda box: (box.height, box.width))


def decode_crop(content: bytes, crop: Callable[[int, int], Box], size: int) -> np.ndarray:
    """Crop the image to `crop(height, width)` and resize it: uint8 size size 3. Raises Unreadable.

    The resize is bilinear and antialiased, as Pillow's; `crop` may be called twice. A box that is not inside the
    image is a ValueError.
    """
    return _decode(content, crop, lambda _: (size, size))


def decode_resized(content: bytes, short_side: int, interpolation: Interpolation = "bilinear") -> np.ndarray:
    """Decode the image with its shorter side resized to `short_side`: uint8 H W 3. Raises Unreadable."""
    return finish(decode_part(content, short_side, interpolation))


def decode_part(
    content: bytes,
    short_side: int,
    interpolation: Interpolation = "bilinear",
    admit: Callable[[int, int], None] = lambda *_: None,
) -> Part:
    """The part of `decode_resized` that does not need torch; `finish` does the rest. Raises Unreadable.

    `admit` is called with height and width once they are known, before anything is decoded, and perhaps again; an
    exception from it ends the decoding.
    """

    def size(box: Box) -> tuple[int, int]:
        short = min(box.height, box.width)
        height, width = short_side * box.height // short, short_side * box.width // short
        if height * width > MOST_PIXELS:  # of a strip
            raise Unreadable(
                f"{box.width:,}x{box.height:,} pixels would be resized to {width:,}x{height:,}, "
                f"more than the limit of {MOST_PIXELS:,}"
            )
        return height, width

    part = _part(content, lambda height, width: Box(0, 0, height, width), size, admit)
    part = part._replace(interpolation=interpolation)
    if _between_pixels(part.box):  # Pillow resizes it
        part = part._replace(pixels=_resized(part), box=(0, 0, *part.size))
    return part


def finish(part: Part) -> np.ndarray:
    """The second half: resize and turn, uint8 H W 3.

    The array is writeable and has no negative strides, so that torch accepts it; a resized one is stored C H W.
    """
    return _upright(_resized(part), *part.turn)


def _decode(content: bytes, crop: Callable[[int, int], Box], size_of: Callable[[Box], tuple[int, int]]) -> np.ndarray:
    """Crop to the box that `crop` returns for the upright image's size, and resize it to the size from `size_of`."""
    return finish(_part(content, crop, size_of, lambda *_: None))


def _part(
    content: bytes,
    crop: Callable[[int, int], Box],
    size_of: Callable[[Box], tuple[int, int]],
    admit: Callable[[int, int], None],
) -> Part:
    if _is_whole_jpeg(content):
        try:
            return _by_turbojpeg(content, crop, size_of, admit)
        except JpegError:
            pass  # Pillow decides
    image = _pixels(content, admit)
    box = crop(*image.shape[:2])
    box.check_inside(*image.shape[:2])
    return Part(image, box, size_of(box))


def _is_whole_jpeg(content: bytes) -> bool:
    """Whether this is a JPEG with an end: decoding a part of a truncated one could succeed by chance."""
    if not content.startswith(b"\xff\xd8\xff"):
        return False
    end, scan = b"\xff\xd9", b"\xff\xda"
    # Neither marker can occur within a scan. A camera may add data after the end; a preview in the header has an
    # end of its own, but comes before the last scan.
    return end in content[-64:] or content.rfind(end) > content.rfind(scan)


def _by_turbojpeg(
    content: bytes,
    crop: Callable[[int, int], Box],
    size_of: Callable[[Box], tuple[int, int]],
    admit: Callable[[int, int], None],
) -> Part:
    swap, reverse_rows, reverse_columns = turn = _UPRIGHT[_jpeg_orientation(content)]
    with Jpeg(content) as jpeg:
        height, width = (jpeg.width, jpeg.height) if swap else (jpeg.height, jpeg.width)
        _check_size(height, width)
        admit(height, width)
        box = crop(height, width)
        rows, columns = size_of(box)
        # The same box and size in the stored image.
        top = height - box.top - box.height if reverse_rows else box.top
        left = width - box.left - box.width if reverse_columns else box.left
        stored = Box(left, top, box.width, box.height) if swap else Box(top, left, box.height, box.width)
        size = (columns, rows) if swap else (rows, columns)
        scale = next((s for s in SCALES if stored.height >= s * size[0] and stored.width >= s * size[1]), 1)
        pixels, top, left = jpeg.decode(stored, scale)
    return Part(pixels, (top, left, stored.height / scale, stored.width / scale), size, turn)


def _between_pixels(box: tuple[float, float, float, float]) -> bool:
    """Whether a box begins or ends inside a pixel, as boxes in scaled images can."""
    return any(value != int(value) for value in box)


def _resized(part: Part) -> np.ndarray:
    """The box of the decoded pixels, H W 3, resized to the requested size, antialiased."""
    top, left, height, width = part.box
    if not _between_pixels(part.box):
        pixels = part.pixels[int(top) : int(top + height), int(left) : int(left + width)]
        if pixels.shape[:2] == part.size:
            return pixels
        import torch  # imported here, since the server's decoding processes do without it
        import torch.nn.functional as tf

        x = torch.from_numpy(pixels).permute(2, 0, 1)[None]  # 1 C H W, its channels last: the fast kernel's layout
        return tf.interpolate(x, part.size, mode=part.interpolation, antialias=True)[0].permute(1, 2, 0).numpy()
    # A box between pixels, of a scaled image: torch has no such resize.
    method = Image.Resampling[part.interpolation.upper()]
    resized = Image.fromarray(part.pixels).resize(part.size[::-1], method, box=(left, top, left + width, top + height))
    return np.array(resized)


def _pixels(content: bytes, admit: Callable[[int, int], None]) -> np.ndarray:
    """Decode by Pillow: uint8 H W 3, RGB, upright."""
    content = needed_chunks(content)
    with _opened(content) as image:
        admit(image.height, image.width)
        pixels = _rgb(image, content)
        return _upright(pixels, *_UPRIGHT[_orientation(image, content)])


def _upright(image: np.ndarray, swap: bool, reverse_rows: bool, reverse_columns: bool) -> np.ndarray:
    if swap:
        image = image.swapaxes(0, 1)
    if reverse_rows or reverse_columns:
        image = image[:: -1 if reverse_rows else 1, :: -1 if reverse_columns else 1].copy()
    return image


def _rgb(image: Image.Image, content: bytes) -> np.ndarray:
    """uint8 H W 3 from any mode."""
    tags = getattr(image, "tag_v2", {})  # a TIFF's
    with _reasons():
        if kind := without_range(image.mode, image.format == "TIFF", tags):
            raise Unreadable(f"its pixels are {kind}, whose range is not known; save it with 8 or 16 unsigned bits")
        if is_misread(tags):
            raise Unreadable("its channels lie one after another with more than 8 bits; save it with pixels together")
        image.load()
        if image.format == "PNG" and "transparency" in image.info:
            image.info["transparency"] = transparent_level(image.info["transparency"], image.mode, bits=content[24])
        if image.mode.startswith("I"):
            table = levels(tags, image.info.get("transparency"))
            return np.repeat(table[np.asarray(image)][:, :, None], 3, axis=2)
        return _flat(image.convert("LA") if image.mode == "La" else image)


def _flat(image: Image.Image) -> np.ndarray:
    """The image on white, as RGB: uint8 H W 3; converted in bands, since each conversion makes a copy."""
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    rows = max(1, _BAND // image.width)
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height)))
        if band.has_transparency_data:
            band = Image.alpha_composite(Image.new("RGBA", band.size, "white"), band.convert("RGBA"))
        pixels[top : top + rows] = np.asarray(band.convert("RGB"))
    return pixels


class _Silence:
    """A context without warnings, for any number of threads at once.

    With `catch_warnings` alone, overlapping threads would restore each other's filters, which silences for good.
    """

    def __init__(self) -> None:
        self.lock, self.inside = threading.Lock(), 0

    def __enter__(self) -> None:
        with self.lock:
            if not self.inside:
                self.caught = warnings.catch_warnings()
                self.caught.__enter__()
                warnings.simplefilter("ignore")
            self.inside += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1
            if not self.inside:
                self.caught.__exit__(None, None, None)


_silence = _Silence()


@contextlib.contextmanager
def _reasons() -> Iterator[None]:
    """A context that turns whatever Pillow's readers raise into Unreadable, and hides their warnings."""
    try:
        with _silence:
            yield
    except Unreadable:
        raise
    except Image.DecompressionBombError as error:
        raise TooManyPixels(f"it has more pixels than the limit of {MOST_PIXELS:,}") from error
    except MemoryError as error:
        raise Unreadable("it does not fit into memory") from error
    except Exception as error:
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise Unreadable("damaged or truncated" if said == _NO_DECODER else said) from error


def _opened(content: bytes) -> Image.Image:
    """The image with its header read. Raises Unreadable."""
    if not content:
        raise Unreadable("the file is empty")
    with _reasons():
        try:
            image = Image.open(io.BytesIO(content), formats=known_formats())
        except UnidentifiedImageError:
            raise Unreadable(not_read(content)) from None
    _check_size(image.height, image.width)
    return image


@cache
def known_formats() -> tuple[str, ...]:
    """The formats that this Pillow has, of which old releases lack AVIF; JPEG includes MPO."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _check_size(height: int, width: int) -> None:
    if height * width > MOST_PIXELS:
        raise TooManyPixels(f"{width:,}x{height:,} pixels are more than the limit of {MOST_PIXELS:,}")
    if height < 1 or width < 1:
        raise Unreadable("it has no pixels")


def _orientation(image: Image.Image, content: bytes) -> int:
    if image.format == "TIFF":
        return 1  # Pillow turns these itself
    if image.format == "PNG" and not any(
        word in content for word in (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")
    ):
        return 1  # otherwise Pillow would decode all of it, to see what follows the pixels
    try:
        with _reasons():
            found = image.getexif().get(0x0112, 1)
    except Unreadable:  # a damaged EXIF block; the pixels may be fine
        return 1
    return int(found) if found in _UPRIGHT else 1


def _jpeg_orientation(content: bytes) -> int:
    """The orientation; Pillow is asked only if there may be one, since it has to read the header again."""
    return _orientation(_opened(content), content) if _may_be_turned(content) else 1


def _may_be_turned(content: bytes) -> bool:
    """Whether a JPEG has EXIF or XMP, which are segments of the type APP1, somewhere before its pixels."""
    at = 2
    while content[at : at + 1] == b"\xff":
        kind = content[at + 1 : at + 2]
        if kind == b"\xda":  # SOS: here are the pixels
            return False
        if kind < b"\xc0" or b"\xd0" <= kind <= b"\xd9" or kind == b"\xff" or kind == b"\xe1":
            return True  # APP1, or what has no length
        at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return True  # damaged, perhaps
