"""Batch norm, the sum with the shortcut and ReLU, fused into few passes over memory, for fast training on CPUs.

As separate layers they read or write a feature map sixteen times in a step; fused, eight times. On a CPU the time goes
into memory access, so this halves it. The equations are those of Ioffe & Szegedy 2015, algorithm 1 and section 3, in
`fused_norm.cpp`, which `kernels.py` compiles. `fuse` changes how a network computes in training mode;
its layers keep their names, and evaluation stays as it is except within `fused_evaluation`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from resnetlab.nets.folding import layer_runs
from resnetlab.nets.kernels import library, place
from resnetlab.nets.mixing import Add, Plain
from resnetlab.nets.net import ResidualUnit, ResNet

_KINDS = (torch.float32, torch.bfloat16)


def fuse(net: ResNet) -> None:
    """Make each batch norm, in training mode, also compute the ReLU that follows and the sum between the two.

    The network is changed in place. Feature maps are N C H W in the layout channels_last; others are copied into it.
    """
    for module in net.modules():
        if isinstance(module, ResidualUnit):
            _fuse_end(module)
        for names in layer_runs(module):
            _fuse_run([getattr(module, name) for name in names])


@contextlib.contextmanager
def fused_evaluation(on: bool = True) -> Iterator[None]:
    """A context in which fused networks use the fused code in evaluation mode too, if no gradient is needed.

    Their scores differ from those of the plain layers only by rounding.
    """
    before = _EVALUATION.set(on)
    try:
        yield
    finally:
        _EVALUATION.reset(before)


_EVALUATION = ContextVar("fused evaluation", default=False)


def _fuse_run(layers: list[nn.Module]) -> None:
    """Of layers that run one after another, each batch norm also computes the ReLU after it."""
    for before, layer, following in zip([None, *layers], layers, [*layers[1:], None], strict=False):
        if type(layer) is nn.BatchNorm2d and "forward" not in vars(layer):
            relu = following if type(following) is nn.ReLU else None
            own = isinstance(before, nn.Conv2d)
            layer.forward = partial(_norm_and_relu, layer, relu is not None, own)  # type: ignore[method-assign]
            if relu is not None:
                relu.forward = partial(_relu, relu, layer)  # type: ignore[method-assign]


def _fuse_end(unit: ResidualUnit) -> None:
    """In a unit that ends as x⁺ = relu(h(x) + norm(...)), or without h, the last batch norm computes all of that."""
    last, f = getattr(unit, unit.branch_layers[-1]), [type(getattr(unit, name)) for name in unit.postact_layers]
    if type(last) is nn.BatchNorm2d and f == [nn.ReLU] and unit.mix.equation in (Add(), Plain()):
        last.forward = partial(_norm_later, last)  # type: ignore[method-assign]
        unit.forward = partial(_unit, unit, last)  # type: ignore[method-assign]


def is_fused(layer: nn.Module) -> bool:
    """Whether a layer that has our code uses it now."""
    return layer.training or (_EVALUATION.get() and not torch.is_grad_enabled())


def _norm_and_relu(norm: nn.BatchNorm2d, relu: bool, own: bool, x: Tensor) -> Tensor:
    return normalised(norm, x, None, relu, own=own) if is_fused(norm) else nn.BatchNorm2d.forward(norm, x)


def _relu(relu: nn.ReLU, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    return x if is_fused(norm) else nn.ReLU.forward(relu, x)


def _norm_later(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    return x if is_fused(norm) else nn.BatchNorm2d.forward(norm, x)


def _unit(unit: ResidualUnit, last: nn.BatchNorm2d, x: Tensor) -> Tensor:
    if not is_fused(last):
        return ResidualUnit.forward(unit, x)
    x = unit.preact(x)
    h = unit.h(x) if unit.mix.equation == Add() else None
    own = isinstance(getattr(unit, unit.branch_layers[-2]), nn.Conv2d)
    return normalised(last, unit.F(x), h, relu=True, own=own)


def normalised(norm: nn.BatchNorm2d, x: Tensor, h: Tensor | None, relu: bool, *, own: bool = False) -> Tensor:
    """relu(h + norm(x)), without h or ReLU if there is none.

    Training mode updates the running statistics; evaluation mode overwrites x if it is our `own`, such as the output
    that a convolution has just made.
    """
    weight, dtype = norm.weight, x.dtype
    if not (dtype in _KINDS and weight.dtype == torch.float32 and x.is_cpu):
        y = nn.BatchNorm2d.forward(norm, x)
        y = y if h is None else h + y
        return y.relu() if relu else y
    h = None if h is None else h.to(dtype)
    if not norm.training:
        return _by_statistics(norm, x, h, relu, own)
    count = x.numel() // x.shape[1]
    if count == 1:
        raise ValueError(f"batch norm needs more than one value of each channel in training, and got {tuple(x.shape)}.")
    y, mean, var = _Norm.apply(x, h, weight, norm.bias, norm.eps, relu)
    batches, running_mean, running_var = norm.num_batches_tracked, norm.running_mean, norm.running_var
    assert batches is not None
    assert running_mean is not None
    assert running_var is not None
    # None of these needs a gradient.
    batches.add_(1)
    share = 1 / float(batches) if norm.momentum is None else norm.momentum
    running_mean.lerp_(mean, share)
    running_var.lerp_(var * (count / (count - 1)), share)
    return y


def _by_statistics(norm: nn.BatchNorm2d, x: Tensor, h: Tensor | None, relu: bool, own: bool) -> Tensor:
    """The same with the running statistics (Ioffe & Szegedy 2015, algorithm 2)."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    x, h = _laid_out(x), None if h is None else _laid_out(h)
    y = x if own else torch.empty_like(x)
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    shift = norm.bias.double() - norm.running_mean.double() * scale
    tensors = (x, h, y, scale.float(), shift.float())  # rounded once
    library().norm_apply(x.dtype == torch.bfloat16, relu, *map(place, tensors), *_sizes(x))
    return y


