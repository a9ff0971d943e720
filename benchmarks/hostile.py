"""A hostile client: what `resnetlab serve` takes of memory and time for requests that are made to cost it much.

python -m benchmarks.hostile SOURCE [--net NAME] [--json] [--record FILE]

Each kind of request is sent several times at once to a server of its own on a loopback address, which ends with it.
Meanwhile /health is asked again and again, and the memory of the server with its processes is read (the part of shared
pages that falls to each, `Pss`). Then the memory that is held a few seconds after.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import io
import json
import math
import re
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.serving import served
from benchmarks.timing import record_path, run
from resnetlab.machine import machine

SETTLE_SECONDS, POLL_SECONDS = 5.0, 0.05  # the server gives memory back 3 seconds after
MOST_SECONDS = 120.0  # for a kind of request; then it is given up


@dataclass(frozen=True)
class Row:
    """What a kind of request did."""

    name: str
    requests: int
    megabytes: float  # of a request
    answers: str  # how many of which status
    seconds: float  # until the last answer
    health: float | None  # the slowest answer of /health meanwhile, in seconds; None where one did not come
    most: float  # MB of memory, at most
    after: float  # and afterwards
    rest: float  # and before all of it


@dataclass(frozen=True)
class Attack:
    """A request, and how often it is sent at once."""

    name: str
    times: int
    body: Callable[[], bytes]
    path: str = "/predict"
    type: str = "image/x"


def plain(width: int, height: int, mode: str, format: str, **how: object) -> Callable[[], bytes]:
    """An image of one colour: few bytes, many pixels."""

    def made() -> bytes:
        written = io.BytesIO()
        Image.new(mode, (width, height)).save(written, format, **how)
        return written.getvalue()

    return made


def noisy(side: int, mode: str, format: str) -> Callable[[], bytes]:
    """An image as large as a body may be, nearly: noise in blocks."""

    def made() -> bytes:
        blocks = np.random.default_rng(0).integers(0, 256, (side // 64, side // 64, len(mode)), np.uint8)
        written = io.BytesIO()
        Image.fromarray(blocks).resize((side, side)).convert(mode).save(written, format)
        return written.getvalue()

    return made


def chunk(kind: bytes, content: bytes) -> bytes:
    """A PNG's chunk."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_with(extra: Callable[[], bytes]) -> Callable[[], bytes]:
    """A small PNG with something before its pixels."""

    def made() -> bytes:
        image = plain(64, 64, "RGB", "PNG")()
        return image[:33] + extra() + image[33:]

    return made


def text_of_a_megabyte() -> bytes:
    """A PNG's compressed text."""
    return chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**6)))


def of_many_scans() -> bytes:
    """A progressive JPEG of 16 megapixels whose last scan comes again and again, as far as a body goes."""
    image = plain(4_000, 4_000, "L", "JPEG", progressive=True)()
    last = image.rindex(b"\xff\xda")
    return image[:-2] + ((19_000_000 - len(image)) // len(image[last:-2])) * image[last:-2] + image[-2:]


def form_of(count: int, part: bytes) -> bytes:
    """A form of many parts, the last an image."""
    image = plain(64, 64, "RGB", "PNG")()
    head = b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n'
    return count * (head % b"a" + part + b"\r\n") + head % b"image" + image + b"\r\n--x--\r\n"


FORM = "multipart/form-data; boundary=x"
ATTACKS = [
    Attack("nothing but small images", 64, plain(64, 64, "RGB", "PNG")),
    Attack("explanations of small images", 64, plain(64, 64, "RGB", "PNG"), "/explain"),
    Attack("PNG, 89 megapixels", 6, plain(9_433, 9_433, "RGBA", "PNG")),
    Attack("PNG, 14 megapixels, transparent, of many bytes", 6, noisy(3_712, "RGBA", "PNG")),
    Attack("PNG, 24 megapixels, one colour", 32, plain(4_900, 4_900, "RGBA", "PNG")),
    Attack("WebP, 24 megapixels", 6, plain(4_900, 4_900, "RGBA", "WEBP", lossless=True)),
    Attack("AVIF, 24 megapixels", 6, plain(4_900, 4_900, "RGB", "AVIF", speed=10)),
    Attack("TIFF, 24 megapixels, LZW", 6, plain(4_900, 4_900, "RGB", "TIFF", compression="tiff_lzw")),
    Attack("GIF, 24 megapixels", 6, plain(4_900, 4_900, "P", "GIF")),
    Attack("JPEG, 24 megapixels, progressive", 6, plain(4_900, 4_900, "RGB", "JPEG", progressive=True)),
    Attack("JPEG, 16 megapixels, thousands of scans", 3, of_many_scans),
    Attack("PNG, 88,000,000 pixels in a row", 6, plain(88_000_000, 1, "L", "PNG")),
    Attack("PNG, a strip of 20,000 pixels", 6, plain(20_000, 1, "L", "PNG")),
    Attack("PNG, 1.5 million empty chunks", 3, png_with(lambda: 1_500_000 * chunk(b"abCd", b""))),
    Attack(
        "PNG, texts that unfold to 1 GB",
        3,
        png_with(lambda: 1_000 * chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**6)))),
    ),
    Attack("PPM as text, 19 MB", 6, lambda: b"P3 2500 2500 255\n" + 9_500_000 * b"0 "),
    Attack("PPM with a comment of 19 MB", 6, lambda: b"P6\n#" + 19_000_000 * b"x" + b"\n1 1 255\nabc"),
    Attack("a form of 300,000 parts", 3, lambda: form_of(300_000, b"x"), type=FORM),
    Attack("no image, 20 MB", 32, lambda: bytes(19_999_999)),
    Attack("another content type", 32, lambda: bytes(19_999_999), type="text/plain"),
]


