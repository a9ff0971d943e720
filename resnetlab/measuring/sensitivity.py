"""Sensitivity: how strongly a unit's F, and its sum H, react to a small change of the unit's weights or input."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from resnetlab.measuring.units import evaluating, squared_norms, steps, units_of, unlabelled
from resnetlab.nets.net import ResidualUnit, ResNet


@dataclass(frozen=True)
class Reaction:
    """Relative changes of a unit's F and H = mix(h, F), norms taken over all images; None where F or H is zero."""

    unit: str
    size: float | None  # ‖F‖ / ‖H‖
    weights_F: float | None  # ‖ΔF‖ / ‖F‖ after a change of the weights
    weights_H: float | None  # ‖ΔH‖ / ‖H‖
    input_F: float | None  # the same after a change of the unit's input
    input_H: float | None


@torch.no_grad()
def reactions(net: ResNet, batches: Iterable[Tensor], change: float, seed: int) -> list[Reaction]:
    """How each unit reacts to a Gaussian change of relative size `change`; H is the sum before f.

    Of the weights: every filter of F's convolutions moves in a random direction by `change` of its norm, batch norm
    stays. Of the input: what h and F take moves by `change` of its norm, image by image (N C H W). For a mix that
    adds, ΔH = ΔF after a change of the weights, so the first ratio of reactions is ‖H‖ / ‖F‖ by arithmetic. In a
    plain net H is F. The network is left as it was.
    """
    generator = torch.Generator().manual_seed(seed)
    others = {name: _moved_weights(unit, change, generator) for name, unit in units_of(net)}
    sums = {name: torch.zeros(6, dtype=torch.float64, device="cpu") for name in others}
    with evaluating(net):
        for images in unlabelled(batches, net):
            for step in steps(net, net.stem(images)):
                F = others[step.name].eval().F(step.x)
                H = step.unit.mix(step.h, F, step.x)
                x = _moved(step.x, change, generator)
                F_of_x = step.unit.F(x)
                H_of_x = step.unit.mix(step.unit.h(x), F_of_x, x)
                measured = [step.F, step.y, F - step.F, H - step.y, F_of_x - step.F, H_of_x - step.y]
                sums[step.name] += torch.stack([squared_norms(m).sum() for m in measured]).cpu()
    return [_reaction(name, *total.sqrt().tolist()) for name, total in sums.items()]


def _reaction(name: str, F: float, H: float, *changes: float) -> Reaction:
    weights_F, weights_H, input_F, input_H = changes
    return Reaction(name, _over(F, H), _over(weights_F, F), _over(weights_H, H), _over(input_F, F), _over(input_H, H))


def _over(a: float, b: float) -> float | None:
    return a / b if b and math.isfinite(a / b) else None


def _moved_weights(unit: ResidualUnit, change: float, generator: torch.Generator) -> ResidualUnit:
    """A copy of the unit whose branch's filters have each moved by `change` of their norm."""
    moved = copy.deepcopy(unit)
    for name in moved.branch_layers:
        layer = getattr(moved, name)
        if isinstance(layer, nn.Conv2d):
            layer.weight.copy_(_moved(layer.weight, change, generator))
    return moved


def _moved(values: Tensor, change: float, generator: torch.Generator) -> Tensor:
    """Each values[i], moved in a random direction by `change` of its norm. The draw is the CPU's, on any device."""
    drawn = torch.randn(values.shape, generator=generator, dtype=torch.float32, device="cpu").to(values)
    sizes, shape = torch.stack([squared_norms(values), squared_norms(drawn)]).sqrt(), (-1, *[1] * (values.dim() - 1))
    return values + drawn * (change * sizes[0] / sizes[1]).to(values.dtype).view(shape)
