"""Heat maps over photographs: colours, where they lie, and what is cropped away."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from PIL import Image

from resnetlab.use.heat import STRENGTH, WHOLE, CropArea, encoded, heat_image, overlay, side_by_side


def test_a_heat_map_is_its_values_and_its_palette_the_colours() -> None:
    heat = torch.linspace(0, 1, 256).view(16, 16)
    picture = heat_image(heat)
    assert (picture.mode, picture.size) == ("P", (16, 16))
    assert np.asarray(picture).ravel().tolist() == list(range(256))
    wanted = 255 * np.array([colormaps["viridis"](i)[:3] for i in range(256)])
    colours = np.asarray(picture.convert("RGB")).reshape(256, 3)
    assert np.abs(colours - wanted).max() < 6.5, "matplotlib's viridis, in straight lines between 17 of its colours"
    grey = np.asarray(picture.convert("RGB").convert("L")).ravel().astype(int)
    assert (np.diff(grey) >= 0).all()
    assert grey[-1] - grey[0] > 150


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_seen_shines_through_the_colours(channels: int) -> None:
    pixels = torch.randint(0, 256, (channels, 32, 32), dtype=torch.uint8)
    picture = np.asarray(overlay(pixels, torch.zeros(32, 32))).astype(float)
    assert picture.shape == (256, 256, 3)
    seen = pixels.expand(3, -1, -1).permute(1, 2, 0).repeat_interleave(8, 0).repeat_interleave(8, 1).numpy()
    coldest = 255 * np.array(colormaps["viridis"](0)[:3])
    assert np.abs(picture - ((1 - STRENGTH) * seen + STRENGTH * coldest)).max() < 3


def test_the_photograph_keeps_its_resolution_and_its_crop_has_the_heat() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (300, 500, 3), np.uint8)
    heat = torch.zeros(4, 4)
    heat[:, 2:] = 1
    picture = np.asarray(side_by_side(photo, heat, CropArea(0.2, 0.1, 0.48, 0.8))).astype(float)
    assert picture.shape == (300, 2 * 500 + 8, 3)
    assert (picture[:, :500] == photo).all()
    assert (picture[:, 500:508] == 255).all()
    right = picture[:, 508:]
    faded = 0.3 * photo + 0.7 * 255
    outside = np.ones((300, 500), bool)
    outside[30:270, 100:340] = False
    assert np.abs(right - faded)[outside].max() < 2, "what is cropped away is faded"
    cold, hot = (255 * np.array(colormaps["viridis"](v)[:3]) for v in (0, 255))
    for colour, columns in ((cold, slice(102, 180)), (hot, slice(260, 338))):  # between them it is smooth
        wanted = (1 - STRENGTH) * photo[32:268, columns] + STRENGTH * colour
        assert np.abs(right[32:268, columns] - wanted).max() < 3
    assert (right[30, 100:340] == 255).all(), "a white line around it"


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        ((8, 8), (256, 256)),
        ((8, 20), (256, 640)),
        ((250, 100), (750, 300)),
        ((1000, 3), (2000, 6)),
        ((3, 3000), (3, 3000)),
    ],
)
def test_small_pictures_are_enlarged(size: tuple[int, int], shown: tuple[int, int]) -> None:
    photo = np.full((*size, 3), 9, np.uint8)
    picture = side_by_side(photo, torch.ones(8, 8), WHOLE)
    height, width = shown
    assert picture.size == (2 * width + 8, height)
    assert picture.getpixel((0, 0)) == (9, 9, 9)


@pytest.mark.parametrize("crop", [CropArea(0.0, 0.49, 1.0, 0.02), CropArea(0.999, 0.999, 0.001, 0.001), WHOLE])
def test_a_crop_has_a_pixel_at_least_and_lies_within(crop: CropArea) -> None:
    for width, height in ((1, 1), (7, 3), (3000, 2)):
        left, top, right, bottom = crop.box(width, height)
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height


def test_jpegs_become_jpegs_unless_they_are_too_long() -> None:
    for side, format, name in ((9, "JPEG", ".jpg"), (9, "PNG", ".png"), (65_501, "JPEG", ".png")):
        original = io.BytesIO()
        Image.new("RGB", (9, 9)).save(original, format)
        suffix, content = encoded(Image.new("RGB", (side, 1)), original.getvalue())
        assert suffix == name
        assert Image.open(io.BytesIO(content)).size == (side, 1)
