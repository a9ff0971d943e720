"""Where in an image a network finds its answer: Grad-CAM at any unit, and occlusion."""

from __future__ import annotations

import torch
import torch.nn.functional as tf
from torch import Tensor, nn

from resnetlab.errors import UserError, did_you_mean, shown
from resnetlab.measuring.units import evaluating
from resnetlab.nets.net import ResNet
from resnetlab.nets.vgg import VGG

AT_ONCE = 64  # squares that are hidden, each in an image of its own, in one pass through the network


def units_of(net: ResNet | VGG) -> dict[str, nn.Module]:
    """The modules for Grad-CAM, by name and in order: a residual net's units, or the ReLUs of VGG's convolutions."""
    if isinstance(net, ResNet):
        return dict(net.units())
    return {name: m for name, m in net.named_modules() if isinstance(m, nn.ReLU) and name.startswith("features")}


def unit_of(net: ResNet | VGG, name: str) -> nn.Module:
    """One of `units_of`. Raises UserError for an unknown name."""
    units = units_of(net)
    if name not in units:
        first, last = next(iter(units)), next(reversed(units))
        raise UserError(
            f"unit {shown(name)} is not one of this network's, {first} to {last}.{did_you_mean(name, units)}"
        )
    return units[name]


def default_unit(net: ResNet | VGG, side: int) -> str:
    """The last unit whose map has more than one position for images of `side` pixels, so that it can show where."""
    names = list(units_of(net))
    if isinstance(net, ResNet):
        stages = [k for k, stride in enumerate(net.feature_strides, 1) if side > stride]
        return [name for name in names if not stages or name.startswith(f"layer{stages[-1]}.")][-1]
    return names[-1]


def grad_cam(net: ResNet | VGG, x: Tensor, target: Tensor, unit: str | None = None) -> Tensor:
    """Grad-CAM of x (float N C H W) for the classes `target` (int64 N) at a unit, by default `default_unit`: N H W.

    The sum of the unit's output channels, each weighted by the mean over positions of the gradient of the class's
    score, with negative values set to 0, resized bilinearly to the image, and divided by its highest value; all 0 if
    nothing speaks for the class (Selvaraju et al. 2017, eq. 1 and 2). The network is used in evaluation mode and
    left as it was. Raises UserError for an unknown unit.
    """
    looked_at = unit_of(net, default_unit(net, min(x.shape[2:])) if unit is None else unit)
    kept: list[Tensor] = []
    hook = looked_at.register_forward_hook(lambda module, inputs, output: kept.append(output))
    with hook, evaluating(net), torch.enable_grad():
        # The gradient is taken through the input, so that frozen weights can stay frozen.
        scores = net(x.detach().requires_grad_()).gather(1, target[:, None])
        (gradient,) = torch.autograd.grad(scores.sum(), kept[-1])
    weight = gradient.mean((2, 3), keepdim=True)  # N C 1 1
    heat = (weight * kept[-1].detach()).sum(1, keepdim=True).relu()  # N 1 h w
    return _scaled(tf.interpolate(heat, x.shape[2:], mode="bilinear", align_corners=False)[:, 0])


@torch.inference_mode()
def occlusion(net: ResNet | VGG, x: Tensor, target: Tensor, patch: int, stride: int) -> Tensor:
    """How much the class's probability falls when a square is hidden: N H W (Zeiler & Fergus 2014, section 4.2).

    x: float N C H W, normalised; `patch` x `patch` pixels are set to 0, the mean, every `stride` pixels. Each pixel
    gets the mean fall over the squares that cover it, with negative values set to 0, divided by the highest. The
    network is used in evaluation mode and left as it was. Raises ValueError for squares that don't fit.
    """
    height, width = x.shape[2:]
    if not (0 < patch <= min(height, width) and 0 < stride <= patch):
        raise ValueError(f"squares of {patch} pixels every {stride} don't cover an image of {height} x {width}")
    places = [(top, left) for top in _steps(height, patch, stride) for left in _steps(width, patch, stride)]
    pairs = zip(x, target, strict=True)
    with evaluating(net):
        heats = [_occluded(net, one[None], int(label), places, patch) for one, label in pairs]
    return _scaled(torch.stack(heats))


def _occluded(net: nn.Module, x: Tensor, label: int, places: list[tuple[int, int]], patch: int) -> Tensor:
    """The mean fall over the squares that hide each pixel, for one image, 1 C H W: H W."""
    whole = net(x).softmax(1)[0, label]
    fall, count = torch.zeros_like(x[0, 0]), torch.zeros_like(x[0, 0])
    for first in range(0, len(places), AT_ONCE):
        some = places[first : first + AT_ONCE]
        hidden = x.repeat(len(some), 1, 1, 1)
        for image, (top, left) in zip(hidden, some, strict=True):
            image[:, top : top + patch, left : left + patch] = 0
        falls = whole - net(hidden).softmax(1)[:, label]
        for value, (top, left) in zip(falls, some, strict=True):
            fall[top : top + patch, left : left + patch] += value
            count[top : top + patch, left : left + patch] += 1
    return (fall / count).relu()


def _steps(side: int, patch: int, stride: int) -> list[int]:
    """The positions of squares along a side: every `stride` pixels, and one at its end."""
    return [*range(0, side - patch, stride), side - patch]


def _scaled(heat: Tensor) -> Tensor:
    """Each map divided by its highest value, N H W; a map of zeros is left as it is."""
    highest = heat.amax((1, 2), keepdim=True)
    return heat / highest.where(highest > 0, torch.ones_like(highest))
