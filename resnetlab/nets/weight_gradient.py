"""The gradient of 3x3 convolutions' weights by our own code, for processors whose best instructions are AVX2.

There oneDNN takes half as long again for it as for the convolution itself. `weight_gradient.cpp` keeps more sums in
registers. The convolution and the gradient of its input stay oneDNN's.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from resnetlab.nets.kernels import library, place

MOST_WEIGHTS = 9 * 128 * 128  # beyond, oneDNN is as fast
FEWEST_CHANNELS, WIDTH = 8, 16  # of the input; the output's are a multiple of WIDTH
GROUPS = 16  # of images, whose sums are apart: fewer where many output channels are enough to share among threads


def own_weight_gradients(net: nn.Module) -> None:
    """Make the convolutions that `is_served` names compute their weights' gradient by our code, in training mode.

    The network is changed in place. Feature maps are N C H W in the layout channels_last; others are copied into it.
    """
    for module in net.modules():
        if type(module) is nn.Conv2d and is_served(module):
            module.forward = partial(_convolved, module)  # type: ignore[method-assign]


def is_served(conv: nn.Conv2d) -> bool:
    """Whether the code is for that layer: 3x3, stride 1, padding 1, without bias or groups, and faster than oneDNN."""
    form = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups, conv.bias, conv.padding_mode)
    fits = form == ((3, 3), (1, 1), (1, 1), (1, 1), 1, None, "zeros") and conv.out_channels % WIDTH == 0
    return fits and conv.in_channels >= FEWEST_CHANNELS and conv.weight.numel() <= MOST_WEIGHTS


def _convolved(conv: nn.Conv2d, x: Tensor) -> Tensor:
    plain = x.is_cpu and x.dtype == conv.weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return _Convolution.apply(x, conv.weight) if plain and conv.training else nn.Conv2d.forward(conv, x)


class _Convolution(torch.autograd.Function):
    """x * w, and its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.conv2d(x, weight, padding=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        wants_x, wants_weight = ctx.needs_input_grad
        dw = gradient_of_weight(x, dy) if wants_weight else None
        dx = None
        if wants_x:  # last, since the layer below reads it next, while it is in the cache
            one = [1, 1]
            dx, _, _ = torch.ops.aten.convolution_backward(
                dy, x, weight, None, one, one, one, False, [0, 0], 1, [True, False, False]
            )
        return dx, dw


def gradient_of_weight(x: Tensor, dy: Tensor) -> Tensor:
    """The gradient (K C 3 3, in channels_last) of a convolution's weight from its input (N C H W) and its output's.

    Both are float32; K is a multiple of WIDTH. No bit depends on the number of threads.
    """
    x, dy = (t.contiguous(memory_format=torch.channels_last) for t in (x, dy))
    (n, c, h, w), k = x.shape, dy.shape[1]
    groups = max(1, min(GROUPS, n, GROUPS * 64 // k))
    sums, dw = x.new_empty(groups, 9, c, k), x.new_empty(k, 3, 3, c).permute(0, 3, 1, 2)
    library().weight_gradient(*map(place, (x, dy, dw, sums)), n, h, w, c, k, groups, torch.get_num_threads())
    return dw
