"""The stem: the layers before the first unit, with torchvision's names."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import nn

from resnetlab.nets.branches import Layers, conv
from resnetlab.nets.orders import ORDERS

if TYPE_CHECKING:
    from resnetlab.nets.spec import NetSpec

# The convolutions of each stem as (kernel, stride, width / stem width), and whether a 3x3 max-pool follows.
# cifar: He 2015, section 4.2; imagenet: Table 1; deep: three 3x3 (He et al. 2019, ResNet-C and -D); tiered: the same
# with a narrower first one (timm's ResNet-T).
STEMS: dict[str, tuple[tuple[tuple[int, int, float], ...], bool]] = {
    "cifar": (((3, 1, 1.0),), False),
    "imagenet": (((7, 2, 1.0),), True),
    "deep": (((3, 2, 0.5), (3, 1, 0.5), (3, 1, 1.0)), True),
    "tiered": (((3, 2, 0.375), (3, 1, 0.5), (3, 1, 1.0)), True),
}


def stem_stride(spec: NetSpec) -> int:
    """Input pixels from one position after the stem to the next."""
    shapes, pooled = STEMS[spec.stem]
    return math.prod(stride for _, stride, _ in shapes) * (2 if pooled else 1)


def stem_layers(spec: NetSpec) -> Layers:
    """The layers of the stem by name: conv1, bn1, relu and, on ImageNet, maxpool.

    Every activation order has them: the BN-ReLU of a pre-activation net is its first unit's own, moved
    right after conv1 and before the split into two paths (He 2016, appendix). With first_preact="unit" they stay
    in that unit, after the max-pool.
    """
    shapes, pooled = STEMS[spec.stem]
    convs: list[nn.Module] = []
    c_in = spec.in_channels
    for kernel, stride, share in shapes:
        if convs:
            convs += [*_norm(spec, c_in).values(), nn.ReLU()]
        c_out = int(spec.stem_width * share)
        convs.append(conv(spec, c_in, c_out, kernel, stride))
        c_in = c_out
    layers: Layers = {"conv1": convs[0] if len(convs) == 1 else nn.Sequential(*convs)}
    elsewhere = ORDERS[spec.order].preact if spec.first_preact == "unit" else ""
    if "b" not in elsewhere:
        layers |= _norm(spec, c_in)
    if "r" not in elsewhere:
        layers["relu"] = nn.ReLU()
    if pooled:
        layers["maxpool"] = nn.MaxPool2d(3, stride=2, padding=1)
    return layers


def _norm(spec: NetSpec, channels: int) -> Layers:
    return {"bn1": nn.BatchNorm2d(channels)} if spec.norm == "batch" else {}
