"""A small picture of an image of a data set, as a data URI for a page."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image as PillowImage

from resnetlab.data import decoding
from resnetlab.data.files import Files
from resnetlab.data.images import Images

THUMBNAIL = 96  # pixels


def thumbnail(images: Images | Files, i: int) -> str:
    """The i-th image as a data URI, THUMBNAIL pixels on its longer side at most; "" for what can't be read."""
    if isinstance(images, Images):
        pixels = images.pixels[i].permute(1, 2, 0).cpu().numpy()
        return _uri(PillowImage.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels), "PNG")
    try:
        content = images.read(i)
        header = decoding.read_header(content)
        if min(header.height, header.width) > 2 * THUMBNAIL:  # cheaper than decoding all of it
            pixels = decoding.decode_resized(content, 2 * THUMBNAIL)
        else:
            pixels = decoding.decode(content)
    except (decoding.Unreadable, OSError, MemoryError):
        return ""
    return _uri(PillowImage.fromarray(np.ascontiguousarray(pixels)), "JPEG")


def _uri(picture: PillowImage.Image, format: str) -> str:
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    made = io.BytesIO()
    picture.save(made, format, quality=80)
    return f"data:image/{format.lower()};base64,{base64.b64encode(made.getvalue()).decode()}"
