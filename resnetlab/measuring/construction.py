"""The deeper network that a shallower one contains: its units, and more of them that are the identity."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from resnetlab.measuring.units import check_images, check_units
from resnetlab.nets.mixing import Add, Plain
from resnetlab.nets.net import ResidualUnit, ResNet
from resnetlab.nets.zoo import build


@dataclass(frozen=True)
class Deviation:
    """How far the scores of a network are from those of another, over all images and classes."""

    largest: float  # of |difference|
    scores: float  # the largest |score| of the first network, to compare with
    changed: int  # images whose highest score is of another class
    images: int

    @property
    def exact(self) -> bool:
        """Whether no score differs in any bit."""
        return self.largest == 0


@torch.no_grad()
def deepened(net: ResNet, units: Sequence[int], *, seed: int = 0, images: Tensor | None = None) -> ResNet:
    """A deeper copy of a trained network: so many units in each stage, of which the surplus ones are the identity.

    This is the solution by construction of He et al. 2015, section 3.1. The surplus stands at each stage's end, where
    sizes don't change. Its input x is what a ReLU gave, so f(x) = relu(x) = x, and it remains to make

        residual units   F = 0: γ = β = 0 in the last batch norm; the convolutions keep their random weights
        plain units      F(x) = x: convolutions with a 1 from each channel to itself at their centre, zeros elsewhere,
                         and batch norms that pass on what they get: statistics μ = 0, σ² + ε = 1, with γ = 1, β = 0

    A plain unit built so is the identity in evaluation only: in training, batch norm takes the batch's statistics.
    With `images` (N C H W) the surplus batch norms of a plain net get the statistics of x over them, and γ = √(σ² + ε),
    β = μ, which is the identity in evaluation, but for rounding, and about it in training. What is random follows from
    `seed`. The copy has the mode of `net`.
    Raises ValueError for another mix than Add or Plain, another order than post-activation, no batch norm, projections
    in all units (shortcut C), a plain net of bottlenecks (which squeeze x) or with layers that scale F, and for a stage
    that would lose units.
    """
    check_units(net)
    spec = net.spec
    plain = isinstance(spec.mix, Plain)
    if not isinstance(spec.mix, Add | Plain) or spec.order != "post" or spec.norm != "batch":
        raise ValueError(f"{spec.name}: needs mix Add or Plain, order 'post' and batch norm")
    if spec.shortcut == "C":
        raise ValueError(f"{spec.name}: with shortcut C each unit projects x, so that F = 0 is not the identity")
    if plain and (spec.se_reduction or spec.branch_scalar is not None):
        raise ValueError(f"{spec.name}: se_reduction and branch_scalar scale F, so a plain unit can't be the identity")
    if plain and spec.branch == "bottleneck":
        raise ValueError(f"{spec.name}: a plain bottleneck squeezes x, so it can't be the identity")
    if len(units) != len(spec.stages) or any(n < s.units for n, s in zip(units, spec.stages, strict=True)):
        raise ValueError(f"units={tuple(units)} must be at least {tuple(s.units for s in spec.stages)}, one per stage")
    stages = tuple(replace(s, units=n) for s, n in zip(spec.stages, units, strict=True))
    deeper = build(spec.override(stages=stages), seed=seed).to(next(net.parameters()))  # the same device and precision
    assert isinstance(deeper, ResNet)
    deeper.fc = copy.deepcopy(net.fc)  # it may have been replaced by one for other classes
    deeper.load_state_dict(deeper.state_dict() | net.state_dict())
    if images is not None:
        check_images(images, net)
    outputs = _stage_outputs(net, images) if plain and images is not None else [None] * len(stages)
    for stage, old, x in zip(deeper.stages(), net.stages(), outputs, strict=True):
        for unit in list(stage)[len(old) :]:
            assert isinstance(unit, ResidualUnit)
            if plain:
                _pass_through(unit, x)
            else:
                unit.last_norm.weight.zero_()
                unit.last_norm.bias.zero_()
    return deeper.train(net.training)


@torch.no_grad()
def deviation(net: nn.Module, other: nn.Module, x: Tensor) -> Deviation:
    """Compare the scores (N K) of two networks on images x (N C H W), both in evaluation mode; neither is touched."""
    check_images(x, net)
    scores, others = (copy.deepcopy(n).eval()(x) for n in (net, other))
    return Deviation(
        float((others - scores).abs().max()),
        float(scores.abs().max()),
        int((scores.argmax(1) != others.argmax(1)).sum()),
        len(x),
    )


def _stage_outputs(net: ResNet, images: Tensor) -> list[Tensor]:
    """What each stage gives, in evaluation mode: N C H W."""
    looked_at = copy.deepcopy(net).eval()
    outputs: list[Tensor] = []
    for stage in looked_at.stages():
        stage.register_forward_hook(lambda _module, _inputs, x: outputs.append(x))
    looked_at(images)
    return outputs


def _pass_through(unit: ResidualUnit, x: Tensor | None) -> None:
    """Make the layers of a plain unit pass on what they get; x, if given, is an example of it."""
    for module in unit.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.dirac_(module.weight)
        elif isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            if x is not None:
                module.running_mean.copy_(x.mean((0, 2, 3)))
                module.running_var.copy_(x.var((0, 2, 3)))
                module.weight.copy_((module.running_var + module.eps).sqrt())
                module.bias.copy_(module.running_mean)
            else:
                module.reset_running_stats()
                module.running_var.fill_(1 - module.eps)
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)
