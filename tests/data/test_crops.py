"""Crops: the side that is asked for, half of them mirrored, and the middle as Pillow cuts it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from resnetlab.data import crops
from resnetlab.data.crops import CROPS
from resnetlab.data.files import Files
from resnetlab.data.seeds import uniform
from resnetlab.data.streaming import ReadPlan, read_ahead


@pytest.mark.parametrize("name", CROPS)
def test_half_of_the_random_crops_are_mirrored(pictures: Files, name: str) -> None:
    crop, count = CROPS[name], len(pictures)
    assert crop.flip == (name in ("scale_crop_flip_colour", "resized_crop_flip"))
    (read,) = read_ahead(ReadPlan(pictures, torch.arange(count), crop, 16, seed=5, epoch=2), [(0, count)])
    draws, flips = (uniform(words, 5, 2, 0, count, number) for words, number in (("cut", crop.draws), ("flip", 1)))
    mirrored = 0
    for i, pixels in enumerate(read.pixels):
        plain = torch.from_numpy(crop.pixels(pictures.read(i), draws[i].tolist(), 16).copy()).permute(2, 0, 1)
        flip = crop.flip and bool(flips[i] < 0.5)
        assert torch.equal(pixels, plain.flip(2) if flip else plain)
        mirrored += flip
    assert 8 < mirrored < 29 if crop.flip else not mirrored


@pytest.mark.parametrize("name", CROPS)
@pytest.mark.parametrize("shape", [(50, 50), (31, 200), (500, 60), (1, 1), (7, 3)])
def test_every_crop_gives_the_side_that_is_asked_for(name: str, shape: tuple[int, int]) -> None:
    import io

    buffer = io.BytesIO()
    Image.new("RGB", shape, "red").save(buffer, "PNG")
    for value in (0.0, 0.5, 0.999999):
        pixels = CROPS[name].pixels(buffer.getvalue(), [value] * CROPS[name].draws, 32)
        assert pixels.shape == (32, 32, 3)
        assert pixels.dtype == np.uint8
        assert (pixels == [255, 0, 0]).all()


@pytest.mark.parametrize(("draw", "side", "corner"), [(0.0, 256, (0, 0)), (0.999999, 480, (76, 86))])
def test_a_scaled_crop_reaches_every_side_and_place(
    monkeypatch: pytest.MonkeyPatch, draw: float, side: int, corner: tuple[int, int]
) -> None:
    """A short side from 256 to 480 pixels, and of an image of 300 x 310 each place of 224 x 224."""
    asked: list[int] = []

    def places(content: bytes, short_side: int) -> np.ndarray:
        asked.append(short_side)
        return np.mgrid[:300, :310].transpose(1, 2, 0)

    monkeypatch.setattr(crops, "decode_resized", places)
    found = crops.scaled_crop(b"", [draw] * 3, 224)
    assert asked == [side]
    assert (found.shape[:2], tuple(found[0, 0])) == ((224, 224), corner)


def test_the_middle_is_pillows(pictures: Files) -> None:
    """Short side to 256/224, centre crop, as the papers' 1-crop: made anew with Pillow."""
    for i in range(10):
        with Image.open(pictures.place(i)) as image:
            short = min(image.size)
            size = tuple(37 * side // short for side in image.size)
            resized = image.convert("RGB").resize(size, Image.Resampling.BILINEAR)
        left, top = ((side - 32) / 2 for side in size)
        wanted = np.asarray(resized.crop((round(left), round(top), round(left) + 32, round(top) + 32))).astype(int)
        found = crops.centre_crop(pictures.read(i), [], 32)
        assert np.abs(found - wanted).max() <= 1
