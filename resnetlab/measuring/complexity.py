"""What a network costs: layers with shapes, parameters, multiply-adds, memory; counted on the network that is built.

The network is built without memory for its weights ("meta" tensors) and run on images without content, so every count
comes from the modules that training would use. Where all of a network's functions are in `measuring/shapes.py` their
shapes are enough; else tensors without memory are run for real, which finds the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from resnetlab.errors import UserError, shown
from resnetlab.measuring.shapes import Map, Memory, Unknown
from resnetlab.nets.spec import NetSpec
from resnetlab.nets.zoo import Spec, on_meta
from resnetlab.nets.zoo import spec as named_spec


@dataclass(frozen=True)
class Layer:
    """A layer with weights: what it is, its output per image (C H W or K), and what it costs."""

    name: str
    kind: str
    output: tuple[int, ...]
    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class Complexity:
    """What a network costs.

    multiply_adds: multiplications of convolutions and fc layers for one image, as the papers count (their
    "FLOPs"); flops = 2 x multiply_adds, as hardware is rated. Memory is in bytes per image at float32:
    what the forward pass keeps for the backward pass, and the most that is alive at once in inference;
    weights are in neither.
    """

    name: str
    depth: int
    input: tuple[int, int, int]
    parameters: int
    multiply_adds: int
    flops: int
    training_bytes: int
    inference_bytes: int
    layers: tuple[Layer, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def complexity(net: str | Spec) -> Complexity:
    """Count a network, by its name or spec, at the spec's input size. Raises UserError for anything else."""
    if isinstance(net, nn.Module):
        raise UserError(f"network {shown(net)} is counted by its spec, which is its .spec if resnetlab built it.")
    spec = net if isinstance(net, Spec) else named_spec(net)
    try:
        return _counted(spec, _by_shapes)
    except Unknown:
        return measured_complexity(spec)


def measured_complexity(spec: Spec) -> Complexity:
    """The same with tensors, which takes a second more."""
    return _counted(spec, _by_tensors)


def costs(spec: Spec) -> tuple[int, int]:
    """Parameters and multiply-adds, as `complexity` counts them, quickly for networks of any depth.

    All units of a stage after its first are the same, so that a network with at most two units per stage, which is
    counted once for all depths, gives the cost of each.
    """
    if not isinstance(spec, NetSpec):
        counted = complexity(spec)
        return counted.parameters, counted.multiply_adds

    def times(layer: str) -> int:
        second = re.match(r"layer(\d+)\.1\.", layer)
        return spec.stages[int(second[1]) - 1].units - 1 if second else 1

    stages = tuple(replace(stage, units=min(stage.units, 2)) for stage in spec.stages)
    layers = _layers(replace(spec, name="", stages=stages))
    return (
        sum(layer.parameters * times(layer.name) for layer in layers),
        sum(layer.multiply_adds * times(layer.name) for layer in layers),
    )


@lru_cache(maxsize=256)
def _layers(spec: NetSpec) -> tuple[Layer, ...]:
    return complexity(spec).layers


def _counted(spec: Spec, run: Callable[[nn.Module, tuple[int, int, int]], tuple[int, int]]) -> Complexity:
    net = on_meta(spec)
    outputs: dict[str, tuple[int, ...]] = {}
    modules = {n: m for n, m in net.named_modules() if next(m.parameters(recurse=False), None) is not None}
    for name, module in modules.items():

        def record(_: nn.Module, __: Any, output: Tensor, name: str = name) -> None:
            outputs[name] = tuple(output.shape[1:])

        module.register_forward_hook(record)
    training_bytes, inference_bytes = run(net, spec.image_shape)
    layers = tuple(
        Layer(
            name,
            _kind(modules[name]),
            output,
            sum(p.numel() for p in modules[name].parameters(recurse=False)),
            _multiply_adds(modules[name], output),
        )
        for name, output in outputs.items()
    )
    multiply_adds = sum(layer.multiply_adds for layer in layers)
    return Complexity(
        name=spec.name,
        depth=spec.depth,
        input=spec.image_shape,
        parameters=sum(p.numel() for p in net.parameters()),
        multiply_adds=multiply_adds,
        flops=2 * multiply_adds,
        training_bytes=training_bytes,
        inference_bytes=inference_bytes,
        layers=layers,
    )


def _by_shapes(net: nn.Module, shape: tuple[int, int, int]) -> tuple[int, int]:
    """Bytes per image that are kept in training, and the most that are alive at once in inference."""
    kept, live = Memory(), Memory(keeps=False)
    net.eval()
    net(Map((1, *shape), live))
    net.train()
    net(Map((1, *shape), kept))
    return kept.kept_bytes, live.peak


def _by_tensors(net: nn.Module, shape: tuple[int, int, int]) -> tuple[int, int]:
    x = torch.empty(1, *shape, device="meta")
    net.eval()
    with torch.no_grad(), LiveBytes(x, _weight_storages(net)) as live:
        net(x)
    return _training_bytes(net, shape), live.peak


def _per_image(t: Tensor) -> bool:
    """Whether a tensor grows with the batch; a batch norm's statistics, C, do not."""
    return t.ndim > 1


def _training_bytes(net: nn.Module, shape: tuple[int, int, int]) -> int:
    """Bytes per image, weights aside, that a training forward pass keeps for the backward pass."""
    own = _weight_storages(net)
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        if _per_image(t) and storage._cdata not in own:
            kept[storage._cdata] = storage  # holding it keeps its identity from being used again
        return t

    batch = 2  # batch norm takes no single value
    net.train()
    with saved_tensors_hooks(keep, lambda t: t):
        net(torch.empty(batch, *shape, device="meta"))
    return sum(storage.nbytes() for storage in kept.values()) // batch


def _multiply_adds(module: nn.Module, output: tuple[int, ...]) -> int:
    """A convolution uses each weight once per output position, an fc layer once."""
    if isinstance(module, nn.Conv2d):
        return prod(output[1:]) * module.weight.numel()
    return module.weight.numel() if isinstance(module, nn.Linear) else 0


def _kind(module: nn.Module) -> str:
    if isinstance(module, nn.Conv2d):
        size = f"{module.kernel_size[0]}x{module.kernel_size[1]}"
        stride = f" /{module.stride[0]}" if module.stride[0] != 1 else ""
        groups = f" in {module.groups} groups" if module.groups != 1 else ""
        return f"conv {size}{stride}{groups}"
    return {"BatchNorm2d": "bn", "Linear": "fc"}.get(type(module).__name__, type(module).__name__)


def _weight_storages(net: nn.Module) -> set[int]:
    return {t.untyped_storage()._cdata for t in (*net.parameters(), *net.buffers())}


class LiveBytes(TorchDispatchMode):
    """Follows which tensors are alive after each operation, and notes the most bytes at once."""

    def __init__(self, first: Tensor, ignored: set[int]):
        super().__init__()
        self.ignored = ignored
        self.live = {StorageWeakRef(first.untyped_storage()): first.untyped_storage().nbytes()}
        self.peak = sum(self.live.values())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for t in tree_leaves(result):
            if isinstance(t, Tensor) and _per_image(t) and t.untyped_storage()._cdata not in self.ignored:
                self.live[StorageWeakRef(t.untyped_storage())] = t.untyped_storage().nbytes()
        self.live = {ref: size for ref, size in self.live.items() if not ref.expired()}
        self.peak = max(self.peak, sum(self.live.values()))
        return result
