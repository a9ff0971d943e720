"""A network run for its shapes and its memory alone: feature maps without numbers go through the modules themselves.

`Map` stands in for a tensor. It knows what the layers of the zoo make of a shape, which of their inputs and outputs
torch keeps for the gradient, and by Python's own counting of references how long it is alive. Running tensors without
memory ("meta") through the modules finds the same (`measuring/complexity.py`), after more than a second of imports.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import torch
import torch.nn.functional as tf
from torch import Tensor


class Unknown(AttributeError):
    """A function of which is not written down here what it costs."""


@dataclass
class Memory:
    """Bytes of feature maps: those alive now, the most at once, and, if it keeps any, those kept for the gradient."""

    keeps: bool = True
    live: int = 0
    peak: int = 0
    kept: dict[int, Storage] = field(default_factory=dict)

    def keep(self, storage: Storage) -> None:
        """Note that the gradient needs it; it stays alive with this."""
        if self.keeps:
            self.kept[id(storage)] = storage

    @property
    def kept_bytes(self) -> int:
        """Of all that is kept, each once."""
        return sum(storage.size for storage in self.kept.values())


class Storage:
    """Numbers that one or several maps look at."""

    def __init__(self, memory: Memory, size: int):
        self.memory, self.size = memory, size
        memory.live += size
        memory.peak = max(memory.peak, memory.live)

    def __del__(self) -> None:
        self.memory.live -= self.size


class Map:
    """A feature map, N C H W or N K, float32, without its numbers."""

    def __init__(self, shape: tuple[int, ...], memory: Memory, storage: Storage | None = None):
        self.shape, self.memory = torch.Size(shape), memory
        self.storage = storage or Storage(memory, 4 * prod(shape))

    def dim(self) -> int:
        return len(self.shape)

    def keep(self) -> Map:
        """Note that the gradient needs it."""
        self.memory.keep(self.storage)
        return self

    def new(self, *shape: int) -> Map:
        """Another map, with numbers of its own."""
        return Map(shape, self.memory)

    def seen_as(self, *shape: int) -> Map:
        """The same numbers in another shape, or some of them."""
        return Map(shape, self.memory, self.storage)

    def __add__(self, other: Map) -> Map:
        return self.new(*self.shape)

    def __getitem__(self, index: tuple[slice, ...]) -> Map:
        return self.seen_as(*(len(range(n)[part]) for n, part in zip(self.shape, index, strict=True)))

    def __mul__(self, other: object) -> Map:
        if not isinstance(other, Map):
            raise Unknown("mul")
        # Not by torch.broadcast_shapes, which loads torch's compiler:
        return self.keep().new(*np.broadcast_shapes(self.shape, other.keep().shape))

    def __rmul__(self, number: float) -> Map:
        """number * map, whose gradient needs no map."""
        return self.new(*self.shape)

    def __rsub__(self, number: float) -> Map:
        """number - map, the same."""
        return self.new(*self.shape)

    def mean(self, over: tuple[int, ...], keepdim: bool) -> Map:
        """Means over some dimensions, whose gradient needs no value."""
        if not keepdim:
            raise Unknown("mean")
        return self.new(*(1 if i in over else n for i, n in enumerate(self.shape)))

    def __getattr__(self, name: str) -> Any:
        raise Unknown(name)

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function not in FUNCTIONS:
            raise Unknown(getattr(function, "__name__", str(function)))
        return FUNCTIONS[function](*args, **(kwargs or {}))


def _conv(x: Map, weight: Tensor, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Map:
    sides = zip(x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    return x.keep().new(
        x.shape[0], weight.shape[0], *((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sides)
    )


def _norm(x: Map, mean: Any, var: Any, weight: Any, bias: Any, training: bool, *_: Any, **__: Any) -> Map:
    return x.keep().new(*x.shape)


def _relu(x: Map, inplace: bool = False) -> Map:
    if inplace:
        raise Unknown("relu_")
    return x.new(*x.shape).keep()


def _sigmoid(x: Map) -> Map:
    return x.new(*x.shape).keep()


def _max_pool(x: Map, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool, **_: Any) -> Map:
    k, s, p = (value if isinstance(value, int) else value[0] for value in (kernel, stride, padding))
    if ceil_mode or dilation != 1 or any(isinstance(value, tuple) for value in (kernel, stride, padding)):
        raise Unknown("max_pool2d")
    made = x.keep().new(*x.shape[:2], *((n + 2 * p - k) // s + 1 for n in x.shape[2:]))
    x.memory.keep(Storage(x.memory, 8 * prod(made.shape)))  # where each maximum stands, int64
    return made


def _average_pool(x: Map, kernel: int, stride: int, padding: int, ceil_mode: bool, *_: Any) -> Map:
    if kernel != stride or padding or not ceil_mode:
        raise Unknown("avg_pool2d")
    return x.keep().new(*x.shape[:2], *(-(-n // stride) for n in x.shape[2:]))


def _adaptive_average_pool(x: Map, size: Any) -> Map:
    if size != 1:
        x.keep()  # of one position it is a mean, whose gradient needs no value
    return x.new(*x.shape[:2], *((size, size) if isinstance(size, int) else size))


def _flatten(x: Map, start: int) -> Map:
    return x.seen_as(*x.shape[:start], prod(x.shape[start:]))


def _linear(x: Map, weight: Tensor, bias: Any) -> Map:
    return x.keep().new(x.shape[0], weight.shape[0])


def _dropout(x: Map, p: float, training: bool, inplace: bool) -> Map:
    if inplace or not 0 < p < 1:
        raise Unknown("dropout")
    if not training:
        return x
    noise = x.new(*x.shape).keep()
    return noise.new(*x.shape)


def _pad(x: Map, sides: tuple[int, ...], *_: Any, **__: Any) -> Map:
    pairs = list(zip(sides[::2], sides[1::2], strict=True))[::-1]  # torch begins with the last dimension
    first = len(x.shape) - len(pairs)
    return x.new(*x.shape[:first], *(n + sum(pair) for n, pair in zip(x.shape[first:], pairs, strict=True)))


FUNCTIONS: dict[Any, Callable[..., Map]] = {
    torch.conv2d: _conv,
    tf.batch_norm: _norm,
    tf.relu: _relu,
    torch.sigmoid: _sigmoid,
    tf.max_pool2d: _max_pool,
    tf.avg_pool2d: _average_pool,
    tf.adaptive_avg_pool2d: _adaptive_average_pool,
    torch.flatten: _flatten,
    tf.linear: _linear,
    tf.dropout: _dropout,
    tf.pad: _pad,
}
