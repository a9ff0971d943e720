"""Crops that turn an encoded image into a square of pixels: random ones for training, the middle for tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from resnetlab.data.augmentation import RESIZED_CROP_DRAWS, resized_crop_box
from resnetlab.data.decoding import Box, decode_crop, decode_resized
from resnetlab.data.resizing import CROP_SIDE, USUAL, Resizing

SCALES = (256, 480)  # short sides for crops of 224 (He 2015, section 3.4)


class Crop(NamedTuple):
    """A way to crop: (encoded image, draws, side) -> uint8 side side 3, how many draws, whether half are mirrored."""

    pixels: Callable[[bytes, Sequence[float], int], np.ndarray]
    draws: int
    flip: bool


def centre_crop(content: bytes, draws: Sequence[float], size: int, resizing: Resizing = USUAL) -> np.ndarray:
    """Resize the short side, by default to 256/224 of `size`, crop the middle (He 2015, section 3.4: 1-crop)."""
    image = decode_resized(content, resizing.short_side(size), resizing.interpolation)
    height, width, _ = image.shape
    top, left = round((height - size) / 2), round((width - size) / 2)
    return image[top : top + size, left : left + size]


def scaled_crop(content: bytes, draws: Sequence[float], size: int) -> np.ndarray:
    """Resize the short side to a length uniform in [256, 480]/224 of `size`, crop at random (He 2015, section 3.4)."""
    low, high = (round(size * side / CROP_SIDE) for side in SCALES)
    image = decode_resized(content, low + int(draws[0] * (high - low + 1)))
    height, width, _ = image.shape
    top, left = int(draws[1] * (height - size + 1)), int(draws[2] * (width - size + 1))
    return image[top : top + size, left : left + size]


def resized_crop(content: bytes, draws: Sequence[float], size: int) -> np.ndarray:
    """Crop a part of random area and shape, and resize it (`augmentation.resized_crop_box`)."""
    return decode_crop(content, lambda height, width: Box(*resized_crop_box(draws, height, width)), size)


def middle(resizing: Resizing) -> Crop:
    """The crop of tests."""
    return Crop(partial(centre_crop, resizing=resizing), 0, False)


CENTRE_CROP = middle(USUAL)
# By the recipe's `augment`. The first three crop the middle, which all but `none` then shift and flip, as they do with
# images in memory.
CROPS = {
    "none": CENTRE_CROP,
    "crop_flip": CENTRE_CROP,
    "crop_alternating_flip": CENTRE_CROP,
    "scale_crop_flip_colour": Crop(scaled_crop, 3, True),
    "resized_crop_flip": Crop(resized_crop, RESIZED_CROP_DRAWS, True),
}
