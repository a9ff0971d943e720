"""A stand-in for a CUDA GPU: tensors that live in the processor's memory, but keep a GPU's rules.

Operations on tensors of the GPU and of the processor together fail, as they do in CUDA. What makes the program wait for
the GPU is counted. The GPU has a random state of its own. Its results are the processor's, to the last bit.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

aten = torch.ops.aten
GPU = torch.device("cuda:0")
# To torch's C++ code, the tensors are of this device; networks are built on "meta", without a number.
INSIDE = torch.device("meta", 0)
COPIES = (aten._to_copy.default, aten.copy_.default, aten._foreach_copy_.default)
# These take numbers of places from the processor, for which they copy them.
PLACES = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)
# The sizes of their results depend on values, for which the program has to wait.
SIZED = (
    aten.nonzero.default,
    aten.masked_select.default,
    aten.bincount.default,
    aten.repeat_interleave.Tensor,
    aten._unique2.default,
    aten.unique_consecutive.default,
)
ASKED = (aten._local_scalar_dense.default, aten.equal.default, aten.is_nonzero.default)


class OnGpu(Tensor):
    """A tensor of the stand-in; `held` is where it really is."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> OnGpu:
        described = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        with torch.inference_mode(False):  # whose tensors can't be wrapped
            made = Tensor._make_wrapper_subclass(cls, held.size(), device=INSIDE, **described)
        made.held = held
        return made

    device = property(lambda self: GPU)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)
    is_meta = property(lambda self: False)

    @property
    def data(self) -> Tensor:
        return self.detach()

    @data.setter
    def data(self, other: OnGpu) -> None:
        Tensor.data.__set__(self, other)
        self.held = other.held

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{function} on a tensor of the stand-in, outside of its context")

    def __repr__(self) -> str:  # type: ignore[override]
        return f"OnGpu({self.held!r})"


class _Renamed(TorchFunctionMode):
    """Gives torch's functions the device INSIDE where they are asked for a GPU."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.device or getattr(function, "__name__", "") == "device":
            return function(*args, **(kwargs or {}))
        args, kwargs = tuple(map(_renamed, args)), {name: _renamed(value) for name, value in (kwargs or {}).items()}
        if (
            function in (torch.tensor, torch.as_tensor) and kwargs.get("device") == INSIDE
        ):  # on "meta", torch would drop the values
            return function(*args, **kwargs | {"device": "cpu"}).to(INSIDE)
        if function is Tensor.new_tensor and isinstance(args[0], OnGpu):
            return torch.tensor(*args[1:], **{"dtype": args[0].dtype} | kwargs).to(INSIDE)
        if function is Tensor.tolist and isinstance(args[0], OnGpu):
            return args[0].cpu().tolist()
        return function(*args, **kwargs)


def _renamed(value: Any) -> Any:
    named = isinstance(value, str | torch.device) and str(value).partition(":")[0] == "cuda"
    return INSIDE if named else value


class _Computing(TorchDispatchMode):
    """Computes what the GPU would, on the processor."""

    def __init__(self, gpu: StandIn) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        theirs = [t for t in tensors if isinstance(t, OnGpu)]
        there = kwargs.get("device", INSIDE if theirs else None) == INSIDE
        if there and "device" in kwargs:
            kwargs["device"] = torch.device("cpu")
        self._check(function, tensors, theirs, there, **kwargs)
        held_args, held_kwargs = tree_map_only(OnGpu, lambda t: t.held, (args, kwargs))
        with self.gpu.random_state() if there and _draws(function) else ExitStack():
            made = function(*held_args, **held_kwargs)
        if not there:
            return made
        same = {id(t.held): t for t in theirs}
        return tree_map_only(Tensor, lambda t: same[id(t)] if id(t) in same else OnGpu(t), made)

    def _check(self, function: Any, tensors: list[Tensor], theirs: list[Tensor], there: bool, **named: Any) -> None:
        """Count what waits. Raises RuntimeError for tensors of two devices, where CUDA does."""
        others = [t for t in tensors if not isinstance(t, OnGpu)]
        name = function.overloadpacket.__name__
        if function in ASKED + SIZED and theirs:
            self.gpu.waits[name] += 1
        elif function in PLACES and theirs:
            masks = any(t.dtype in (torch.bool, torch.uint8) for t in tensors[1:])
            self.gpu.waits[name] += masks or bool(others)
        elif function in COPIES:
            crosses = bool(theirs and not there) or (there and bool(others))
            if named.get("non_blocking") and theirs and not there:
                raise AssertionError("what a GPU gives is read before it has arrived")
            pinned = bool(others) and all(map(_is_ready, others))
            self.gpu.waits["copy"] += crosses and not pinned
        elif theirs and any(t.ndim for t in others):
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but {name} found at least two devices, cuda:0 and cpu!"
            )


def _draws(function: Any) -> bool:
    return torch.Tag.nondeterministic_seeded in function.tags


class StandIn:
    """The stand-in as a context: torch finds it as "cuda", the only one of its kind."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.waits = Counter[str]()  # what has made the program wait, by the operation
        self._patch, self._modes = monkeypatch, ExitStack()
        self._random = torch.Generator().manual_seed(0).get_state()

    def __enter__(self) -> StandIn:
        replaced: dict[str, Any] = {
            "_lazy_init": lambda: None,
            "is_available": lambda: True,
            "device_count": lambda: 1,
            "current_device": lambda: 0,
            "set_device": lambda device: None,
            "synchronize": lambda device=None: self.waits.update(["synchronize"]),
            "is_bf16_supported": lambda including_emulation=True: True,
            "get_device_capability": lambda device=None: (9, 0),
            "get_device_name": lambda device=None: "stand-in",
            "mem_get_info": lambda device=None: (2**30, 2**31),
            "memory_allocated": lambda device=None: 2**20,
            "max_memory_allocated": lambda device=None: 2**24,
            "reset_peak_memory_stats": lambda device=None: None,
            "get_rng_state": lambda device=None: self._random.clone(),
            "set_rng_state": self._set_random_state,
            "manual_seed": lambda seed: self._set_random_state(torch.Generator().manual_seed(seed).get_state()),
            "manual_seed_all": lambda seed: self._set_random_state(torch.Generator().manual_seed(seed).get_state()),
            "device": lambda device: ExitStack(),
            "is_current_stream_capturing": lambda: False,
        }
        for name, value in replaced.items():
            self._patch.setattr(torch.cuda, name, value)
        self._patch.setattr(Tensor, "pin_memory", _pinned)
        self._modes.enter_context(_Renamed())
        self._modes.enter_context(_Computing(self))
        return self

    def __exit__(self, *_: object) -> None:
        self._modes.close()

    @contextmanager
    def random_state(self) -> Iterator[None]:
        """A context in which torch draws from the GPU's random state."""
        before = torch.get_rng_state()
        torch.set_rng_state(self._random)
        try:
            yield
        finally:
            self._random = torch.get_rng_state()
            torch.set_rng_state(before)

    def _set_random_state(self, state: Tensor, device: object = None) -> None:
        self._random = state.clone()


def _pinned(tensor: Tensor, device: object = None) -> Tensor:
    copied = torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype).copy_(tensor)
    copied.is_in_pinned_memory = True  # type: ignore[attr-defined]
    return copied


def _is_ready(tensor: Tensor) -> bool:
    """Whether a GPU copies a tensor as it is: one with gaps, torch first puts together in ordinary memory."""
    return getattr(tensor, "is_in_pinned_memory", False) and tensor.is_contiguous()
