"""Images from files, decoded ahead by worker processes; the plan determines what is read, never the workers."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.sharedctypes import RawArray
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from resnetlab.data import decoding
from resnetlab.data.crops import Crop
from resnetlab.data.files import Files
from resnetlab.data.seeds import uniform
from resnetlab.errors import UserError, out_of_memory, size_in_words

PATIENCE = 600  # seconds without a batch, after which the disk or a worker counts as stuck
GRACE_SECONDS = 60  # seconds that a worker lives on after SIGTERM, unless the main process ends it
AHEAD = 2  # batches that each worker reads ahead
HELD = 2  # batches that the main process may hold
SHARED = "/dev/shm"  # where Linux keeps shared memory; Docker gives it 64 MB
SLOWER = (
    ": batches pass through pipes, which is slower but gives the same results. More shared memory (docker run "
    "--shm-size=1g), fewer --workers or a smaller --batch-size avoid this."
)
_log = logging.getLogger(__name__)
_said: list[str] = []


@dataclass(frozen=True)
class ReadPlan:
    """A plan for reading files: their order, how they are cropped, and the seeds of the random numbers."""

    files: Files
    order: Tensor  # int64 N
    crop: Crop
    size: int
    seed: int = 0
    epoch: int = 0


class Read(NamedTuple):
    """A worker's result for positions `start` to `stop` of the order, without unreadable images."""

    pixels: Tensor  # uint8 N C H W
    positions: Tensor  # their positions in the order, int64 N
    trouble: list[tuple[int, str]]  # the indices of unreadable images, with the reasons


@dataclass
class BadImages:
    """The treatment of unreadable images: an error that names the image, or it is left out and counted."""

    skip: bool = False
    limit: int = 0  # the maximum number to leave out
    count: int = 0  # of those so far

    def note(self, files: Files, trouble: list[tuple[int, str]]) -> None:
        """Count them. Raises UserError, naming the file, where they may not be skipped."""
        for image, reason in trouble:
            self.count += 1
            place = files.place(image)
            if not self.skip:
                raise UserError(
                    f"{place}: can't be read ({reason}); repair or remove it, or skip such files with "
                    "--unreadable skip. 'resnetlab data audit' lists all of them."
                )
            if self.count > self.limit:
                raise UserError(
                    f"{place}: can't be read ({reason}), and exceeds unreadable_limit={self.limit}; "
                    "see 'resnetlab data audit'."
                )


class _Sent(NamedTuple):
    """A Read in transfer: an array is sent through a pipe, a tensor through shared memory, which is faster."""

    pixels: Tensor | np.ndarray
    positions: np.ndarray
    trouble: list[tuple[int, str]]


class _Batches(Dataset[_Sent]):
    def __init__(self, reading: ReadPlan, workers: int, *, shared: bool) -> None:
        self.reading, self.shared = reading, shared
        # The process and the image that it decodes, -1 for none, for each worker: if one dies, this names the image.
        self.busy = [RawArray("q", [-1, -1]) for _ in range(workers)] or [[-1, -1]]

    def __getitem__(self, span: tuple[int, int]) -> _Sent:
        r, info = self.reading, get_worker_info()
        busy = self.busy[info.id if info else 0]
        busy[0] = os.getpid()
        start, stop = span
        # "cut" is the seed's word for crops; another word would draw other crops.
        draws = uniform("cut", r.seed, r.epoch, start, stop, r.crop.draws).tolist()
        mirrored = (uniform("flip", r.seed, r.epoch, start, stop, 1)[:, 0] < 0.5).tolist()
        pixels = np.empty((stop - start, 3, r.size, r.size), np.uint8)
        kept: list[int] = []
        trouble: list[tuple[int, str]] = []
        for position, own, mirror in zip(range(start, stop), draws, mirrored, strict=True):
            busy[1] = image = int(r.order[position])
            try:
                found = r.crop.pixels(r.files.read(image), own, r.size).transpose(2, 0, 1)
                pixels[len(kept)] = found[:, :, ::-1] if r.crop.flip and mirror else found
                kept.append(position)
            except (decoding.Unreadable, OSError) as error:
                trouble.append((image, decoding.reason(error)))
        busy[1] = -1
        sent = _in_shared_memory(pixels[: len(kept)]) if self.shared and kept else pixels[: len(kept)]
        return _Sent(sent, np.array(kept, np.int64), trouble)


def _in_shared_memory(pixels: np.ndarray) -> Tensor | np.ndarray:
    """The pixels copied to shared memory, or unchanged if there is no room.

    torch itself would copy them in a thread, in which a failure would go unnoticed.
    """
    try:
        return torch.from_numpy(pixels).share_memory_()
    except RuntimeError:
        return pixels


