"""Damaged images of all formats through every function: `fuzz_decoding.py SEED COUNT`, a process of its own.

A crash of a native decoder ends the process, a warning or any exception but Unreadable ends it with a traceback.
"""

from __future__ import annotations

import io
import itertools
import random
import sys
import warnings

import numpy as np
import torch
from PIL import Image

from resnetlab.data import decoding
from resnetlab.data.decoding import Box, Unreadable, decode, decode_crop, decode_resized, read_header

MOST = 300_000  # pixels: a header that lies about its size costs time, not more
MARKERS = [b"\xff" + bytes([kind]) for kind in (0xC0, 0xC2, 0xC3, 0xC4, 0xC9, 0xD8, 0xD9, 0xDA, 0xDB, 0xDD, 0xE1, 0xEE)]


def seeds() -> list[bytes]:
    """Small images of all formats; JPEGs of every kind are half of them."""
    y, x = np.mgrid[:90, :130] / 7
    colours = np.stack([np.sin(x + y), np.cos(x), np.sin(y)], axis=2)
    image = Image.fromarray((127 + 120 * colours).astype(np.uint8))
    small = image.resize((37, 21))
    exif = Image.Exif()
    exif[0x0112] = 6

    def encoded(image: Image.Image, name: str, **options: object) -> bytes:
        made = io.BytesIO()
        image.save(made, name, **options)
        return made.getvalue()

    alpha = small.convert("RGBA")
    alpha.putalpha(small.convert("L"))
    grey16 = Image.fromarray(np.asarray(small.convert("L")).astype(np.uint16) * 257)
    kinds = itertools.product((image, small), (0, 1, 2), (False, True))
    jpegs = [encoded(i, "JPEG", subsampling=s, progressive=p) for i, s, p in kinds]
    jpegs += [encoded(small.convert(mode), "JPEG") for mode in ("L", "CMYK")]
    jpegs += [encoded(small, "JPEG", exif=exif), encoded(image, "JPEG", restart_marker_blocks=3)]
    jpegs += [encoded(small, "JPEG", keep_rgb=True), encoded(image, "MPO", save_all=True, append_images=[small])]
    others = [encoded(small.convert(mode), "PNG") for mode in ("1", "L", "LA", "P", "RGB", "RGBA")]
    others += [encoded(grey16, "PNG"), encoded(small, "PNG", exif=exif)]
    others += [encoded(small.quantize(8), name, transparency=2) for name in ("PNG", "GIF")]
    others += [encoded(small, "GIF", save_all=True, append_images=[small.rotate(90)]), encoded(small, "BMP")]
    others += [encoded(small, "WEBP"), encoded(alpha, "WEBP", lossless=True), encoded(small, "PPM")]
    others += [encoded(small, "TIFF", exif=exif), encoded(grey16, "TIFF")]
    others += [encoded(small, "TIFF", compression=c) for c in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")]
    if "AVIF" in Image.SAVE:
        others.append(encoded(small, "AVIF", exif=exif))
    return jpegs + jpegs + others


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, near the start rather than later; cut, doubled, left out or with a marker in it."""
    bad = bytearray(content)
    for _ in range(rng.choice([0, 1, 1, 2, 5, 20])):
        i = rng.randrange(min(len(bad), rng.choice([40, 300, 700, len(bad)])))
        bad[i] = rng.choice([0, 255, rng.randrange(256), bad[i] ^ 1 << rng.randrange(8)])
    i, length = rng.randrange(len(bad)), rng.choice([1, 2, 7, 100])
    kind = rng.randrange(10)
    if kind == 0:
        del bad[i:]
    elif kind == 1:
        del bad[i : i + length]
    elif kind == 2:
        bad[i:i] = bad[i : i + length]
    elif kind == 3:
        bad[i : i + 2] = rng.choice(MARKERS)
    elif kind == 4:
        bad += rng.randbytes(length) + rng.choice(MARKERS)
    return bytes(bad)


def attempt(content: bytes, rng: random.Random) -> bool:
    """Whether it was decoded, by a function that is drawn; fails if the outcome is neither that nor Unreadable."""

    def crop(height: int, width: int) -> Box:
        top, left = rng.randrange(height), rng.randrange(width)
        return Box(top, left, rng.randint(1, height - top), rng.randint(1, width - left))

    def whole(height: int, width: int) -> Box:
        return Box(0, 0, height, width)

    size = rng.choice([1, 2, 5, 11, 40])  # of 130 pixels: at full size, 1/4, 1/8
    wanted: tuple[int, ...] | None = None
    try:
        function = rng.randrange(8)
        if function == 0:
            found, wanted = decode(content), tuple(read_header(content)[:2])
        elif function == 1:
            found = decode_resized(content, size)
            assert min(found.shape[:2]) == size
        else:
            found, wanted = decode_crop(content, whole if function == 2 else crop, size), (size, size)
    except Unreadable as error:
        line = str(error)
        assert line
        assert line.isprintable(), repr(line)
        assert "BytesIO" not in line, line
        assert len(line) <= 200, line
        return False
    assert wanted in (None, found.shape[:2]), (wanted, found.shape)
    assert (found.dtype, found.shape[2]) == (np.uint8, 3)
    torch.from_numpy(found)  # warns of what can't be written to, and refuses negative strides
    return True


def main(seed: int, count: int) -> None:
    """Try `count` damaged images."""
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    decoding.MOST_PIXELS = Image.MAX_IMAGE_PIXELS = MOST
    rng, whole = random.Random(seed), seeds()
    good = 0
    for i in range(count):
        state = rng.getstate()
        content = damaged(rng.choice(whole), rng)
        try:
            good += attempt(content, rng)
        except BaseException:
            print(f"image {i} of seed {seed}: {content[:60]!r}, state {hash(state)}", file=sys.stderr)
            raise
    print(count, good)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
