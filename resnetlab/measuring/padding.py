"""Option A's added channels: what the shortcut carries there, and what the branch does."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from resnetlab.measuring.units import check_images, evaluating, units_of
from resnetlab.nets.net import ResidualUnit, ResNet
from resnetlab.nets.shortcuts import ZeroPad


@dataclass(frozen=True)
class PaddedUnit:
    """A unit whose shortcut pads with zeros: y = mix(h, F), over all images and positions.

    `largest_shortcut` is max |h| and `largest_gap` is max |y − F| over the added channels; rms: root mean squares
    of F in the added channels, and of h and F in the others.
    """

    unit: str
    added: int  # channels
    largest_shortcut: float
    largest_gap: float
    branch_rms_added: float
    shortcut_rms_kept: float
    branch_rms_kept: float


@torch.no_grad()
def padded_units(net: ResNet, x: Tensor) -> list[PaddedUnit]:
    """Measure every unit that pads channels with zeros, in evaluation mode; x: N C H W (He 2015, section 3.3).

    Empty for a network without such units. The network is left as it was.
    """
    units = units_of(net)
    check_images(x, net)
    found: list[PaddedUnit] = []
    handles = [
        unit.register_forward_pre_hook(partial(_note, name, found))
        for name, unit in units
        if isinstance(unit.downsample, ZeroPad) and any(unit.downsample.pad)
    ]
    try:
        with evaluating(net):
            net(x)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _note(name: str, found: list[PaddedUnit], unit: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    assert isinstance(unit, ResidualUnit)
    assert isinstance(unit.downsample, ZeroPad)
    x = unit.preact(inputs[0])
    h, F = unit.h(x), unit.F(x)  # N C' H/s W/s
    y = unit.mix(h, F, x)
    before, after = unit.downsample.pad
    added = torch.ones(h.shape[1], dtype=torch.bool, device=h.device)
    added[before : h.shape[1] - after] = False
    found.append(
        PaddedUnit(
            name,
            int(added.sum()),
            float(h[:, added].abs().max()),
            float((y - F)[:, added].abs().max()),
            _rms(F[:, added]),
            _rms(h[:, ~added]),
            _rms(F[:, ~added]),
        )
    )


def _rms(t: Tensor) -> float:
    return float(t.double().square().mean().sqrt())
