"""3x3 convolutions and their gradients by our own code, for processors whose best instructions are AVX2.

There oneDNN multiplies every weight with every value that it meets. `winograd.cpp` makes do with a fourth of the
products.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from resnetlab.nets.fusing import is_fused
from resnetlab.nets.kernels import library, place

MOST_WEIGHTS = 9 * 512 * 512  # beyond, nothing is measured
MANY_WEIGHTS = 9 * 64 * 64  # from here on, one sum at 36 places fills a core's cache, and there is no room for several
WIDTH = 16  # of which both numbers of channels are multiples
TILE = 4  # pixels: the side of the squares of outputs that are made together
LEAST_SHARE = 0.7  # of a tile that has to lie within the feature maps, on average, for the products to be fewer
LEAST_TILES = 32  # that the weights have to serve, for it to pay to transform 256 by 256 of them
GROUPS = 16  # of images, whose sums are apart

_kept = threading.local()  # a space for each thread


def own_convolutions(net: nn.Module) -> None:
    """Make the convolutions that `is_served` names compute by our code where `is_fused` says so.

    The network is changed in place. Feature maps are N C H W in the layout channels_last; others are copied into it.
    """
    for module in net.modules():
        if type(module) is nn.Conv2d and is_served(module):
            module.forward = partial(_convolved, module)  # type: ignore[method-assign]


def is_served(conv: nn.Conv2d) -> bool:
    """Whether the code is for that layer: 3x3, stride 1, padding 1, without bias or groups, and faster than oneDNN."""
    form = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups, conv.bias, conv.padding_mode)
    fits = conv.in_channels % WIDTH == conv.out_channels % WIDTH == 0 and conv.weight.numel() <= MOST_WEIGHTS
    return fits and form == ((3, 3), (1, 1), (1, 1), (1, 1), 1, None, "zeros")


def _convolved(conv: nn.Conv2d, x: Tensor) -> Tensor:
    plain = x.is_cpu and x.dtype == conv.weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    own = plain and is_fused(conv) and _pays(*x.shape)
    return _Convolution.apply(x, conv.weight) if own else nn.Conv2d.forward(conv, x)


def _pays(images: int, _channels: int, height: int, width: int) -> bool:
    tiles = images * (-height // TILE) * (-width // TILE)
    return tiles >= LEAST_TILES and images * height * width >= LEAST_SHARE * tiles * TILE**2


class _Convolution(torch.autograd.Function):
    """x * w, and its gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return convolution(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        wants_x, wants_weight = ctx.needs_input_grad
        dw = gradient_of_weight(x, dy) if wants_weight else None
        # Last, since the layer below reads it next, while it is in the cache.
        return gradient_of_input(dy, weight) if wants_x else None, dw


def convolution(x: Tensor, weight: Tensor) -> Tensor:
    """The convolution, N K H W in channels_last, of x (N C H W) with a weight (K C 3 3), padding 1 and stride 1.

    All are float32; C and K are multiples of WIDTH. No bit depends on the number of threads.
    """
    return _convolution(x, weight, weight.shape[0], turned=False)


def gradient_of_input(dy: Tensor, weight: Tensor) -> Tensor:
    """The gradient of the same convolution's input, N C H W in channels_last, from its output's (N K H W)."""
    return _convolution(dy, weight, weight.shape[1], turned=True)


def _convolution(x: Tensor, weight: Tensor, channels: int, turned: bool) -> Tensor:
    x, weight = (t.contiguous(memory_format=torch.channels_last) for t in (x, weight))
    (n, c, h, w), threads = x.shape, torch.get_num_threads()
    y = x.new_empty(n, h, w, channels).permute(0, 3, 1, 2)
    space = _space(library().convolution_space(c, channels, threads))
    library().convolution(*map(place, (x, weight, y, space)), n, h, w, c, channels, turned, threads)
    return y


def _space(floats: int) -> Tensor:
    """Memory for the work on a layer, kept for the next one: to be given more than 32 MiB anew takes time."""
    space: Tensor | None = getattr(_kept, "space", None)
    if space is None or len(space) < floats:
        _kept.space = space = torch.empty(floats, device="cpu", dtype=torch.float32)
    return space


def gradient_of_weight(x: Tensor, dy: Tensor) -> Tensor:
    """The gradient of the same convolution's weight, K C 3 3 in channels_last, from its input and its output's."""
    x, dy = (t.contiguous(memory_format=torch.channels_last) for t in (x, dy))
    (n, c, h, w), k = x.shape, dy.shape[1]
    dw = x.new_empty(k, 3, 3, c).permute(0, 3, 1, 2)
    groups = min(GROUPS, n) if dw.numel() < MANY_WEIGHTS else 1
    space = _space(library().weight_gradient_space(c, k, groups))
    library().weight_gradient(*map(place, (x, dy, dw, space)), n, h, w, c, k, groups, torch.get_num_threads())
    return dw
