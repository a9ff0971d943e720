"""The queue before the network: a batch that fails is answered, and the next one is not held up."""

from __future__ import annotations

import asyncio

import torch

from resnetlab.use.batching import Batcher


def test_a_batch_that_cannot_be_made_is_an_error_at_once() -> None:
    """As where memory is full; here, images of two sizes."""

    async def asked() -> list[object]:
        batcher = Batcher(lambda images: images.flatten(1), 8, lambda _: None)
        both = asyncio.gather(*(batcher.classified(torch.ones(1, n, n)) for n in (1, 2)), return_exceptions=True)
        first = await asyncio.wait_for(both, 2)
        return [*first, await asyncio.wait_for(batcher.classified(torch.ones(1, 1, 1)), 2)]

    one, other, row = asyncio.run(asked())
    assert isinstance(one, RuntimeError)
    assert isinstance(other, RuntimeError)
    assert isinstance(row, torch.Tensor)
