"""Batching: images that arrive while the network runs wait, and go through it together in its next pass."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")


class Batcher:
    """The one thread that runs the network, and the images that wait for it. It belongs to one event loop.

    `classify` takes the images of a batch, N C H W, and returns a row for each; `note` is called with each batch's
    size. Nothing waits for a batch to fill: when the thread is free, it takes the images that wait, at most `size`.
    An image whose request is cancelled while it waits is dropped.
    """

    def __init__(self, classify: Callable[[Tensor], Tensor], size: int, note: Callable[[int], None]) -> None:
        self.classify = classify  # may be replaced at any time, from any thread: the next pass takes it
        self._size, self._note = size, note
        self._waiting: deque[tuple[Tensor, asyncio.Future[Tensor]]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="network")
        self._free = asyncio.Lock()  # held while the thread works; waiting tasks get it in order
        self._passes: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Images that no pass has taken yet."""
        return sum(not answer.done() for _, answer in self._waiting)

    async def classified(self, pixels: Tensor) -> Tensor:
        """The row of one image, C H W. Raises what `classify` raises."""
        answer: asyncio.Future[Tensor] = asyncio.get_running_loop().create_future()
        self._waiting.append((pixels, answer))
        if self._passes is None or self._passes.done():
            self._passes = asyncio.create_task(self._run())
        return await answer

    async def alone(self, work: Callable[[], Result]) -> Result:
        """Run `work` in the network's thread between two passes, and return its result."""
        async with self._free:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _run(self) -> None:
        """Run passes until no image waits."""
        while self._waiting:
            async with self._free:
                batch = self._next_batch()
                if not batch:
                    continue
                self._note(len(batch))
                loop = asyncio.get_running_loop()
                try:
                    images = torch.stack([pixels for pixels, _ in batch])  # N C H W; memory may be full
                    rows = await loop.run_in_executor(self._thread, self.classify, images)
                except Exception as error:
                    for _, answer in batch:
                        if not answer.done():
                            answer.set_exception(error)
                    continue
            for (_, answer), row in zip(batch, rows, strict=True):
                if not answer.done():
                    answer.set_result(row)

    def _next_batch(self) -> list[tuple[Tensor, asyncio.Future[Tensor]]]:
        batch: list[tuple[Tensor, asyncio.Future[Tensor]]] = []
        while self._waiting and len(batch) < self._size:
            image = self._waiting.popleft()
            if not image[1].done():
                batch.append(image)
        return batch
