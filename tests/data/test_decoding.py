"""Decoding: JPEGs in part and others whole, one conversion for each mode, and one line where an image is damaged."""

from __future__ import annotations

import io
import math
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from resnetlab.data import decoding, turbojpeg
from resnetlab.data.decoding import (
    MOST_PIXELS,
    Box,
    Header,
    Unreadable,
    decode,
    decode_crop,
    decode_resized,
    read_header,
)

Crop = Callable[[int, int], Box]

needs_library = pytest.mark.skipif(turbojpeg.library() is None, reason="needs TurboJPEG 3, which is not installed")


def sample(name: str = "china.jpg", width: int = 320, height: int = 214) -> Image.Image:
    """A photograph of scikit-learn's, at another size."""
    from sklearn.datasets import load_sample_image

    return Image.fromarray(load_sample_image(name)).resize((width, height), Image.Resampling.BICUBIC)


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


@pytest.fixture
def only_turbojpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where pixels come from Pillow."""
    if turbojpeg.library() is None:
        pytest.skip("needs TurboJPEG 3, which is not installed")
    monkeypatch.setattr(decoding, "_pixels", lambda content: pytest.fail("Pillow decoded it"))


@pytest.fixture
def only_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turbojpeg, "library", lambda: None)


def line(function: Callable[..., object], *arguments: object) -> str:
    """What Unreadable says: one line, of no file and no object."""
    with pytest.raises(Unreadable) as caught:
        function(*arguments)
    words = str(caught.value)
    assert words
    assert words.isprintable()
    assert "BytesIO" not in words
    return words


JPEGS = {
    "4:4:4": {"subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "4:2:0": {"subsampling": 2},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_rows": 1},
    "RGB, by Adobe's marker": {"keep_rgb": True},
    "quality 5": {"quality": 5},
}


@pytest.mark.usefixtures("only_turbojpeg")
@pytest.mark.parametrize("kind", JPEGS)
def test_a_jpeg_is_decoded_as_pillow_does(kind: str) -> None:
    strips = [SMALL.resize(size) for size in ((1, 1), (300, 1), (1, 300))]
    for image in (PHOTO, SMALL, PHOTO.convert("L"), *strips):
        if image.mode == "L" and kind.startswith("RGB"):
            continue
        content = encode(image, **JPEGS[kind])
        assert read_header(content) == Header(image.height, image.width, 1, "JPEG", image.mode)
        assert np.array_equal(decode(content), by_pillow(content))


@pytest.mark.usefixtures("only_turbojpeg")
@pytest.mark.parametrize("size", [1, 48, 224])
def test_a_crop_is_pillows_crop_and_resize(size: int) -> None:
    rng = np.random.default_rng(size)
    content = encode(PHOTO)
    for _ in range(20):
        top, left = int(rng.integers(0, 200)), int(rng.integers(0, 300))
        box = Box(top, left, int(rng.integers(1, 215 - top)), int(rng.integers(1, 321 - left)))
        if min(box.height, box.width) >= 4 * size:
            continue  # of a scaled image, see below
        found = decode_crop(content, this(box), size)
        assert (found.shape, found.dtype) == ((size, size, 3), np.uint8)
        assert np.abs(found - resized_by_pillow(content, box, size)).max() <= 1


@pytest.mark.usefixtures("only_turbojpeg")
@pytest.mark.parametrize("name", ["china.jpg", "flower.jpg"])
@pytest.mark.parametrize("options", [{}, {"exif": exif(6)}, {"progressive": True, "subsampling": 0}])
def test_a_crop_of_a_scaled_image_is_near_pillows(name: str, options: dict[str, object]) -> None:
    """A photograph as a camera makes it, with little detail at the level of pixels."""
    content = encode(sample(name, 3200, 2135), quality=90, **options)
    height, width = read_header(content)[:2]
    for box in (Box(0, 0, height, width), Box(3, 6, height - 13, width - 41), Box(101, 203, 1500, 1200)):
        found = decode_crop(content, this(box), 224)  # at 1/8, at 1/8 and at 1/4
        assert psnr(found, resized_by_pillow(content, box, 224)) >= 40


@pytest.mark.usefixtures("only_turbojpeg")
@pytest.mark.parametrize("name", ["china.jpg", "flower.jpg"])
def test_the_worst_case_of_a_scaled_image(name: str) -> None:
    """Fine detail, and the scaled part has the wanted size as it is: Pillow's triangles are twice as wide."""
    content = encode(sample(name, 1280, 854), quality=90)
    found = decode_crop(content, this(Box(37, 51, 800, 800)), 100)
    assert psnr(found, resized_by_pillow(content, Box(37, 51, 800, 800), 100)) >= 33


