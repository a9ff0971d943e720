"""Processes that decode: the right pixels, limits that hold, and what is killed is replaced."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from resnetlab.data.decoding import decode_resized, finish
from resnetlab.data.resizing import Interpolation
from resnetlab.use import decoders as module
from resnetlab.use.decoders import Decoders
from resnetlab.use.decoding_process import LIGHT, Task
from resnetlab.use.forms import Refused

Noise = Callable[..., bytes]
PATIENCE = 600  # seconds, which no test waits for unless something hangs
MOST = 25_000_000


def task(content: bytes, side: int = 32, pixels: int = MOST) -> Task:
    return Task("image/png", len(content), side, "bilinear", pixels, 32_768)


async def decode(pool: Decoders, content: bytes, **how: int) -> np.ndarray:
    return await pool.decoded(task(content, **how), bytearray(content), finish)


def refusal(pool: Decoders, content: bytes, **how: int) -> tuple[int, str]:
    with pytest.raises(Refused) as caught:
        asyncio.run(decode(pool, content, **how))
    return caught.value.status, caught.value.detail


def processes(pool: Decoders) -> set[int]:
    return {process._process.pid for process in pool._idle}


def plain(width: int, height: int, mode: str = "L", format: str = "PNG") -> bytes:
    written = io.BytesIO()
    Image.new(mode, (width, height)).save(written, format)
    return written.getvalue()


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_pixels_are_those_of_decoding_in_place(decoders: Decoders, noise: Noise, format: str) -> None:
    for height, width, side in ((40, 48, 32), (700, 401, 50), (32, 32, 32), (90, 500, 64)):
        content = noise(1, height, width, format)
        assert np.array_equal(asyncio.run(decode(decoders, content, side=side)), decode_resized(content, side))


@pytest.mark.parametrize("way", ["bilinear", "bicubic"])
def test_images_are_resized_as_the_network_says(decoders: Decoders, noise: Noise, way: Interpolation) -> None:
    """Those that are decoded at 1/8 in the process, all others here."""
    for height, width in ((401, 701), (61, 47)):
        content = noise(1, height, width, "JPEG")
        given = replace(task(content), interpolation=way)
        found = asyncio.run(decoders.decoded(given, bytearray(content), finish))
        assert np.array_equal(found, decode_resized(content, 32, way))
        assert not np.array_equal(found, decode_resized(content, 32, "bicubic" if way == "bilinear" else "bilinear"))


def test_a_turned_photograph_is_upright(decoders: Decoders, noise: Noise) -> None:
    exif, written = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.open(io.BytesIO(noise(2, 300, 400))).save(written, "JPEG", exif=exif)
    found = asyncio.run(decode(decoders, written.getvalue()))
    assert found.shape == (42, 32, 3)
    assert np.array_equal(found, decode_resized(written.getvalue(), 32))


def test_a_process_lives_on_after_a_refusal_and_ends_after_a_large_image() -> None:
    with Decoders(50_000_000, processes=1) as pool:
        pool.start()
        first = processes(pool)
        assert refusal(pool, b"no image")[0] == 415
        assert refusal(pool, plain(40, 40)[:50])[0] == 422
        assert refusal(pool, plain(5_001, 5_000))[0] == 413
        assert processes(pool) == first
        assert asyncio.run(decode(pool, plain(3_500, 3_500, "RGB"))).shape == (32, 32, 3)
        assert processes(pool).isdisjoint(first)
        assert asyncio.run(decode(pool, plain(40, 40))).shape == (32, 32, 3)
    assert not processes(pool)


def test_a_process_that_was_killed_while_idle_costs_no_image() -> None:
    with Decoders(50_000_000, processes=1) as pool:
        pool.start()
        (pid,) = processes(pool)
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert asyncio.run(decode(pool, plain(40, 40))).shape == (32, 32, 3)


def test_a_decoder_that_dies_is_the_images_fault_and_is_replaced(held: Any) -> None:
    async def scene() -> None:
        decoding = asyncio.create_task(decode(held.decoders, plain(40, 40)))
        (pid,) = await asyncio.to_thread(held.begun, 1)
        os.kill(pid, signal.SIGSEGV)
        with pytest.raises(Refused) as caught:
            await decoding
        assert (caught.value.status, "crashes the decoder" in caught.value.detail) == (422, True)
        held.go()
        assert (await decode(held.decoders, plain(40, 40))).shape == (32, 32, 3)

    asyncio.run(scene())


def test_whoever_gives_up_kills_the_process(held: Any) -> None:
    async def scene() -> None:
        decoding = [asyncio.create_task(decode(held.decoders, plain(40, 40))) for _ in range(2)]
        before = await asyncio.to_thread(held.begun, 2)
        waiting = asyncio.create_task(decode(held.decoders, plain(40, 40)))
        await asyncio.sleep(0)
        waiting.cancel()  # it has no process yet
        decoding[0].cancel()
        await asyncio.wait({waiting, decoding[0]})
        held.go()
        assert (await decoding[1]).shape == (32, 32, 3)
        async with asyncio.timeout(PATIENCE):
            while len(processes(held.decoders)) < 2:
                await asyncio.sleep(0.01)
        assert len(processes(held.decoders) - before) == 1, "another process took its place"

    asyncio.run(scene())


def test_a_client_that_leaves_after_its_image_is_decoded_costs_no_other(noise: Noise) -> None:
    """The process is killed, and must not get the next image in the moment in which it still lives."""

    async def scene(pool: Decoders) -> None:
        content, now = noise(0, 400, 400), asyncio.get_running_loop()

        def then(part: Any) -> np.ndarray:
            now.call_soon_threadsafe(leaving.cancel)
            return finish(part)

        leaving = asyncio.create_task(pool.decoded(task(content), bytearray(content), then))
        next_one = asyncio.create_task(decode(pool, plain(40, 40)))
        await asyncio.wait({leaving, next_one})
        assert next_one.result().shape == (32, 32, 3)

    with Decoders(50_000_000, processes=1) as pool:
        for _ in range(10):
            asyncio.run(scene(pool))


def test_pixels_are_bounded_together_and_small_images_go_by(held: Any) -> None:
    large = plain(2_500, 2_000)

    async def scene() -> None:
        decoding = asyncio.create_task(decode(held.decoders, large))
        await asyncio.to_thread(held.begun, 1)
        for _ in range(3):
            with pytest.raises(Refused) as caught:
                await decode(held.decoders, plain(2_001, 2_000))
            assert (caught.value.status, "try again" in caught.value.detail) == (503, True)
        assert LIGHT == 2_000 * 2_000
        small = asyncio.create_task(decode(held.decoders, plain(2_000, 2_000)))
        await asyncio.to_thread(held.begun, 2)
        held.go()
        await asyncio.gather(decoding, small)
        assert held.decoders._pixels == 0
        assert (await decode(held.decoders, large)).shape == (32, 40, 3)

    asyncio.run(scene())


def changed(code: str) -> Decoders:
    """One process, with something in it changed."""
    whole = f"import resnetlab.use.decoding_process as it\n{code}\nit.main()"
    return Decoders(50_000_000, 1, (sys.executable, "-c", whole))


def test_a_decoder_that_takes_too_long_is_ended() -> None:
    code = """
