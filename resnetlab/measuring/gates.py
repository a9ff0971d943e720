"""What learned gates let pass: the carry 1 − g of each unit, and what a chain of them leaves of a signal."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from resnetlab.measuring.units import check_images, units_of
from resnetlab.nets.mixing import Gate
from resnetlab.nets.net import ResidualUnit, ResNet


@dataclass(frozen=True)
class Carry:
    """The carry of one unit's shortcut, 1 − g, over images, channels and positions: shares in [0, 1]."""

    unit: str  # e.g. "layer1.0"
    mean: float
    low: float  # 5 % of the values are below
    high: float  # 5 % are above
    left: float  # mean of what the shortcuts from this unit to the last leave of the signal that enters it


def initial_carry(bias: float, units: int = 1) -> float:
    """(1 − σ(b))^units: what so many gates with weights of 0 and this bias pass (after He 2016, eq. 7)."""
    if bias > 0:  # e^b may be no float
        return (math.exp(-bias) / (1 + math.exp(-bias))) ** units
    return (1 + math.exp(bias)) ** -units


@torch.no_grad()
def carries(net: ResNet, x: Tensor, *, by_batch: bool = False) -> list[Carry]:
    """The carry of every unit of a gated network (mix ExclusiveGate or ShortcutGate) on images x, N C H W.

    A unit's shortcut gives (1 − g(x))·h(x), element by element (He 2016, section 3.1), so what comes straight from
    unit l to the last unit is x_l times the product of these factors: eq. 7 with a tensor for each λ. `left` is that
    product's mean over its elements, followed through every subsampling; channels that option A pads are left out of
    it. The ReLU after a sum is not in it. Batch norm uses its running statistics, or with `by_batch` those of x, as
    it does in training and as a fresh network needs it; no unit's F is skipped. The network itself is not touched.
    Raises ValueError for a network without gates, or with projections, through which no factor of x passes.
    """
    if not all(isinstance(unit.mix.part, Gate) for _, unit in units_of(net)):
        raise ValueError(f"{net.spec.name or 'the network'} has no gates: its mix is {net.spec.mix!r}")
    if any(isinstance(m, nn.Conv2d) for _, unit in net.units() for m in unit.downsample.modules()):
        raise ValueError(f"{net.spec.name or 'the network'} has projections, which do not scale x by a factor")
    check_images(x, net)
    looked_at = copy.deepcopy(net).eval()
    for module in looked_at.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train(by_batch)
    kept: list[Tensor] = []  # 1 - g of each unit: N C H W
    for _, unit in looked_at.units():
        assert isinstance(unit.mix.part, Gate)
        unit.mix.part.register_forward_hook(lambda _module, _inputs, g: kept.append(1 - g))
    looked_at(x)
    units = list(looked_at.units())
    found = []
    for i, (name, unit) in enumerate(units):
        low, high = _quantiles(kept[i])
        left = _left([unit for _, unit in units[i:]], kept[i:])
        found.append(Carry(name, float(kept[i].mean()), low, high, left))
    return found


def _left(units: list[ResidualUnit], kept: list[Tensor]) -> float:
    """Mean of the product of factors, over the elements that a signal of ones at the first unit's input reaches."""
    stride = units[0].stride
    n, _, height, width = kept[0].shape
    ones = kept[0].new_ones(n, units[0].in_channels, height * stride, width * stride)
    signal, reached = ones, ones
    for unit, factor in zip(units, kept, strict=True):
        signal, reached = factor * unit.h(signal), unit.h(reached)
    return float(signal.sum() / reached.sum())


def _quantiles(values: Tensor) -> tuple[float, float]:
    ordered = values.flatten().sort().values  # torch.quantile takes no more than 16 million values
    last = len(ordered) - 1
    return float(ordered[round(0.05 * last)]), float(ordered[round(0.95 * last)])
