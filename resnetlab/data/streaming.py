"""Images from files, decoded ahead by worker processes; what is read follows from the plan, never from the workers."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from resnetlab.data.cuts import Cut
from resnetlab.data.decoding import Unreadable
from resnetlab.data.files import Files
from resnetlab.data.seeds import uniform
from resnetlab.errors import UserError

PATIENCE = 600  # seconds without a batch, after which the disk or a worker counts as stuck
MERCY = 60  # seconds that a worker lives on after SIGTERM, unless the main process ends it


@dataclass(frozen=True)
class Reading:
    """What is to be read of files: in which order, how it is cut, and where the random numbers come from."""

    files: Files
    order: Tensor  # int64 N
    cut: Cut
    size: int
    seed: int = 0
    epoch: int = 0


class Read(NamedTuple):
    """What a worker made of positions `start` to `stop` of the order; images that can't be read are missing."""

    pixels: Tensor  # uint8 N C H W
    positions: Tensor  # of these, in the order, int64 N
    trouble: list[tuple[int, str]]  # the numbers of the others, and why


@dataclass
class Unreadables:
    """What becomes of an image that can't be read: an error that names it, or it is left out and counted."""

    skip: bool = False
    limit: int = 0  # the most that may be left out
    count: int = field(default=0)

    def note(self, files: Files, trouble: list[tuple[int, str]]) -> None:
        """Count them. Raises UserError, naming the file, where they may not be skipped."""
        for image, reason in trouble:
            self.count += 1
            place = files.place(image)
            if not self.skip:
                raise UserError(
                    f"{place}: can't be read ({reason}); mend or remove it, or leave such files out with "
                    "--unreadable skip. 'resnetlab data audit' finds all of them."
                )
            if self.count > self.limit:
                raise UserError(
                    f"{place}: can't be read ({reason}), and is one more than unreadable_limit={self.limit}; "
                    "see 'resnetlab data audit'."
                )


class _Batches(Dataset[Read]):
    """What happens in a worker."""

    def __init__(self, reading: Reading, workers: int) -> None:
        self.reading = reading
        # Which process decodes which image: if one dies, this says of what. Process, image; -1: none.
        self.busy = torch.full((max(workers, 1), 2), -1, dtype=torch.int64).share_memory_()

    def __getitem__(self, span: tuple[int, int]) -> Read:
        r, info = self.reading, get_worker_info()
        busy = self.busy[info.id if info else 0]
        busy[0] = os.getpid()
        start, stop = span
        draws = uniform("cut", r.seed, r.epoch, start, stop, r.cut.draws).tolist()
        mirrored = (uniform("flip", r.seed, r.epoch, start, stop, 1)[:, 0] < 0.5).tolist()
        pixels = np.empty((stop - start, 3, r.size, r.size), np.uint8)
        kept: list[int] = []
        trouble: list[tuple[int, str]] = []
        for position, own, mirror in zip(range(start, stop), draws, mirrored, strict=True):
            busy[1] = image = int(r.order[position])
            try:
                found = r.cut.cut(r.files.read(image), own, r.size).transpose(2, 0, 1)
                pixels[len(kept)] = found[:, :, ::-1] if r.cut.flip and mirror else found
                kept.append(position)
            except Unreadable as error:
                trouble.append((image, str(error)))
            except OSError as error:
                trouble.append((image, error.strerror or str(error)))
        busy[1] = -1
        return Read(torch.from_numpy(pixels[: len(kept)]), torch.tensor(kept).long(), trouble)


def read_ahead(
    reading: Reading, spans: list[tuple[int, int]], *, workers: int = 0, pin: bool = False
) -> Iterator[Read]:
    """Read one span of positions after another, `workers` processes ahead; with 0 this process does it.

    pin: put pixels into memory that a GPU copies from at once. Raises UserError when a worker dies, naming the
    image that it was decoding, and when none gives anything for PATIENCE seconds.
    """
    dataset = _Batches(reading, workers)
    loader: DataLoader[Read] = DataLoader(
        dataset,
        batch_size=None,
        sampler=spans,
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=pin,
        timeout=PATIENCE if workers else 0,
        worker_init_fn=_outlive_a_signal,
        generator=torch.Generator(),  # else its seed is drawn from the run's own random numbers
    )
    batches = iter(loader)
    while True:
        try:
            read = next(batches)
        except StopIteration:
            return
        except (RuntimeError, ConnectionError, EOFError) as error:  # the latter two from the pipe of a dead worker
            raise UserError(_what_happened(dataset, error)) from error
        yield read


def _outlive_a_signal(worker: int) -> None:
    """In a worker: Ctrl-C or SIGTERM to all processes leaves it the time in which the main one ends its step.

    A second SIGTERM ends it, and with 0, since torch raises an error in the midst of the main one's work otherwise.
    """

    def end_soon(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        signal.alarm(MERCY)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, end_soon)


def _as_it_is(read: Any) -> Any:
    return read


def _what_happened(batches: _Batches, error: Exception) -> str:
    if "timed out" in str(error):
        return f"no batch was read for {PATIENCE} seconds; is the disk or network that holds the data gone?"
    for process, image in batches.busy.tolist():
        if image >= 0 and not _lives(process):
            return (
                f"{batches.reading.files.place(image)}: the process that decoded it died; the file may crash the "
                "decoder, or memory ran out (then give fewer --workers)."
            )
    reason = " ".join(str(error).split())[:200]
    return f"a worker process died ({reason}); with --workers 0 the main process reads the images itself."


def _lives(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
