"""A PNG's texts and profiles: however large or damaged, its pixels are read; its orientation stays."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from resnetlab.data.decoding import decode, read_header
from resnetlab.data.png_chunks import MOST_TEXT, SIGNATURE, needed_chunks

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 14, 3), np.uint8)
LARGE = zlib.compress(bytes(MOST_TEXT + 1))
TURNED = b'<rdf:Description tiff:Orientation="6"/>'
EXIF = Image.Exif()
EXIF[0x0112] = 6


def chunk(kind: bytes, content: bytes, checksum: int | None = None) -> bytes:
    checksum = zlib.crc32(kind + content) if checksum is None else checksum
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png(before: bytes = b"", after: bytes = b"", pixels: np.ndarray = PIXELS) -> bytes:
    """A PNG of 8-bit colour, with more chunks before and after its pixels."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return SIGNATURE + header + before + chunk(b"IDAT", zlib.compress(rows)) + after + chunk(b"IEND", b"")


UNNEEDED = {
    "a text of over 1 MB": chunk(b"zTXt", b"Comment\0\0" + LARGE),
    "an international text of over 1 MB": chunk(b"iTXt", b"Comment\0\1\0\0\0" + LARGE),
    "XMP of over 1 MB": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + LARGE),
    "EXIF as a text of over 1 MB": chunk(b"zTXt", b"Raw profile type exif\0\0" + LARGE),
    "a text of 3 MB as it is": chunk(b"tEXt", b"Comment\0" + b"x" * 3_000_000),
    "a profile of over 1 MB": chunk(b"iCCP", b"name\0\0" + LARGE),
    "a profile of an unknown kind": chunk(b"iCCP", b"name\0\7" + LARGE),
    "a text with a wrong checksum": chunk(b"tEXt", b"Comment\0hello", checksum=1),
    "EXIF with a wrong checksum": chunk(b"eXIf", EXIF.tobytes()[6:], checksum=1),
    "a text that is cut": chunk(b"zTXt", b"Comment\0\0" + LARGE[:50]),
    "a private chunk": chunk(b"abCd", bytes(100)),
    "frames": chunk(b"acTL", struct.pack(">II", 0, 0)),
}


@pytest.mark.parametrize("name", UNNEEDED)
def test_what_pixels_do_not_need_refuses_no_image(name: str) -> None:
    for content in (png(before=UNNEEDED[name]), png(after=UNNEEDED[name])):
        assert needed_chunks(content) == png()
        assert read_header(content) == (9, 14, 1, "PNG", "RGB")
        assert np.array_equal(decode(content), PIXELS)


def test_all_of_them_together() -> None:
    content = png(b"".join(UNNEEDED.values()), b"".join(UNNEEDED.values()))
    assert np.array_equal(decode(content), PIXELS)


@pytest.mark.parametrize("large", [b"", UNNEEDED["a text of over 1 MB"]])
@pytest.mark.parametrize(
    "where",
    [
        chunk(b"eXIf", EXIF.tobytes()[6:]),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + TURNED),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(TURNED)),
        chunk(
            b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n0\n" + EXIF.tobytes()[6:].hex().encode())
        ),
    ],
    ids=["eXIf", "XMP", "compressed XMP", "ImageMagick's text"],
)
def test_orientation_stays(where: bytes, large: bytes) -> None:
    for content in (png(before=large + where), png(after=large + where)):
        assert np.array_equal(decode(content), np.rot90(PIXELS, -1))


def test_ordinary_pngs_are_given_on_as_they_are() -> None:
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        made = io.BytesIO()
        Image.fromarray(PIXELS).convert(mode).save(made, "PNG")
        assert needed_chunks(made.getvalue()) == made.getvalue()
    palette = io.BytesIO()
    Image.fromarray(PIXELS).quantize(8).save(palette, "PNG", transparency=3)
    assert needed_chunks(palette.getvalue()) == palette.getvalue()
    for content in (b"", b"no PNG", SIGNATURE, SIGNATURE + b"IHDR", b"\xff\xd8\xff"):
        assert needed_chunks(content) == content


def test_a_damaged_file_stays_damaged() -> None:
    """From where the chunks don't follow one another nothing is left out, so that Pillow sees the damage."""
    whole = png(before=UNNEEDED["a private chunk"])
    for length in range(len(whole)):
        found = needed_chunks(whole[:length])
        assert found in (whole[:length], png()[: len(found)])
