"""The shortcut h where sizes change: option A (zero padding), B and C (projections), D (pooling and a projection)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as tf
from torch import Tensor, nn

from resnetlab.nets.branches import conv
from resnetlab.nets.orders import ORDERS

if TYPE_CHECKING:
    from resnetlab.nets.spec import NetSpec


class ZeroPad(nn.Module):
    """Option A: every `stride`-th position, and zeros for the channels that x lacks (He 2015, section 3.3).

    The paper does not say where the zeros go: all after x's channels ("after"), or half before and half
    after ("around").
    """

    def __init__(self, c_in: int, c_out: int, stride: int, where: str):
        super().__init__()
        missing = c_out - c_in
        before = missing // 2 if where == "around" else 0
        self.stride = stride
        self.pad = (before, missing - before)

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride]  # N C H W -> N C H/s W/s
        return tf.pad(x, (0, 0, 0, 0, *self.pad))  # -> N C' H/s W/s

    def extra_repr(self) -> str:
        return f"stride={self.stride}, zeros before and after={self.pad}"


def projects(spec: NetSpec, c_in: int, c_out: int, stride: int) -> bool:
    """Whether h has a 1x1 convolution: in every unit with option C, and where sizes change with options B and D."""
    changes = c_in != c_out or stride != 1
    return not spec.is_plain and (spec.shortcut == "C" or (spec.shortcut in ("B", "D") and changes))


def shortcut(spec: NetSpec, c_in: int, c_out: int, stride: int) -> nn.Module:
    """Build h: identity, zero padding or projection. For a plain net, which has none, it is an unused identity.

    Option D averages over stride x stride pixels before its projection, which then has stride 1, so that no pixel is
    skipped (He et al. 2019, section 4.2, ResNet-D).

    A projection is followed by batch norm, as every convolution is (He 2015, section 3.4), except in full
    pre-activation, where BN-ReLU comes before it (He 2016, appendix).
    """
    if projects(spec, c_in, c_out, stride):
        layers: list[nn.Module] = []
        if spec.shortcut == "D":
            layers, stride = [average_pool(stride)], 1
        layers.append(conv(spec, c_in, c_out, 1, stride))
        if spec.norm == "batch" and "b" not in ORDERS[spec.order].preact:
            layers.append(nn.BatchNorm2d(c_out))
        return nn.Sequential(*layers)
    if not spec.is_plain and (c_in != c_out or stride != 1):
        return ZeroPad(c_in, c_out, stride, spec.zero_pad)
    return nn.Identity()


def average_pool(stride: int) -> nn.Module:
    """Average pooling over stride x stride pixels, fewer at the end of an odd side; the identity at stride 1."""
    return nn.Identity() if stride == 1 else nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False)
