"""Test-time augmentation: the views of an image to average, ten crops or several scales; read ahead."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from resnetlab.data.crops import centre_crop
from resnetlab.data.decoding import Unreadable, decode_resized, reason
from resnetlab.data.files import Files
from resnetlab.data.resizing import CROP_SIDE, USUAL, Resizing
from resnetlab.data.streaming import BadImages
from resnetlab.data.workers import KILLED, over_images

TEST_SCALES = (224, 256, 384, 480, 640)  # short sides (He 2015, section 3.4); they grow with the network's input
LONGEST = 4  # maximum ratio of the sides; longer images are cropped to the middle, so that a strip can't fill memory


class Views(NamedTuple):
    """A way to look at an image in a test: (encoded image, the network's side, how it is resized) -> parts of it,
    uint8 H W 3 each.
    """

    crops: Callable[[bytes, int, Resizing], list[np.ndarray]]
    mirrored: bool  # the mirror image of each part always belongs to it
    whole: bool  # the parts are larger than the network's input: it is applied at every place of them


def one_crop(content: bytes, size: int, resizing: Resizing = USUAL) -> list[np.ndarray]:
    """The middle alone (`crops.centre_crop`)."""
    return [centre_crop(content, (), size, resizing)]


def five_crops(content: bytes, size: int, resizing: Resizing = USUAL) -> list[np.ndarray]:
    """The four corners and the middle of the image, its short side resized, by default to 256/224 of `size`.

    With their mirror images they are the ten crops of Krizhevsky 2012, section 4.1, and of He 2015, section 3.4. The
    corners are those of the whole image, not of its middle square.
    """
    image = decode_resized(content, resizing.short_side(size), resizing.interpolation)
    bottom, right = image.shape[0] - size, image.shape[1] - size
    places = [(0, 0), (0, right), (bottom, 0), (bottom, right), (round(bottom / 2), round(right / 2))]
    return [image[top : top + size, left : left + size] for top, left in places]


def at_scales(content: bytes, size: int, resizing: Resizing = USUAL) -> list[np.ndarray]:
    """The whole image with its short side resized to TEST_SCALES/224 of `size` (He 2015, section 3.4)."""
    return [_bounded(decode_resized(content, side, resizing.interpolation)) for side in sides(size)]


def sides(size: int) -> list[int]:
    """The short sides for a network of this input size, e.g. 32, 37, 55, 69, 91 for 32."""
    return [round(size * scale / CROP_SIDE) for scale in TEST_SCALES]


VIEWS = {
    "1-crop": Views(one_crop, mirrored=False, whole=False),
    "10-crop": Views(five_crops, mirrored=True, whole=False),
    "multi-scale": Views(at_scales, mirrored=False, whole=True),
}


def read_views(
    files: Files,
    views: Views,
    size: int,
    workers: int = 0,
    unreadables: BadImages | None = None,
    resizing: Resizing = USUAL,
) -> Iterator[list[np.ndarray] | None]:
    """Yield the views of each image in order; `workers` processes decode ahead, with 0 this one does it.

    None stands for an unreadable image if `unreadables` skips it; otherwise raises UserError, naming the file.
    """
    unreadables = unreadables or BadImages()
    read = partial(_read, views, size, resizing)
    found = over_images(read, files, workers) if workers else (read(files, i) for i in range(len(files)))
    with contextlib.closing(found):  # an error's traceback would hold it, and its processes, as long as it is kept
        for i, parts in enumerate(found):
            if parts is None or isinstance(parts, str):
                unreadables.note(files, [(i, parts or f"it {KILLED}")])
                yield None
            else:
                yield parts


def _read(views: Views, size: int, resizing: Resizing, files: Files, i: int) -> list[np.ndarray] | str:
    """The views of one image, or why there are none."""
    try:
        return [
            np.ascontiguousarray(part.transpose(2, 0, 1)) for part in views.crops(files.read(i), size, resizing)
        ]  # C H W
    except (Unreadable, OSError) as error:
        return reason(error)


def _bounded(image: np.ndarray) -> np.ndarray:
    """The image, H W 3; the middle of it along a side that is more than LONGEST times the other."""
    most = LONGEST * min(image.shape[:2])
    top, left = (max(0, (side - most) // 2) for side in image.shape[:2])
    return image[top : top + most, left : left + most]
