"""How signal and gradient pass through a network's depth, as it stands: measured, and by He's recursion."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as tf
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

from resnetlab.measuring.units import (
    check_batch,
    check_images,
    check_units,
    cross_entropy,
    own_draws,
    stage_of,
    taking_gradients,
)
from resnetlab.nets.net import ResNet
from resnetlab.nets.orders import CONVS
from resnetlab.nets.vgg import VGG


@dataclass(frozen=True)
class Signal:
    """Signal and gradient at one place: a unit's y, before its last activation; in a VGG net a layer's response."""

    name: str
    stage: int
    mean_square: float  # of y over images, channels and positions: its variance where its mean is 0
    std: float  # of y, over the same
    gradient: float  # ‖∂E/∂y‖ over the same, E the mean cross-entropy of the batch, in nats


def signals(net: ResNet | VGG, x: Tensor, labels: Tensor) -> list[Signal]:
    """Signal and gradient in order of depth, as the first training step sees them (x: N C H W, labels: N).

    Batch norm takes the statistics of the batch. The numbers are of a copy in double precision, in which signals
    that single precision would round to zero are still seen, and the network itself is left as it is. They are zero
    or infinite only where double precision ends (He et al. 2015, 1502.01852, section 2.2, measures both).
    """
    if not isinstance(net, VGG):
        check_units(net)
    labels = check_batch(x, labels)
    net = copy.deepcopy(net).double().train().requires_grad_(False)
    places = list(_places(net))
    found: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, y: Tensor) -> None:
        y.retain_grad()
        found.append(y)

    for _, _, module in places:
        module.register_forward_hook(keep)
    with taking_gradients(), own_draws(x):
        cross_entropy(net(x.detach().double().requires_grad_()), labels).backward()
    return [
        Signal(name, stage, y.square().mean().item(), y.std(correction=0).item(), _norm(y.grad))
        for (name, stage, _), y in zip(places, found, strict=True)
    ]


def _places(net: ResNet | VGG) -> Iterator[tuple[str, int, nn.Module]]:
    if isinstance(net, ResNet):
        for name, unit in net.units():
            yield name, stage_of(name), unit.mix
        return
    kind, stage = (nn.BatchNorm2d if net.spec.batch_norm else nn.Conv2d), 1
    for name, module in net.named_modules():
        if isinstance(module, kind):
            yield name, stage, module
        stage += isinstance(module, nn.MaxPool2d)


def _norm(gradient: Tensor | None) -> float:
    assert gradient is not None
    return gradient.norm().item()


def growth(values: Sequence[float], stages: Sequence[int], layers: int) -> float | None:
    """The factor per layer by which `values` (one a unit, of `layers` each) grow within stages: a geometric mean.

    Steps from one stage to the next, where sizes change, are left out. None where a value is zero or not finite, or no
    stage has two units.
    """
    if not all(0 < v < math.inf for v in values):
        return None
    steps = [
        math.log(after / before)
        for before, after, old, new in zip(values, values[1:], stages, stages[1:], strict=False)
        if old == new
    ]
    return math.exp(sum(steps) / len(steps) / layers) if steps else None


def backward_growth(values: Sequence[float], stages: Sequence[int], layers: int) -> float | None:
    """As `growth`, from the last unit towards the first: how a gradient grows on its way back."""
    return growth(values[::-1], stages[::-1], layers)


@dataclass(frozen=True)
class Predicted:
    """What He's recursion says of a plain net without batch norm, unit by unit."""

    mean_square: list[float]  # of y
    gradient: list[float]  # ‖∂E/∂y‖ in parts of the last unit's


def predicted(net: ResNet, x: Tensor) -> Predicted:
    """He's recursion for a plain net without batch norm (He et al. 2015, 1502.01852, eq. 8 and 12), on images x.

    Forward Var[y_l] = n_l Var[w_l] E[x_l²] and E[x_{l+1}²] = Var[y_l] / 2; backward the same with the outputs that an
    input feeds in place of the n_l inputs of an output. The paper takes n_l = k²·c_in everywhere; here it is counted
    position by position, as the zeros around a map bring no signal: on a map of 2x2 pixels a 3x3 filter meets 4
    pixels, not 9. Of a grouped convolution only the channels of one's own group count. Var[w_l] is that of the layer's
    own weights. Raises ValueError for another kind of network.
    """
    check_units(net)
    check_images(x)
    spec = net.spec
    if not (spec.is_plain and spec.norm == "none" and spec.order == "post" and spec.stem == "cifar"):
        raise ValueError("He's recursion is for plain nets without batch norm.")
    if spec.se_reduction or spec.branch_scalar is not None:
        raise ValueError(
            "He's recursion is for branches of convolutions alone: leave se_reduction and branch_scalar out."
        )
    square = x.detach().double().square().mean((0, 1), keepdim=True).cpu()  # 1 1 H W: E[x²] at each position
    units: list[list[tuple[nn.Conv2d, torch.Size]]] = []  # each convolution and the size of its input
    squares: list[float] = []
    for part in (net.get_submodule("conv1"), *(unit for _, unit in net.units())):
        units.append([])
        for conv in (m for m in part.modules() if isinstance(m, nn.Conv2d)):
            units[-1].append((conv, square.shape))
            met = tf.conv2d(square, _taps(conv), None, conv.stride, conv.padding)  # summed over what a filter meets
            response = _variance(conv) * (conv.in_channels // conv.groups) * met  # Var[y] at each position
            square = response / 2  # what ReLU leaves of a symmetric response
        squares.append(response.mean().item())
    return Predicted(squares[1:], _predicted_gradients(units[1:], square.shape))


def _predicted_gradients(units: list[list[tuple[nn.Conv2d, torch.Size]]], last: torch.Size) -> list[float]:
    square = torch.ones(last, dtype=torch.double, device="cpu")  # E[(∂E/∂y)²] at each position of the last unit's y
    total = [units[-1][-1][0].out_channels * square.sum().item()]
    for before, unit in zip(units[-2::-1], units[:0:-1], strict=True):
        for conv, size in reversed(unit):
            spread = conv2d_input(size, _taps(conv), square, conv.stride, conv.padding)
            outputs = conv.out_channels // conv.groups  # that an input reaches
            square = _variance(conv) * outputs * spread / 2  # of ∂E/∂y, whose ReLU lets half pass
        total.append(before[-1][0].out_channels * square.sum().item())
    return [math.sqrt(t / total[0]) for t in reversed(total)]


def _variance(conv: nn.Conv2d) -> float:
    return conv.weight.detach().double().square().mean().item()


def _taps(conv: nn.Conv2d) -> Tensor:
    return torch.ones(1, 1, *conv.kernel_size, dtype=torch.double, device="cpu")


def layers_per_unit(net: ResNet) -> int:
    """Weight layers on the main path of one unit."""
    check_units(net)
    return CONVS[net.spec.branch]
