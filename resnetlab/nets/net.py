"""The network: ResidualUnit, the equation of the 2016 paper, and ResNet, the modules of a spec."""

from __future__ import annotations

import contextlib
import math
import operator
from collections.abc import Iterator
from functools import partial
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from resnetlab.machine import give_back_memory
from resnetlab.nets.branches import Layers, tail_layers, unit_layers
from resnetlab.nets.mixing import Mixing
from resnetlab.nets.orders import ORDERS
from resnetlab.nets.shortcuts import projects, shortcut
from resnetlab.nets.spec import NetSpec
from resnetlab.nets.stems import stem_layers, stem_stride


class _Named(nn.Module):
    """A module that holds its layers under their own names and runs groups of them in order."""

    def hold(self, layers: Layers) -> tuple[str, ...]:
        """Register the layers; return their names, for `run`."""
        for name, layer in layers.items():
            self.add_module(name, layer)
        return tuple(layers)

    def run(self, names: tuple[str, ...], x: Tensor) -> Tensor:
        for name in names:
            x = getattr(self, name)(x)
        return x


class ResidualUnit(_Named):
    """One unit: y = mix(h(x), F(x)), x⁺ = f(y) (He 2016, eq. 1 and 2).

    x: N C H W; x⁺: N C' H/stride W/stride. In pre-activation orders a projection shares the unit's first
    activation with F, and the stem has done that of the first unit of a net (`first`): both split after it
    (He 2016, appendix).
    """

    def __init__(
        self, spec: NetSpec, in_channels: int, width: int, stride: int, *, first: bool = False, drop: float = 0.0
    ):
        super().__init__()
        out_channels = width * spec.expansion
        preact, body, postact = unit_layers(spec, in_channels, width, stride)
        if first:
            preact = {}
        shared = projects(spec, in_channels, out_channels, stride)
        body |= tail_layers(spec, out_channels, drop)
        self.preact_layers = self.hold(preact if shared else {})
        self.branch_layers = self.hold(body if shared else preact | body)
        self.postact_layers = self.hold(postact)
        self.downsample = shortcut(spec, in_channels, out_channels, stride)  # torchvision's name for h
        self.mix = Mixing(spec.mix, in_channels, out_channels, stride)
        self.in_channels, self.out_channels, self.stride = in_channels, out_channels, stride

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The last batch norm of F, whose γ and β of 0 make F = 0. Raises IndexError if F has none."""
        return [layer for name in self.branch_layers if isinstance(layer := getattr(self, name), nn.BatchNorm2d)][-1]

    def preact(self, x: Tensor) -> Tensor:
        """The pre-activation that h and F share; x itself in a unit in which they share none."""
        return self.run(self.preact_layers, x)

    def h(self, x: Tensor) -> Tensor:
        return self.downsample(x)

    def F(self, x: Tensor) -> Tensor:
        return self.run(self.branch_layers, x)

    def f(self, y: Tensor) -> Tensor:
        return self.run(self.postact_layers, y)

    def forward(self, x: Tensor) -> Tensor:
        x = self.preact(x)
        y = self.mix(self.h(x), self.F(x), x)
        return self.f(y)


class ResNet(_Named):
    """A network of the papers: stem, stages of units, global average pool, fc.

    Input N C H W; output N K, the scores before the softmax. The constructor leaves torch's initial weights: use
    `resnetlab.build`, which applies the spec's initialisation. `recompute = True` trades time for memory in
    training and changes no value.
    """

    def __init__(self, spec: NetSpec):
        super().__init__()
        self.spec = spec
        self.recompute = False
        self.stem_layers = self.hold(stem_layers(spec))
        channels, done, total = spec.stem_width, 0, sum(s.units for s in spec.stages)
        for i, stage in enumerate(spec.stages, 1):
            units = []
            for j in range(stage.units):
                done += 1
                drop = spec.stochastic_depth * done / total  # linear rule (Huang et al. 2016, eq. 4)
                stride = stage.stride if j == 0 else 1
                first = done == 1 and spec.first_preact == "stem"
                units.append(ResidualUnit(spec, channels, stage.width, stride, first=first, drop=drop))
                channels = units[-1].out_channels
            self.add_module(f"layer{i}", nn.Sequential(*units))
        self.last_layers = self.hold(_last_activation(spec, channels))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, spec.num_classes)

    def stages(self) -> list[nn.Sequential]:
        """The stages in order, each a sequence of units."""
        return [getattr(self, f"layer{i}") for i in range(1, len(self.spec.stages) + 1)]

    def units(self) -> Iterator[tuple[str, ResidualUnit]]:
        """The units in order with their names, e.g. ("layer1.0", unit)."""
        for i, stage in enumerate(self.stages(), 1):
            for j, unit in enumerate(stage):
                assert isinstance(unit, ResidualUnit)
                yield f"layer{i}.{j}", unit

    def features(self, x: Tensor) -> list[Tensor]:
        """The feature maps after each stage, for detection and segmentation (there called C2 to C5): N C H W each.

        Their strides relative to the input are `feature_strides`. In pre-activation nets the last map includes the
        activation after the last sum; the others are the sums themselves (He 2016, appendix).
        """
        x = self.stem(x)
        maps = []
        for stage in self.stages():
            x = self._through(stage, x)
            maps.append(x)
        return [*maps[:-1], self.run(self.last_layers, x)]

    @property
    def feature_strides(self) -> list[int]:
        """Input pixels from one position to the next in each of `features`, e.g. 4, 8, 16, 32."""
        strides = accumulate((s.stride for s in self.spec.stages), operator.mul, initial=stem_stride(self.spec))
        return list(strides)[1:]

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for stage in self.stages():
            x = self._through(stage, x)
        return self.head(x)

    def stem(self, x: Tensor) -> Tensor:
        """What enters the first unit, of images: both N C H W."""
        return self.run(self.stem_layers, x)

    def head(self, x: Tensor) -> Tensor:
        """The scores N K of what leaves the last unit, N C H W."""
        x = self.run(self.last_layers, x)
        x = torch.flatten(self.avgpool(x), 1)  # N C H W -> N C
        return self.fc(x)

    def _through(self, stage: nn.Sequential, x: Tensor) -> Tensor:
        return _recomputed(stage, x) if self.recompute and self.training else stage(x)


def _recomputed(stage: nn.Sequential, x: Tensor) -> Tensor:
    """The stage's output; activations inside groups of units are dropped, and computed again for the gradient.

    With n units in groups of s, memory holds n/s inputs and the activations of s units (Chen et al. 2016, section 4),
    about four maps each, so that s = √n / 2 needs the least. Both passes draw the same random numbers, and batch norm
    updates its statistics once. Gradients come from `backward`, not from `torch.autograd.grad`.
    """
    size = max(1, round(math.sqrt(len(stage)) / 2))
    for start in range(0, len(stage), size):
        group = stage[start : start + size]
        if not torch.is_grad_enabled() or not (x.requires_grad or any(p.requires_grad for p in group.parameters())):
            x = group(x)
            continue
        # Without reentry each saved tensor would pass through Python four times, which costs a seventh of a step. With
        # it, at least one input must require a gradient.
        given = x if x.requires_grad else x.detach().requires_grad_()
        x = checkpoint(partial(_once_or_again, group, start + size >= len(stage)), given, use_reentrant=True)
    return x


def _once_or_again(group: nn.Module, last: bool, x: Tensor) -> Tensor:
    """Run a group, first without gradients and the second time with them; last: whether it is its stage's last."""
    if not torch.is_grad_enabled():
        return group(x)
    if last and x.is_cpu:
        # Small objects that stay lie between the maps that a group held, so that glibc keeps the free memory there.
        # Return it once for each stage: after every group, getting it back would take longer than recomputing.
        give_back_memory()
    with _statistics_kept(group):
        return group(x)


@contextlib.contextmanager
def _statistics_kept(group: nn.Module) -> Iterator[None]:
    """A context in which batch norm writes its running statistics into copies that are thrown away."""
    norms = [m for m in group.modules() if isinstance(m, nn.BatchNorm2d)]
    own = [dict(norm.named_buffers()) for norm in norms]
    for norm in norms:
        for name, buffer in norm.named_buffers():
            setattr(norm, name, buffer.clone())
    try:
        yield
    finally:
        for norm, buffers in zip(norms, own, strict=True):
            for name, buffer in buffers.items():
                setattr(norm, name, buffer)


def _last_activation(spec: NetSpec, channels: int) -> Layers:
    """The activation after the last sum of a pre-activation net (He 2016, appendix)."""
    preact = ORDERS[spec.order].preact
    layers: Layers = {}
    if "b" in preact and spec.norm == "batch":
        layers["last_bn"] = nn.BatchNorm2d(channels)
    if "r" in preact:
        layers["last_relu"] = nn.ReLU()
    return layers