def read_ahead(
    reading: ReadPlan, spans: list[tuple[int, int]], *, workers: int = 0, pin: bool = False
) -> Iterator[Read]:
    """Read one span of positions after another, `workers` processes ahead; with 0 this process does it.

    pin: put what workers read into pinned memory, for fast copies to a GPU. Raises UserError if a worker dies, naming
    the image that it was decoding, and if none returns anything for PATIENCE seconds.
    """
    workers = _processes_that_can_be(workers)
    shared = workers > 0 and _has_room(spans, reading.size, workers)
    dataset = _Batches(reading, workers, shared=shared)
    loader: DataLoader[_Sent] = DataLoader(
        dataset,
        batch_size=None,
        sampler=spans,
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=pin and workers > 0,
        timeout=PATIENCE if workers else 0,
        prefetch_factor=AHEAD if workers else None,
        worker_init_fn=_outlive_a_signal,
        generator=torch.Generator(),  # else its seed is drawn from the run's own random numbers
    )
    killings = killings_for_memory()
    try:
        batches: Any = iter(loader)
    except OSError as error:
        raise UserError(
            f"the processes that read images can't be started ({error.strerror or error}); with --workers 0 the main "
            "process reads the images itself."
        ) from error
    try:
        while True:
            try:
                sent = next(batches)
            except StopIteration:
                return
            except (RuntimeError, MemoryError, OSError, EOFError) as error:  # EOFError from the pipe of a dead worker
                if not workers:
                    raise
                raise UserError(_what_happened(dataset, batches, error, killings)) from error
            if shared and len(sent.positions) and isinstance(sent.pixels, np.ndarray):
                _say_once(f"{SHARED} has no room for a batch of {size_in_words(sent.pixels.nbytes)}{SLOWER}")
            yield Read(torch.as_tensor(sent.pixels), torch.from_numpy(sent.positions), sent.trouble)
    finally:
        # An error's traceback holds the iterator until Python looks for garbage: its workers would live on until then,
        # and torch would wait ten seconds for each, since the queue that tells them to end is collected first.
        if workers:
            batches._shutdown_workers()


def _processes_that_can_be(workers: int) -> int:
    """The number of workers, or, with a warning, 0 if they can't be started: their queues need shared memory, too."""
    try:
        if workers:
            RawArray("q", 2)
            _ = [multiprocessing.Queue() for _ in range(workers + 1)]
    except OSError as error:
        free = shared_memory()
        room = "" if free is None else f", {SHARED} has {size_in_words(free)} free"
        _say_once(
            f"can't start processes that read images ahead ({error.strerror or error}{room}): the main process reads "
            "the images itself, which is slower but gives the same results."
        )
        return 0
    return workers


def _has_room(spans: list[tuple[int, int]], size: int, workers: int) -> bool:
    """Whether shared memory has room for all batches that may wait at once; warns if it hasn't."""
    batch = 3 * size * size * max((stop - start for start, stop in spans), default=0)
    most = min(AHEAD * workers + HELD, len(spans)) * batch * int(os.environ.get("LOCAL_WORLD_SIZE") or 1)
    free = shared_memory()
    if free is None or free >= most:
        return True
    _say_once(
        f"{SHARED} has {size_in_words(free)} free, but batches that are read ahead need {size_in_words(most)}{SLOWER}"
    )
    return False


def _say_once(words: str) -> None:
    """Warn that too little shared memory makes reading slower, once per process rather than in every epoch."""
    if not _said:
        _said.append(words)
        _log.warning(words)


def _outlive_a_signal(worker: int) -> None:
    """In a worker: after Ctrl-C or SIGTERM to all processes, live on while the main process ends its step.

    A second SIGTERM ends the worker, with exit code 0, since otherwise torch would raise an error in the main process.
    """

    def end_soon(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        signal.alarm(GRACE_SECONDS)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, end_soon)


def _as_it_is(read: Any) -> Any:
    return read


def _what_happened(batches: _Batches, loading: Any, error: Exception, killings: int) -> str:
    """Why no batch came, and what to do; `killings`: the count of kills for lack of memory before."""
    if "timed out" in str(error):
        return f"no batch was read for {PATIENCE} seconds; is the disk or network with the data still available?"
    fewer = "use fewer --workers or a smaller --batch-size"
    if words := out_of_memory(error):
        return f"out of memory in a process that decodes images: {words}; {fewer}."
    held = [image for process, image in batches.busy if image >= 0 and not _lives(process)]
    place = f"{batches.reading.files.place(held[0])}: " if held else ""
    if -signal.SIGKILL in [process.exitcode for process in getattr(loading, "_workers", ())]:
        if killings_for_memory() > killings:
            return f"{place}memory ran out, and the system killed a process that decoded images; {fewer}."
        return f"{place}a process that decoded images was killed, by hand or because memory ran out; if so, {fewer}."
    if held:
        return f"{place}the process that decoded it died; the file may crash the decoder."
    reason = " ".join(str(error).split())[:200]
    return f"a worker process died ({reason}); with --workers 0 the main process reads the images itself."


def _lives(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def shared_memory() -> int | None:
    """Free bytes of shared memory; None if it isn't a file system, as on macOS."""
    try:
        return shutil.disk_usage(SHARED).free
    except OSError:
        return None


def killings_for_memory() -> int:
    """A count that grows when the kernel kills a process because memory ran out; 0 if the kernel provides none."""
    counts = []
    for path in (Path("/proc/vmstat"), Path("/sys/fs/cgroup/memory.events")):
        with contextlib.suppress(OSError, StopIteration, ValueError):
            lines = path.read_text().splitlines()
            counts.append(int(next(line.split()[1] for line in lines if line.startswith("oom_kill "))))
    return sum(counts)
