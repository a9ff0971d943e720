"""The branch F: its convolutions, and the layers between them."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn

from resnetlab.nets.orders import EXPANSION, ORDERS
from resnetlab.nets.spec import NetSpec

Layers = dict[str, nn.Module]


def conv(spec: NetSpec, c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A k x k convolution that keeps the map size at stride 1; it has a bias only if the net has no batch norm."""
    bias = spec.norm == "none"
    return nn.Conv2d(c_in, c_out, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=bias)


def branch_convs(spec: NetSpec, c_in: int, width: int, stride: int) -> list[nn.Conv2d]:
    """The convolutions of F in order.

    single: 3x3; basic: 3x3, 3x3 (He 2015, Fig. 5 left); bottleneck: 1x1, 3x3, 1x1 (Fig. 5 right), with the
    stride in the first 1x1 (the paper's release) or in the 3x3 ("v1.5"). Its 3x3 may be grouped (ResNeXt) or wide.
    """
    if spec.branch == "single":
        return [conv(spec, c_in, width, 3, stride)]
    if spec.branch == "basic":
        return [conv(spec, c_in, width, 3, stride), conv(spec, width, width, 3)]
    inner = spec.inner_width(width)
    stride_1x1, stride_3x3 = (stride, 1) if spec.stride_at == "1x1" else (1, stride)
    return [
        conv(spec, c_in, inner, 1, stride_1x1),
        conv(spec, inner, inner, 3, stride_3x3, spec.groups),
        conv(spec, inner, width * EXPANSION["bottleneck"], 1),
    ]


def unit_layers(spec: NetSpec, c_in: int, width: int, stride: int) -> tuple[Layers, Layers, Layers]:
    """The layers of a unit by name: (pre-activation, rest of F, layers after the sum).

    Layers of each kind are numbered in order (conv1, bn1, relu1, conv2 ...), which gives torchvision's parameter
    names in the post-activation order.
    """
    convs = branch_convs(spec, c_in, width, stride)
    order = ORDERS[spec.order]
    body = order.each * (len(convs) - 1) + order.last
    seen: Counter[str] = Counter()
    channels = c_in

    def layers(ops: str) -> Layers:
        nonlocal channels
        made: Layers = {}
        for op in ops:
            if op == "b" and spec.norm == "none":
                continue
            seen[op] += 1
            if op == "c":
                layer = convs[seen[op] - 1]
                made[f"conv{seen[op]}"] = layer
                channels = layer.out_channels
            elif op == "b":
                made[f"bn{seen[op]}"] = nn.BatchNorm2d(channels)
            else:
                made[f"relu{seen[op]}"] = nn.ReLU()
        return made

    return layers(order.preact), layers(body[len(order.preact) :]), layers(order.postact)


def squeezed(channels: int, reduction: int, divisor: int) -> int:
    """The width of W₁'s output: channels / reduction, rounded to a multiple of the divisor, and never below it."""
    return max(divisor, (channels // reduction + divisor // 2) // divisor * divisor)


class SqueezeExcitation(nn.Module):
    """F · σ(W₂ relu(W₁ mean(F))): channel-wise re-weighting of F (Hu et al. 2018, eq. 2 to 4)."""

    def __init__(self, channels: int, reduction: int, divisor: int):
        super().__init__()
        inner = squeezed(channels, reduction, divisor)
        self.fc1 = nn.Conv2d(channels, inner, 1)
        self.relu = nn.ReLU()
        self.fc2 = nn.Conv2d(inner, channels, 1)

    def forward(self, F: Tensor) -> Tensor:
        s = F.mean((2, 3), keepdim=True)  # N C 1 1
        return F * torch.sigmoid(self.fc2(self.relu(self.fc1(s))))


class BranchScalar(nn.Module):
    """α · F with one learned α, which starts at `initial` (SkipInit: 0; De & Smith 2020)."""

    def __init__(self, initial: float):
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(float(initial)))
        self.initial = initial

    def forward(self, F: Tensor) -> Tensor:
        return self.alpha * F


class StochasticDepth(nn.Module):
    """In training, sets F to 0 for each image with probability `p`, else scales it by 1/(1 − p) (Huang et al. 2016).

    The rescaling keeps the expectation, so that evaluation needs no factor.
    """

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, F: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return F
        keep = torch.empty(F.shape[0], 1, 1, 1, dtype=F.dtype, device=F.device).bernoulli_(1 - self.p)
        return F * (keep / (1 - self.p))

    def extra_repr(self) -> str:
        return f"p={self.p:g}"


def tail_layers(spec: NetSpec, channels: int, drop: float) -> Layers:
    """The layers that the spec's optional fields add at the end of F."""
    layers: Layers = {}
    if spec.se_reduction:
        layers["se"] = SqueezeExcitation(channels, spec.se_reduction, spec.se_divisor)
    if spec.branch_scalar is not None:
        layers["scalar"] = BranchScalar(spec.branch_scalar)
    if drop:
        layers["drop"] = StochasticDepth(drop)
    return layers
