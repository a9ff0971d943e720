"""How test images are resized: short sides as timm's and torchvision's, pixels as Pillow's."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest
from PIL import Image

from resnetlab.data.crops import centre_crop
from resnetlab.data.files import Files
from resnetlab.data.loading import Loader
from resnetlab.data.normalisation import imagenet
from resnetlab.data.resizing import INTERPOLATIONS, USUAL, Interpolation, Resizing
from resnetlab.data.tta import VIEWS, read_views
from resnetlab.data.understood import Understood

SHARES = (0.875, 0.9, 0.94, 0.95, 0.965, 1.0)


def pillows(content: bytes, short_side: int, size: int, interpolation: str) -> np.ndarray:
    """What torchvision's Resize and CenterCrop make of an image, written with Pillow alone: int H W 3."""
    with Image.open(io.BytesIO(content)) as opened:
        image = opened.convert("RGB")
    width, height = image.size
    if width <= height:
        sides = short_side, int(short_side * height / width)
    else:
        sides = int(short_side * width / height), short_side
    image = image.resize(sides, Image.Resampling[interpolation.upper()])
    left, top = (round((side - size) / 2.0) for side in sides)
    return np.asarray(image.crop((left, top, left + size, top + size))).astype(int)


def picture(width: int, height: int, seed: int = 0) -> bytes:
    """Coloured noise, half of it smooth."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    smooth = Image.fromarray(pixels[: height // 8, : width // 8]).resize((width, height), Image.Resampling.BICUBIC)
    made = io.BytesIO()
    Image.blend(Image.fromarray(pixels), smooth, 0.7).save(made, "PNG")
    return made.getvalue()


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("size", [32, 160, 176, 224, 240, 288, 320])
def test_the_short_side_is_timms(share: float, size: int) -> None:
    """timm.data.transforms_factory: math.floor(img_size / crop_pct)."""
    assert Resizing(share).short_side(size) == math.floor(size / share)


def test_the_short_side_is_torchvisions_and_the_papers() -> None:
    assert Resizing.to_side(232, 224).short_side(224) == 232
    assert Resizing.to_side(256, 224) == USUAL
    for short in range(224, 800):
        assert Resizing.to_side(short, 224).short_side(224) == short
    assert [USUAL.short_side(size) for size in (32, 64, 160, 224)] == [37, 73, 183, 256]


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("share", [None, 0.95, 1.0])
@pytest.mark.parametrize("sides", [(90, 60), (61, 117), (64, 64), (200, 37), (20, 31)])
def test_pixels_are_pillows(share: float | None, interpolation: Interpolation, sides: tuple[int, int]) -> None:
    content, resizing = picture(*sides), Resizing(share, interpolation)
    found = centre_crop(content, (), 32, resizing).astype(int)
    assert np.abs(found - pillows(content, resizing.short_side(32), 32, interpolation)).max() <= 1


def test_the_interpolations_differ() -> None:
    content = picture(90, 60)
    by_both = [centre_crop(content, (), 32, Resizing(0.95, kind)).astype(int) for kind in ("bilinear", "bicubic")]
    assert np.abs(by_both[0] - by_both[1]).max() > 5


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_a_large_jpeg_is_near_pillows(interpolation: Interpolation) -> None:
    """Which is decoded at a quarter or an eighth of its size."""
    smooth = Image.open(io.BytesIO(picture(80, 60))).resize((800, 600), Image.Resampling.BICUBIC)
    made = io.BytesIO()
    smooth.save(made, "JPEG", quality=95)
    resizing = Resizing(0.95, interpolation)
    found = centre_crop(made.getvalue(), (), 64, resizing).astype(int)
    difference = found - pillows(made.getvalue(), resizing.short_side(64), 64, interpolation)
    assert np.sqrt(np.square(difference).mean()) < 2.55  # 40 dB


def test_batches_and_views_are_resized_so(pictures: Files) -> None:
    resizing = Resizing(0.8, "bicubic")
    wanted = [centre_crop(pictures.read(i), (), 24, resizing).transpose(2, 0, 1) for i in range(len(pictures))]
    loader = Loader(imagenet(), 10, size=24, resizing=resizing)
    normalised = np.concatenate([x.numpy() for x, _ in loader.evaluation(pictures, 16)])
    mean, std = (t.numpy() for t in (imagenet().mean, imagenet().std))
    assert np.abs(normalised * std + mean - np.stack(wanted) / 255).max() < 1e-6
    for (found,), crop in zip(read_views(pictures, VIEWS["1-crop"], 24, resizing=resizing), wanted, strict=True):  # type: ignore[misc]
        assert np.array_equal(found, crop)
    ten = next(read_views(pictures, VIEWS["10-crop"], 24, resizing=resizing))
    assert ten is not None
    assert np.array_equal(ten[4], wanted[0])
    (batch,) = loader.training(pictures, len(pictures), seed=0, epoch=1)  # without an augmentation the middle, too
    assert {x.numpy().tobytes() for x in batch.x} == {x.tobytes() for x in normalised}


@pytest.mark.parametrize(
    "values",
    [None, [], {"crop_share": 0.1}, {"crop_share": 1.01}, {"crop_share": "x"}, {"crop_share": True}]
    + [{"interpolation": "lanczos"}, {"interpolation": None}, {"short_side": 256}],
)
def test_what_is_no_resizing_is_refused(values: Any) -> None:
    with pytest.raises(ValueError, match="resizing"):
        Resizing.from_dict(values)


def test_it_is_kept_as_json_and_said() -> None:
    for resizing in (USUAL, Resizing(0.95, "bicubic"), Resizing(1.0)):
        assert Resizing.from_dict(resizing.to_dict()) == resizing
    said = Understood(("a", "b"), size=224, resizing=Resizing(0.95, "bicubic"))
    assert "; 224 pixels, centre crop, from a short side of 235, bicubic" in str(said)
    assert said.to_dict()["resize_short_side"] == 235
    assert said.to_dict()["interpolation"] == "bicubic"
    assert "resize_short_side" not in Understood(("a",), size=224).to_dict()