class _Norm(torch.autograd.Function):
    """relu(h + γ (x − μ) / √(σ² + ε) + β), and the batch's μ and σ² (biased); its gradient."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, h: Tensor | None, weight: Tensor, bias: Tensor, eps: float, relu: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        x, h = _laid_out(x), None if h is None else _laid_out(h)
        y, channels = torch.empty_like(x), x.shape[1]
        found = torch.empty(5, channels)  # mean, var, inverse, scale, shift
        work = torch.empty(3, x.shape[0], channels)
        half = x.dtype == torch.bfloat16
        tensors = map(place, (x, h, y, weight, bias))
        library().norm_forward(half, relu, *tensors, eps, *_rows(found), place(work), *_sizes(x))
        ctx.relu, ctx.adds = relu, h is not None
        ctx.save_for_backward(x, y if relu and h is not None else None, found)
        mean, var = found[0], found[1]
        ctx.mark_non_differentiable(mean, var)
        return y, mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, *_others: Any) -> Any:
        x, y, found = ctx.saved_tensors
        dy, dx = _laid_out(dy), torch.empty_like(x)
        dh = None if y is None else torch.empty_like(x)  # through a ReLU, the shortcut's gradient differs from dy
        dweight, dbias = torch.empty(2, x.shape[1]).unbind()
        work = torch.empty(2, x.shape[0], x.shape[1])
        half = x.dtype == torch.bfloat16
        mean, _var, inverse, scale, shift = _rows(found)
        tensors, gradients = map(place, (dy, x, y, dh, dx)), map(place, (dweight, dbias, work))
        library().norm_backward(half, ctx.relu, *tensors, mean, inverse, scale, shift, *gradients, *_sizes(x))
        return dx, (dy if dh is None else dh) if ctx.adds else None, dweight, dbias, None, None


def _laid_out(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _rows(tensor: Tensor) -> range:
    """The address of each row of a float32 matrix."""
    start, size = tensor.data_ptr(), 4 * tensor.shape[1]
    return range(start, start + size * tensor.shape[0], size)


def _sizes(x: Tensor) -> tuple[int, int, int, int]:
    n, c, h, w = x.shape
    return n, h * w, c, torch.get_num_threads()