@pytest.mark.parametrize("library", ["only_turbojpeg", "only_pillow"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(orientation: int, library: str, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue(library)
    content = encode(PHOTO, exif=exif(orientation))
    size = (320, 214) if orientation >= 5 else (214, 320)
    assert read_header(content) == Header(*size, orientation, "JPEG", "RGB")
    assert np.array_equal(decode(content), by_pillow(content))
    for box in (Box(7, 5, 100, 203), Box(0, 0, 214, 214), Box(size[0] - 60, size[1] - 50, 60, 50)):
        found = decode_crop(content, this(box), 50)
        torch.from_numpy(found)  # has no negative strides
        wanted = resized_by_pillow(content, box, 50)
        if min(box[2:]) < 200:
            assert np.abs(found - wanted).max() <= 1
        else:  # scaled, maybe
            assert psnr(found, wanted) >= 33
    assert decode_resized(content, 107).shape == (size[0] // 2, size[1] // 2, 3)


@pytest.mark.parametrize("name", ["PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_other_formats(name: str, orientation: int) -> None:
    Image.init()
    if name not in Image.SAVE:
        pytest.skip(f"this Pillow writes no {name}")
    content = encode(SMALL, name, exif=exif(orientation))
    wanted = by_pillow(content)
    assert wanted.shape[:2] == ((31, 23) if orientation >= 5 else (23, 31))
    assert read_header(content)[:2] == wanted.shape[:2]
    assert np.array_equal(decode(content), wanted)


XMP = b"http://ns.adobe.com/xap/1.0/\0<rdf:Description tiff:Orientation=%s/>"


@pytest.mark.parametrize("library", ["only_turbojpeg", "only_pillow"])
def test_orientation_wherever_it_stands(library: str, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue(library)
    plain = encode(PHOTO)
    turned = with_segment(plain, 0xE1, b"Exif\0\0" + exif(6).tobytes()[6:])
    for content in (
        turned,
        with_segment(with_segment(turned, 0xE2, b"ICC_PROFILE\0\1\2" + bytes(65_000)), 0xE0, bytes(65_000)),
        with_segment(turned, 0xE2, b"\xff\xda\xff\xd9"),  # no markers: within a segment
        with_segment(turned, 0xFE, b"\xff" * 99),
        turned[:2] + b"\xff\xff\xff" + turned[2:],  # padding before a marker
        with_segment(plain, 0xE1, XMP % b'"6"'),
    ):
        assert read_header(content) == Header(320, 214, 6, "JPEG", "RGB")
        assert np.array_equal(decode(content), by_pillow(turned))
    assert np.array_equal(decode(with_segment(plain, 0xFE, b'Exif\0\0 tiff:Orientation="6"')), by_pillow(plain))


@pytest.mark.parametrize("library", ["only_turbojpeg", "only_pillow"])
def test_damaged_exif_is_no_orientation(library: str, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue(library)
    plain, block = encode(SMALL), b"Exif\0\0" + exif(6).tobytes()[6:]
    blocks = [block[:i] for i in range(6, len(block))] + [b"Exif\0\0" + bytes(30), b"Exif\0\0MM\0*\xff\xff\xff\xff"]
    for value in (0, 9, 65_535):
        blocks.append(b"Exif\0\0" + exif(value).tobytes()[6:])
    for bad in blocks:
        content = with_segment(plain, 0xE1, bad)
        upright = by_pillow(plain)
        if read_header(content).orientation == 6:  # cut behind the entry
            upright = np.rot90(upright, -1)
        assert np.array_equal(decode(content), upright)


def test_the_header_of_a_png_is_read_without_its_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL.PngImagePlugin import PngImageFile

    content = encode(PHOTO, "PNG")
    monkeypatch.setattr(PngImageFile, "load", lambda self: pytest.fail("it was decoded"))
    assert read_header(content) == Header(214, 320, 1, "PNG", "RGB")


@pytest.mark.usefixtures("only_turbojpeg")
def test_data_behind_the_end_does_no_harm() -> None:
    plain = encode(PHOTO)
    for more in (bytes(5000), np.random.default_rng(0).bytes(5000).replace(b"\xff", b"\0"), encode(SMALL), plain):
        assert np.array_equal(decode(plain + more), by_pillow(plain))
    preview = with_segment(plain, 0xE1, b"Exif\0\0" + exif(1).tobytes()[6:] + encode(SMALL))
    assert np.array_equal(decode(preview), by_pillow(plain))
    several = encode(PHOTO, "MPO", save_all=True, append_images=[SMALL, SMALL])
    assert read_header(several) == Header(214, 320, 1, "MPO", "RGB")
    assert np.array_equal(decode(several), by_pillow(several))


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


@pytest.mark.parametrize("image", [PHOTO, PHOTO.convert("L"), PHOTO.convert("CMYK")], ids=["RGB", "grey", "CMYK"])
def test_without_the_library_pillow_does_the_same(image: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    content = encode(image, exif=exif(8))
    box = Box(11, 13, 170, 150)
    first = decode(content), decode_crop(content, this(box), 64), decode_crop(content, whole, 32)
    monkeypatch.setattr(turbojpeg, "library", lambda: None)
    second = decode(content), decode_crop(content, this(box), 64), decode_crop(content, whole, 32)
    assert np.array_equal(first[0], second[0])
    assert np.abs(first[1] - second[1].astype(np.int16)).max() <= 1
    assert psnr(first[2], second[2]) >= 38  # 1/4 of its size against all of it


@pytest.mark.parametrize(("height", "width"), [(214, 320), (320, 214), (100, 100), (3, 500), (500, 3)])
def test_the_shorter_side_is_resized(height: int, width: int) -> None:
    for name in ("JPEG", "PNG"):
        content = encode(PHOTO.resize((width, height)), name)
        found = decode_resized(content, 20)
        assert found.shape == (20 * height // min(height, width), 20 * width // min(height, width), 3)
    image = Image.open(io.BytesIO(content)).resize(found.shape[1::-1], Image.Resampling.BILINEAR)
    assert np.abs(found - np.asarray(image).astype(np.int16)).max() <= 1
    assert np.array_equal(decode_resized(content, min(height, width)), decode(content))


@pytest.mark.parametrize("library", ["only_turbojpeg", "only_pillow"])
@pytest.mark.parametrize("size", [(60_000, 1), (1, 60_000)])
def test_a_strip_is_not_blown_up(size: tuple[int, int], library: str, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue(library)
    content = encode(Image.new("RGB", size))
    assert decode(content).shape == (*size[::-1], 3)
    assert decode_crop(content, whole, 7).shape == (7, 7, 3)
    assert "would be resized to" in line(decode_resized, content, 256)


@pytest.mark.parametrize("name", ["JPEG", "PNG"])
@pytest.mark.parametrize("box", [Box(0, 0, 24, 31), Box(-1, 0, 5, 5), Box(0, 30, 1, 2), Box(3, 3, 0, 3)])
def test_a_box_outside_is_the_callers_mistake(box: Box, name: str) -> None:
    with pytest.raises(ValueError, match="is not inside an image of 23x31"):
        decode_crop(encode(SMALL, name), this(box), 8)


def before_white(rgba: np.ndarray) -> np.ndarray:
    alpha = rgba[..., 3:].astype(float) / 255
    return rgba[..., :3] * alpha + 255 * (1 - alpha)


def levels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(np.int16)


class TestConversions:
    """What the module's table says, mode by mode."""

    @pytest.mark.parametrize("name", ["PNG", "GIF", "BMP", "TIFF"])
    @pytest.mark.parametrize("mode", ["1", "L", "P"])
    def test_modes_without_transparency(self, name: str, mode: str) -> None:
        image = SMALL.convert(mode)
        content = encode(image, name)
        assert read_header(content).format == name
        assert np.array_equal(decode(content), levels(image.convert("RGB")))

    @pytest.mark.parametrize("name", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
    def test_colour(self, name: str) -> None:
        content = encode(SMALL, name, **({"lossless": True} if name == "WEBP" else {}))
        assert read_header(content) == Header(23, 31, 1, name, "RGB")
        assert np.array_equal(decode(content), levels(SMALL))
        assert decode_crop(content, this(Box(3, 5, 11, 13)), 4).shape == (4, 4, 3)

    @pytest.mark.parametrize("mode", ["RGBA", "LA"])
    @pytest.mark.parametrize("name", ["PNG", "WEBP", "TIFF"])
    def test_transparency_stands_before_white(self, mode: str, name: str) -> None:
        image = SMALL.convert(mode)
        alpha = np.arange(23 * 31).reshape(23, 31) % 256
        alpha[:5], alpha[5:10] = 0, 255
        image.putalpha(Image.fromarray(alpha.astype(np.uint8)))
        found = decode(encode(image, name, **({"lossless": True} if name == "WEBP" else {})))
        assert (found[:5] == 255).all()
        assert np.array_equal(found[5:10], levels(image.convert("RGB"))[5:10])
        assert np.abs(found - before_white(np.asarray(image.convert("RGBA")))).max() <= 1

    @pytest.mark.parametrize("name", ["PNG", "GIF"])
    def test_palette_with_transparency(self, name: str) -> None:
        image = SMALL.quantize(8)
        indices = np.asarray(image)
        found = decode(encode(image, name, transparency=3))
        assert (indices == 3).any()
        assert (found[indices == 3] == 255).all()
        assert np.array_equal(found[indices != 3], levels(image.convert("RGB"))[indices != 3])

    def test_palette_with_levels_of_transparency(self) -> None:
        image = SMALL.quantize(4)
        indices = np.asarray(image)
        found = decode(encode(image, "PNG", transparency=bytes([0, 85, 170, 255])))
        rgba = np.dstack([levels(image.convert("RGB")), indices * 85])
        assert np.abs(found - before_white(rgba)).max() <= 1

    def test_grey_of_16_bits_is_rounded(self) -> None:
        values = np.array([[0, 128, 129, 257, 514, 32767, 32768, 65534, 65535]], np.uint16)
        for name in ("PNG", "TIFF"):
            found = decode(encode(Image.fromarray(values), name))
            assert np.array_equal(found[..., 0], np.round(values / 257))
            assert (found == found[..., :1]).all()
        pgm = b"P5 9 1 65535\n" + values.astype(">u2").tobytes()
        assert np.array_equal(decode(pgm)[0, :, 2], np.round(values / 257)[0])

    def test_colour_of_16_bits_loses_its_lower_byte(self) -> None:
        values = np.array([[[0, 257, 65535], [255, 256, 511]]], ">u2")
        assert decode(png(2, 1, 16, 2, b"\0" + values.tobytes())).tolist() == [[[0, 1, 255], [0, 1, 1]]]

    @pytest.mark.parametrize("name", ["JPEG", "TIFF"])
    def test_cmyk_is_as_pillow_converts_it(self, name: str) -> None:
        content = encode(SMALL.convert("CMYK"), name)
        assert read_header(content).mode == "CMYK"
        assert np.array_equal(decode(content), by_pillow(content))

    def test_of_several_frames_the_first(self) -> None:
        frames = [SMALL.rotate(90), SMALL.rotate(180)]
        for name in ("GIF", "WEBP", "PNG", "TIFF"):
            content = encode(SMALL, name, save_all=True, append_images=frames)
            assert Image.open(io.BytesIO(content)).n_frames == 3  # type: ignore[attr-defined]
            assert np.array_equal(decode(content), by_pillow(content))

    def test_what_is_decoded_is_the_callers_own(self) -> None:
        for content in (encode(PHOTO), encode(PHOTO, "PNG"), encode(PHOTO.convert("LA"), "PNG")):
            boxes = [whole, this(Box(2, 3, 16, 16)), this(Box(2, 3, 77, 99)), this(Box(1, 1, 200, 200))]
            for found in (decode(content), *(decode_crop(content, crop, 16) for crop in boxes)):
                assert found.flags.writeable
                torch.from_numpy(found)  # warns of what can't be written to


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) print quit\n%%EOF\n"
SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'


@pytest.mark.parametrize("function", [read_header, decode, lambda content: decode_crop(content, whole, 8)])
class TestRefusals:
    """One line, the same from each function."""

    def test_empty(self, function: Callable[[bytes], object]) -> None:
        assert line(function, b"") == "the file is empty"

    def test_what_is_no_image(self, function: Callable[[bytes], object], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("a program was run"))
        for content in (EPS, SVG, b"text", bytes(100), b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"%PDF-1.7\n"):
            assert line(function, content) == "not an image in a known format, or its header is damaged"

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


def test_silence_ends_with_the_last_thread() -> None:
    """Warnings are as before, in whatever order threads come out."""
    before = list(warnings.filters)
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with decoding._silence:
            inside.set()
            leave.wait(3600)

    thread = threading.Thread(target=other)
    with decoding._silence:
        thread.start()
        assert inside.wait(3600)
    with warnings.catch_warnings(record=True) as heard:
        warnings.warn("of nobody's interest", stacklevel=1)  # the other one is still inside
    leave.set()
    thread.join()
    assert heard == []
    assert warnings.filters == before


def fuzz(seed: int, count: int) -> None:
    """Damaged images in a process of their own, so that a native crash is a failure and no end of the tests."""
    script = Path(__file__).with_name("fuzz_decoding.py")
    done = subprocess.run([sys.executable, str(script), str(seed), str(count)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    tried, good = map(int, done.stdout.split())
    assert tried == count
    assert count / 5 < good < count * 4 / 5


def test_damaged_images_are_unreadable_or_decoded() -> None:
    fuzz(0, 10_000)


@pytest.mark.slow
def test_very_many_damaged_images_are_unreadable_or_decoded() -> None:
    fuzz(1, 100_000)


def test_random_crops_of_imagenet_are_pillows(real_images: Callable[[str], Path]) -> None:
    """Boxes as in training, 8 to 100 % of the area; most of them are not scaled by the decoder."""
    rng, ratios = np.random.default_rng(0), []
    for path in sorted(real_images("imagenet-sample").rglob("*.JPEG")):
        content = path.read_bytes()
        height, width = read_header(content)[:2]
        area, aspect = height * width * rng.uniform(0.08, 1), math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        h, w = min(height, round(math.sqrt(area / aspect))), min(width, round(math.sqrt(area * aspect)))
        box = Box(int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1)), h, w)
        ratios.append(psnr(decode_crop(content, this(box), 224), resized_by_pillow(content, box, 224)))
    assert len(ratios) > 100
    assert np.median(ratios) >= 60
    assert min(ratios) >= 35