def tree(pid: int) -> list[int]:
    """A process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    below = [int(word) for task in children.parent.parent.glob("*/children") for word in task.read_text().split()]
    return [pid, *(one for child in below for one in tree(child))]


def held(pid: int) -> float:
    """Memory of a process and its children, in MB."""
    total = 0
    for one in tree(pid):
        try:
            total += int(re.findall(r"^Pss:\s*(\d+)", Path(f"/proc/{one}/smaps_rollup").read_text(), re.M)[0])
        except (OSError, IndexError):  # it has ended
            continue
    return total * 1024 / 1e6


async def answered(port: int, path: str, kind: str = "", body: bytes = b"") -> int:
    """The status of an answer; 0 where the connection ends without one."""
    writer = None
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"{'POST' if body else 'GET'} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        writer.write(f"{head}Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        writer.write(body)
        return int((await reader.read()).split()[1])
    except (OSError, IndexError):
        return 0
    finally:
        if writer is not None:
            writer.close()


def watched(port: int, pid: int, ended: threading.Event) -> tuple[float, float]:
    """The slowest answer of /health, in seconds, and the most memory, in MB, until something has ended.

    In a thread, since sending takes the event loop's time.
    """
    slowest, most = 0.0, 0.0
    while not ended.is_set():
        began = time.perf_counter()
        try:
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=MOST_SECONDS)) as client:
                client.request("GET", "/health")
                well = client.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            well = False
        slowest = max(slowest, time.perf_counter() - began if well else float("inf"))
        most = max(most, held(pid))
        ended.wait(POLL_SECONDS)
    return slowest, most


async def seen(
    name: str, megabytes: float, requests: list[Coroutine[Any, Any, int]], port: int, pid: int, rest: float
) -> Row:
    """What happens while requests are sent."""
    began, ended = time.perf_counter(), threading.Event()
    watching = asyncio.create_task(asyncio.to_thread(watched, port, pid, ended))
    try:
        statuses = Counter(await asyncio.wait_for(asyncio.gather(*requests), MOST_SECONDS))
        told = ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items()))
    except TimeoutError:
        told = "given up"
    seconds = time.perf_counter() - began
    ended.set()
    slowest, most = await watching
    await asyncio.sleep(SETTLE_SECONDS)
    health = slowest if math.isfinite(slowest) else None
    return Row(name, len(requests), megabytes, told, seconds, health, most, held(pid), rest)


async def attacked(port: int, pid: int, attack: Attack, rest: float) -> Row:
    """Send it, and see."""
    body = attack.body()
    requests = [answered(port, attack.path, attack.type, body) for _ in range(attack.times)]
    return await seen(attack.name, len(body) / 1e6, requests, port, pid, rest)


async def slow(port: int, pid: int, rest: float, count: int = 900) -> Row:
    """Clients that begin a body of 1 MB and never end it, and as many that say nothing."""
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/x\r\nContent-Length: 1000000\r\n\r\n"

    async def one(sent: bytes) -> int:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            answer = await reader.read()
            writer.close()
            return int(answer.split()[1])
        except (OSError, IndexError):
            return 0

    requests = [one(sent) for _ in range(count) for sent in (head + bytes(1000), b"")]
    return await seen("connections that stay open, half with a part of a body", 0.001, requests, port, pid, rest)


async def all_of(port: int, pid: int) -> list[Row]:
    """Every kind, one after the other, on one server."""
    await asyncio.gather(*(answered(port, "/predict", "image/x", ATTACKS[0].body()) for _ in range(64)))
    await asyncio.sleep(SETTLE_SECONDS)
    rest = held(pid)
    rows = [await attacked(port, pid, attack, rest) for attack in ATTACKS]
    return [*rows, await slow(port, pid, rest)]


def show(rows: list[Row]) -> None:
    """Print a table."""
    print(f"{'':44}{'MB':>6}{'s':>7}{'/health, s':>12}{'memory, MB':>12}{'after':>7}  answers")
    for row in rows:
        health = "none" if row.health is None else f"{row.health:.3f}"
        numbers = f"{row.megabytes:6.1f}{row.seconds:7.2f}{health:>12}{row.most:12,.0f}{row.after:7,.0f}"
        print(f"{f'{row.requests} x {row.name}'[:43]:44}{numbers}  {row.answers}")
    print(f"at rest, {rows[0].rest:,.0f} MB")


def main() -> None:
    """Attack, and print."""
    parser = argparse.ArgumentParser(description="Measure what hostile requests cost a server in memory and time.")
    parser.add_argument("source", help="a run folder or a weight file")
    parser.add_argument("--net", help="the network, if the file does not determine it")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--record", type=record_path, help="write the rows and the machine to this JSON file")
    parser.add_argument("--note", default="", help="a word on the circumstances, for the record")
    given = parser.parse_args()
    with served(given.source, given.net, "auto") as (port, pid):
        rows = asyncio.run(all_of(port, pid))
    found = {"command": "python -m benchmarks.hostile", "note": given.note, "machine": machine()}
    record = json.dumps(found | {"rows": [asdict(row) for row in rows]}, indent=1)
    if given.record:
        given.record.write_text(record + "\n")
    if given.json:
        print(record)
    else:
        show(rows)


if __name__ == "__main__":
    run(main)
