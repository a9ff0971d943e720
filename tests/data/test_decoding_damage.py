"""Decoding: one line where an image is damaged or refused, wherever the damage lies."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made_images import (
    PHOTO,
    SMALL,
    by_pillow,
    encode,
    exif,
    levels,
    line,
    png,
    this,
    whole,
    with_segment,
    with_size,
)
from PIL import Image

from resnetlab.data import turbojpeg
from resnetlab.data.decoding import (
    MOST_PIXELS,
    Box,
    Unreadable,
    decode,
    decode_crop,
    read_header,
)

IMAGES = 3_000  # that are damaged
needs_library = pytest.mark.skipif(turbojpeg.library() is None, reason="needs TurboJPEG 3, which is not installed")


@needs_library
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("preview", [True, False])
def test_a_jpeg_cut_anywhere_is_refused_or_whole(options: dict[str, object], preview: bool) -> None:
    """A part that stands before the cut could be decoded; the image is damaged all the same."""
    content = encode(SMALL.resize((60, 45)), **options)
    if preview:
        content = with_segment(content, 0xE1, b"Exif\0\0" + exif(1).tobytes()[6:] + encode(SMALL.resize((8, 8))))
    wanted, refused = decode_crop(content, this(Box(0, 0, 8, 8)), 8), 0
    for length in range(len(content)):
        try:
            found = decode_crop(content[:length], this(Box(0, 0, 8, 8)), 8)
        except Unreadable:
            refused += 1
        else:
            assert np.array_equal(found, wanted)
    assert refused >= len(content) - 12  # the last bytes hold the end, and may hold padding


def test_a_png_cut_anywhere_is_refused_or_whole() -> None:
    content, refused = encode(SMALL, "PNG"), 0
    for length in range(len(content)):
        try:
            assert np.array_equal(decode(content[:length]), levels(SMALL))
        except Unreadable:
            refused += 1
    assert refused >= len(content) - 24  # the last bytes hold checksums and the end


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) print quit\n%%EOF\n"


SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'


@pytest.mark.parametrize("function", [read_header, decode, lambda content: decode_crop(content, whole, 8)])
class TestRefusals:
    """One line, the same from each function."""

    def test_empty(self, function: Callable[[bytes], object]) -> None:
        assert line(function, b"") == "the file is empty"

    def test_what_is_no_image(self, function: Callable[[bytes], object], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("a program was run"))
        for content in (EPS, b"text", bytes(100), b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"<a>"):
            assert line(function, content) == "not an image in a known format, or its header is damaged"

    @pytest.mark.parametrize(
        ("content", "kind"),
        [
            (b"\0\0\0\x18ftypheic\0\0\0\0", "a HEIC image"),  # what telephones write, often renamed to .jpg
            (b"\0\0\0\x20ftypmif1\0\0\0\0", "a HEIC image"),
            (b"8BPS\0\1", "a Photoshop file"),
            (SVG, "an SVG drawing"),
            (b"<svg>", "an SVG drawing"),
            (b"<!-- by hand -->\n<!DOCTYPE svg><svg>", "an SVG drawing"),
            (b"\n<!doctype html><html><svg>", "a web page"),
            (b"%PDF-1.7\n", "a PDF"),
            (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL image"),
            (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 image"),
        ],
    )
    def test_what_is_of_another_format(self, function: Callable[[bytes], object], content: bytes, kind: str) -> None:
        assert line(function, content) == f"{kind}, whatever its name: save the picture as JPEG or PNG"

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"\0\0\0\x20ftypisom\0\0", "a video, whatever its name: save frames of it as JPEG or PNG"),
            (b"\0\0\0\x14ftypqt  \0\0", "a video, whatever its name: save frames of it as JPEG or PNG"),
            (b"\x1aE\xdf\xa3\x01", "a video, whatever its name: save frames of it as JPEG or PNG"),
            (
                b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\n",
                "a Git LFS pointer, whatever its name: fetch the file with 'git lfs pull'",
            ),
        ],
    )
    def test_what_is_no_picture(self, function: Callable[[bytes], object], content: bytes, words: str) -> None:
        assert line(function, content) == words

    def test_half_a_webp(self, function: Callable[[bytes], object]) -> None:
        """Its header is whole; Pillow says only that it could make no decoder."""
        if function is not read_header:
            written = io.BytesIO()
            Image.effect_noise((64, 64), 50).convert("RGB").save(written, "WEBP")
            assert line(function, written.getvalue()[: len(written.getvalue()) // 2]) == "damaged or truncated"

    def test_bombs(self, function: Callable[[bytes], object]) -> None:
        """Nothing of that size is allocated: 10 GB would not be had."""
        for width, height in ((60_000, 60_000), (12_000, 12_000), (MOST_PIXELS + 1, 1)):
            message = line(function, png(width, height, 8, 2, b""))
            assert f"the limit of {MOST_PIXELS:,}" in message
        for height, width in ((65_500, 65_500), (10_000, 10_000), (65_500, 1367)):
            assert f"the limit of {MOST_PIXELS:,}" in line(function, with_size(encode(SMALL), height, width))

    def test_no_pixels(self, function: Callable[[bytes], object]) -> None:
        line(function, with_size(encode(SMALL), 0, 31))
        line(function, png(0, 5, 8, 2, b""))


def test_floats_are_refused() -> None:
    assert "floating-point" in line(decode, encode(SMALL.convert("F"), "TIFF"))


def test_a_header_that_claims_more_than_there_is() -> None:
    """Of a JPEG that has its end too early, Pillow makes the rest grey, and Pillow decides."""
    content = with_size(encode(PHOTO, subsampling=0), 700, 320)
    wanted = by_pillow(content)
    assert (wanted[300:] == wanted[699, 319]).all()
    assert np.array_equal(decode(content), wanted)
    assert np.array_equal(decode_crop(content, this(Box(100, 9, 60, 60)), 60), wanted[100:160, 9:69])
    assert np.array_equal(decode_crop(content, this(Box(190, 9, 60, 60)), 60), wanted[190:250, 9:69])
    line(decode, png(3000, 3000, 8, 2, bytes(100)))


def fuzz(seed: int, count: int) -> None:
    """Damaged images in a process of their own, so that a native crash is a failure and no end of the tests."""
    script = Path(__file__).with_name("fuzz_decoding.py")
    done = subprocess.run([sys.executable, str(script), str(seed), str(count)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    tried, good = map(int, done.stdout.split())
    assert tried == count
    assert count / 5 < good < count * 4 / 5


def test_damaged_images_are_unreadable_or_decoded() -> None:
    fuzz(0, IMAGES)


def test_security_states_how_many_there_are() -> None:
    security = Path(__file__).parents[2] / "SECURITY.md"
    assert f" kinds and {IMAGES:,} damaged images; " in " ".join(security.read_text(encoding="utf-8").split())


@pytest.mark.slow
def test_very_many_damaged_images_are_unreadable_or_decoded() -> None:
    fuzz(1, 100_000)
