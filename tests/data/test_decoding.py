"""Decoding: JPEGs in part and others whole, upright, as Pillow decodes and resizes them."""

from __future__ import annotations

import io
import math
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from made_images import (
    PHOTO,
    SMALL,
    by_pillow,
    encode,
    exif,
    line,
    psnr,
    resized_by_pillow,
    sample,
    this,
    whole,
    with_segment,
)
from PIL import Image

from resnetlab.data import decoding, turbojpeg
from resnetlab.data.decoding import (
    Box,
    Header,
    decode,
    decode_crop,
    decode_resized,
    read_header,
)


@pytest.fixture
def only_turbojpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where pixels come from Pillow."""
    if turbojpeg.library() is None:
        pytest.skip("needs TurboJPEG 3, which is not installed")
    monkeypatch.setattr(decoding, "_pixels", lambda content: pytest.fail("Pillow decoded it"))


@pytest.fixture
def only_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turbojpeg, "library", lambda: None)


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


@pytest.mark.usefixtures("only_turbojpeg")
def test_a_scaled_image_is_resized_without_torch() -> None:
    """So what a process without torch hands over is small."""
    content = encode(sample("china.jpg", 1277, 853), quality=90, exif=exif(6))
    part = decoding.decode_part(content, 100)
    assert part.pixels.shape == (100, 149, 3)  # as it is stored; decoded at 1/8 it had 107 x 160
    found = decoding.finish(part)
    assert found.shape == (149, 100, 3)
    whole = Image.fromarray(decode(content)).resize((100, 149), Image.Resampling.BILINEAR)
    assert psnr(found, np.asarray(whole)) >= 30
    sharper = decoding.finish(decoding.decode_part(content, 100, "bicubic"))
    assert not np.array_equal(sharper, found)
    assert np.array_equal(sharper, decode_resized(content, 100, "bicubic"))


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
