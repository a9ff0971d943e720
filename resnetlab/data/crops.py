"""How an encoded image becomes a square of pixels: for training at random, for tests the middle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from resnetlab.data.augmentation import RESIZED_CROP_DRAWS, resized_crop_box
from resnetlab.data.decoding import Box, decode_crop, decode_resized

# Short sides as the papers have them, for crops of 224; for other crops they grow with the crop.
CROP_SIDE = 224
TEST_SIDE = 256  # He 2015, section 3.4, after AlexNet
SCALES = (256, 480)


class Crop(NamedTuple):
    """A way to crop: (encoded image, draws, side) -> uint8 side side 3, how many draws, whether half are mirrored."""

    pixels: Callable[[bytes, Sequence[float], int], np.ndarray]
    draws: int
    flip: bool


def centre_crop(content: bytes, draws: Sequence[float], size: int) -> np.ndarray:
    """Resize the short side to 256/224 of `size`, crop the middle (He 2015, section 3.4: 1-crop)."""
    image = decode_resized(content, round(size * TEST_SIDE / CROP_SIDE))
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


CENTRE_CROP = Crop(centre_crop, 0, False)
# By the recipe's `augment`. crop_flip shifts and flips what the middle gave, as it does with images in memory.
CROPS = {
    "none": CENTRE_CROP,
    "crop_flip": CENTRE_CROP,
    "scale_crop_flip_colour": Crop(scaled_crop, 3, True),
    "resized_crop_flip": Crop(resized_crop, RESIZED_CROP_DRAWS, True),
}
