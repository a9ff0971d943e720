"""Heat maps: where a network looked, as colours over the photograph, with the cropped-away part faded."""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

# viridis of van der Walt & Smith (2015) at 17 even steps: its lightness rises evenly, so that the order survives grey
# print and colour blindness, and its dark end is coloured, unlike a shadow in the photograph.
COLOURS = (
    "#440154", "#48186a", "#472d7b", "#424086", "#3b528b", "#33638d", "#2c728e", "#26828e", "#21918c",
    "#1f9f88", "#27ad81", "#3dbc74", "#5cc863", "#81d34d", "#aadc32", "#d5e21a", "#fde725",
)  # fmt: skip
STRENGTH = 0.6  # of the colours over the photograph, 0 to 1
_FADED = 0.7  # share of white over the part that the network does not see
_GAP = 8  # pixels between the two pictures
_SHORT, _LONG = 256, 2048  # pixels: target for the short side of an enlarged picture, and limit for the long side
_MOST_JPEG = 65_500  # pixels of a side


class CropArea(NamedTuple):
    """The part of an upright image that a network sees, in shares of the image's width and height."""

    left: float
    top: float
    width: float
    height: float

    def box(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom in an image of that size, in pixels; a pixel at least."""
        left, top = min(round(self.left * width), width - 1), min(round(self.top * height), height - 1)
        right, bottom = round((self.left + self.width) * width), round((self.top + self.height) * height)
        return left, top, max(right, left + 1), max(bottom, top + 1)


WHOLE = CropArea(0.0, 0.0, 1.0, 1.0)


def heat_image(heat: Tensor) -> Image.Image:
    """A heat map, H W, 0 to 1, as a picture of one byte per pixel: 255 is the maximum, and COLOURS the palette."""
    return _coloured(_levels(heat))


def overlay(pixels: Tensor, heat: Tensor) -> Image.Image:
    """The network's input (uint8 C H W) under its heat map (H W, 0 to 1), enlarged if it is small."""
    picture = _enlarged(pixels.expand(3, -1, -1).permute(1, 2, 0).cpu().numpy())
    _paint(picture, heat, WHOLE, (0, 0, picture.width, picture.height))
    return picture


def side_by_side(photo: np.ndarray, heat: Tensor, crop: CropArea) -> Image.Image:
    """The photograph (uint8 H W 3), and beside it the same under the heat map (H W, 0 to 1) of its part `crop`.

    Both have the photograph's own resolution; small ones are enlarged. The part outside `crop` is faded.
    """
    picture = _enlarged(photo)
    width, height = picture.size
    canvas = Image.new("RGB", (2 * width + _GAP, height), "white")
    for left in (0, width + _GAP):
        canvas.paste(picture, (left, 0))
    _paint(canvas, heat, crop, (width + _GAP, 0, 2 * width + _GAP, height))
    return canvas


def encoded(picture: Image.Image, like: bytes) -> tuple[str, bytes]:
    """The suffix and content of a file: JPEG if the encoded image `like` is one and the size allows it, else PNG."""
    written = io.BytesIO()
    if like.startswith(b"\xff\xd8\xff") and max(picture.size) <= _MOST_JPEG:
        picture.save(written, "JPEG", quality=95, subsampling=0)
        return ".jpg", written.getvalue()
    picture.save(written, "PNG")
    return ".png", written.getvalue()


def _paint(canvas: Image.Image, heat: Tensor, crop: CropArea, area: tuple[int, int, int, int]) -> None:
    """Lay the heat map on the part `crop` of the picture in `area` of the canvas, and fade the rest of that picture."""
    left, top, right, bottom = area
    inner = crop.box(right - left, bottom - top)
    inner = (left + inner[0], top + inner[1], left + inner[2], top + inner[3])
    for rest in (
        (left, top, right, inner[1]),
        (left, inner[3], right, bottom),
        (left, inner[1], inner[0], inner[3]),
        (inner[2], inner[1], right, inner[3]),
    ):
        _blend(canvas, "white", rest, _FADED)
    size = (inner[2] - inner[0], inner[3] - inner[1])
    colours = _coloured(_levels(heat).resize(size, Image.Resampling.BILINEAR)).convert("RGB")
    _blend(canvas, colours, inner, STRENGTH)
    if crop != WHOLE:
        ImageDraw.Draw(canvas).rectangle(
            (inner[0], inner[1], inner[2] - 1, inner[3] - 1), outline="white", width=max(1, (right - left) // 400)
        )


def _blend(canvas: Image.Image, over: Image.Image | str, box: tuple[int, int, int, int], share: float) -> None:
    """Blend a picture or colour, with this share, over a box of the canvas."""
    size = (box[2] - box[0], box[3] - box[1])
    if min(size) > 0:
        canvas.paste(over, box, Image.new("L", size, round(255 * share)))


def _levels(heat: Tensor) -> Image.Image:
    """A heat map, H W, 0 to 1, in bytes."""
    return Image.fromarray((255 * heat.clamp(0, 1)).round().byte().cpu().numpy())


def _coloured(values: Image.Image) -> Image.Image:
    """A picture of one byte per pixel, with COLOURS as its palette."""
    stops = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in COLOURS])
    at = np.linspace(0, 255, len(stops))
    palette = np.stack([np.interp(np.arange(256), at, stops[:, i]) for i in range(3)], axis=1).round().astype(np.uint8)
    coloured = Image.frombytes("P", values.size, values.tobytes())
    coloured.putpalette(palette.tobytes())
    return coloured


def _enlarged(image: np.ndarray) -> Image.Image:
    """Enlarge uint8 H W 3 by a whole factor, so that its short side is near _SHORT and the other at most _LONG."""
    short, long = sorted(image.shape[:2])
    times = max(1, min(round(_SHORT / short), _LONG // long))
    picture = Image.fromarray(image)
    size = (times * picture.width, times * picture.height)
    return picture.resize(size, Image.Resampling.NEAREST) if times > 1 else picture
