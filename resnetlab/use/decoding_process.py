"""The process that decodes for the server: it reads encoded images from stdin and writes their pixels to stdout.

Hostile bytes can do harm only here: the process holds no lock of the server's, has limits of memory and processor
time, which the system enforces, and can be killed. It does not import torch, so that it starts in 0.2 s.

Each message begins with a line of JSON. The server sends a `Task` and the body. The process may ask {"weight": PIXELS},
which is answered by "yes" or "no". Its reply is {"shape"} with the fields of a `Part`, followed by the pixels, or
{"status", "detail"}, or {"failure": TRACEBACK}; "last" says whether the process then ends.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import resource
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from resnetlab.data.decoding import Part, TooManyPixels, Unreadable, decode_part, known_formats
from resnetlab.data.other_formats import named
from resnetlab.data.resizing import Interpolation
from resnetlab.machine import give_back_memory, most_bytes
from resnetlab.use.forms import Refused, image_of

UNREAD = "the image can't be read"
LIGHT = 4_000_000  # up to this number of pixels, the server is not asked
HEADER_SECONDS, MEGAPIXEL_SECONDS = 2.0, 0.3  # of processor time; the slowest valid images take 0.06 per megapixel
BASE_BYTES, PIXEL_BYTES = 256_000_000, 24  # of memory, by maximum pixels; the largest valid images take 20 per pixel
LARGE_BYTES = 1_000_000  # of a body; after a larger one, memory is given back
GROWN_BYTES = 64_000_000  # a process that has grown by this ends, since not all memory would be given back


@dataclass(frozen=True)
class Task:
    """An image to decode."""

    type: str  # the request's content type
    bytes: int  # of the body
    short_side: int  # that the image will be resized to
    interpolation: Interpolation
    most_pixels: int
    most_side: int


def main() -> None:
    """Decode images until stdin ends."""
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints goes to stderr
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    Image.init()
    start = most_bytes()
    with contextlib.suppress(BrokenPipeError):  # the server is gone
        while line := source.readline():
            task = Task(**json.loads(line))
            body = source.read(task.bytes)
            if len(body) < task.bytes:
                return
            said, pixels = _answer(task, body, source, sink)
            del body
            last = most_bytes() - start > GROWN_BYTES
            _say(sink, said | {"last": last}, pixels)
            if last:
                return
            del pixels
            if task.bytes > LARGE_BYTES:
                give_back_memory()


def _answer(task: Task, body: bytes, source: BinaryIO, sink: BinaryIO) -> tuple[dict[str, Any], np.ndarray | None]:
    """The reply about an image, and the pixels that follow it."""

    def weighed(pixels: int) -> bool:
        _say(sink, {"weight": pixels})
        return source.readline() == b"yes\n"

    try:
        part = _decoded(task, body, weighed)
    except Refused as error:
        return {"status": error.status, "detail": error.detail}, None
    except MemoryError:
        return {"status": 413, "detail": f"{UNREAD}: decoding it takes too much memory"}, None
    except Exception:
        return {"failure": traceback.format_exc()}, None
    pixels = np.ascontiguousarray(part.pixels)
    return part._asdict() | {"pixels": None, "shape": pixels.shape}, pixels


def _say(sink: BinaryIO, said: dict[str, Any], pixels: np.ndarray | None = None) -> None:
    sink.write(json.dumps(said).encode() + b"\n")
    if pixels is not None:
        sink.write(pixels.data)
    sink.flush()


def _decoded(task: Task, body: bytes, weighed: Callable[[int], bool]) -> Part:
    """The image in a body. Raises Refused."""
    _limit_memory(task.most_pixels)
    _limit_time(HEADER_SECONDS)
    content = image_of(task.type, body)
    if content and not _is_taken(content):
        reason = named(content) or "not an image in a supported format"
        raise Refused(415, f"{reason}; supported are {', '.join(accepted_formats())}")
    admitted = False

    def admit(height: int, width: int) -> None:
        nonlocal admitted
        if admitted:
            return
        pixels = height * width
        _check(task, height, width)
        if pixels > LIGHT and not weighed(pixels):
            raise Refused(503, "other large images are being decoded: try again")
        admitted = True
        _limit_time(HEADER_SECONDS + MEGAPIXEL_SECONDS * pixels / 1e6)

    try:
        return decode_part(content, task.short_side, task.interpolation, admit)
    except TooManyPixels:
        raise Refused(413, f"{UNREAD}: it has more than the allowed {task.most_pixels:,} pixels") from None
    except Unreadable as error:
        if isinstance(error.__cause__, MemoryError):
            raise error.__cause__ from None
        raise Refused(422, f"{UNREAD}: {error}") from None


def _check(task: Task, height: int, width: int) -> None:
    """Raise 413 for an image that has, or after resizing would have, more pixels than allowed."""
    said = f"{UNREAD}: {width:,}x{height:,} pixels"
    if height * width > task.most_pixels:
        raise Refused(413, f"{said} are more than the allowed {task.most_pixels:,}")
    if max(height, width) > task.most_side:
        raise Refused(413, f"{said}: a side is longer than the allowed {task.most_side:,}")
    if task.short_side**2 * max(height, width) // min(height, width) > task.most_pixels:
        raise Refused(413, f"{said}: too narrow a strip; resized, it would have more than {task.most_pixels:,} pixels")


def accepted_formats() -> tuple[str, ...]:
    """The formats of web pages, by Pillow's names; not PPM, whose text form can expand without limit."""
    return tuple(name for name in known_formats() if name != "PPM")


def _is_taken(content: bytes) -> bool:
    """Whether an image's first bytes are those of an accepted format."""
    tests = [Image.OPEN[name][1] for name in accepted_formats()]
    return any(test is not None and test(content[:16]) is True for test in tests)


def _limit_time(seconds: float) -> None:
    """Allow this much more processor time, after which the system ends this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _limit(resource.RLIMIT_CPU, math.ceil(used.ru_utime + used.ru_stime + seconds))


def _limit_memory(pixels: int) -> None:
    if sys.platform == "linux":  # elsewhere this limit means something else
        _limit(resource.RLIMIT_DATA, BASE_BYTES + PIXEL_BYTES * pixels)


def _limit(what: int, value: int) -> None:
    _, hard = resource.getrlimit(what)
    resource.setrlimit(what, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


if __name__ == "__main__":
    main()
