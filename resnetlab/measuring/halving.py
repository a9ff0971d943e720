"""A batch that does not fit into memory at once goes through a network in halves."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from resnetlab.errors import out_of_memory


def in_halves(function: Callable[..., Tensor], *batch: Tensor) -> list[Tensor]:
    """function(*batch) for each part of a batch, in order: one part or, where memory runs out, halves of halves.

    For functions that look at each image by itself, as a network in evaluation mode does; in another part its answer
    may differ by rounding. Raises what the function raises for one image.
    """
    try:
        return [function(*batch)]
    except Exception as error:
        if len(batch[0]) < 2 or not out_of_memory(error):
            raise
    # Out here, where the error holds none of the memory any more.
    middle = len(batch[0]) // 2
    return [*in_halves(function, *(t[:middle] for t in batch)), *in_halves(function, *(t[middle:] for t in batch))]