def endless(content, *rest):
    while len(content) > 1000: pass
    return decode(content, *rest)
it.HEADER_SECONDS, decode, it.decode_part = 1, it.decode_part, endless"""
    with changed(code) as pool:
        assert refusal(pool, plain(4_000, 4_000)) == (422, module.BROKEN)
        assert asyncio.run(decode(pool, plain(40, 40))).shape == (32, 32, 3)


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of memory is Linux's")
def test_memory_is_limited() -> None:
    with changed("it.BASE_BYTES, it.PIXEL_BYTES = 180_000_000, 0") as pool:
        said = "the image can't be read: decoding it takes too much memory"
        assert refusal(pool, plain(5_000, 5_000, "RGB")) == (413, said)
        assert asyncio.run(decode(pool, plain(40, 40))).shape == (32, 32, 3)


def test_what_fails_for_no_reason_of_the_image_is_an_error_with_its_traceback(noise: Noise) -> None:
    with changed("def broken(*_): raise ZeroDivisionError('a mistake of ours')\nit.decode_part = broken") as pool:
        for _ in range(2):
            with pytest.raises(RuntimeError, match="a mistake of ours"):
                asyncio.run(decode(pool, noise()))


def test_closing_ends_what_is_being_decoded(held: Any) -> None:
    async def scene() -> None:
        decoding = asyncio.create_task(decode(held.decoders, plain(40, 40)))
        await asyncio.to_thread(held.begun, 1)
        held.decoders.close()
        with pytest.raises(Refused):
            await decoding

    asyncio.run(scene())


def test_processes_end_with_their_server() -> None:
    code = (
        "import time; from resnetlab.use.decoders import Decoders\n"
        "pool = Decoders(1)\n"
        "pool.start()\n"
        "print(*(p._process.pid for p in pool._idle), flush=True)\ntime.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pids = [int(word) for word in process.stdout.readline().split()]
        process.kill()
    assert len(pids) == 2

    async def gone() -> None:
        async with asyncio.timeout(PATIENCE):
            while any(_runs(pid) for pid in pids):
                await asyncio.sleep(0.02)

    asyncio.run(gone())


def _runs(pid: int) -> bool:
    """Whether a process is there, and no zombie that nobody reaps."""
    status = Path(f"/proc/{pid}/stat")
    if status.parent.parent.exists():
        try:
            return status.read_text().rpartition(")")[2].split()[0] != "Z"
        except FileNotFoundError:
            return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_process_needs_no_torch() -> None:
    code = "import sys, resnetlab.use.decoding_process; print([m for m in ('torch', 'fastapi') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
