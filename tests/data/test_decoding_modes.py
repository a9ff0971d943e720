"""Decoding: one conversion for each mode, as the table of the module says."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from made_images import (
    PHOTO,
    SMALL,
    by_pillow,
    encode,
    levels,
    png,
    this,
    whole,
)
from PIL import Image

from resnetlab.data.decoding import (
    Box,
    Header,
    decode,
    decode_crop,
    read_header,
)


def before_white(rgba: np.ndarray) -> np.ndarray:
    alpha = rgba[..., 3:].astype(float) / 255
    return rgba[..., :3] * alpha + 255 * (1 - alpha)


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
