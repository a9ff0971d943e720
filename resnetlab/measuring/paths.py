"""Paths: a residual net of n units unrolled into 2^n of them: how many have which length, and what gradient they carry.

Veit, Wilber & Belongie 2016, sections 3 and 5. A path of length k goes through F in k units and through the shortcut
in the others.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from resnetlab.errors import UserError, check_counts, shown
from resnetlab.measuring.units import (
    check_batch,
    cross_entropy,
    evaluating,
    squared_norms,
    taking_gradients,
    units_of,
)
from resnetlab.nets.net import ResNet


def share_of_paths(units: int, shortest: int, longest: int) -> float:
    """Share of the 2^units paths whose length is from `shortest` to `longest`: lengths are Binomial(units, 1/2)."""
    return sum(math.comb(units, k) for k in range(shortest, longest + 1)) / 2**units


@dataclass(frozen=True)
class _Unit:
    """The two ways through a unit, with equal values: each passes gradient through F alone, or through h alone."""

    features: Tensor
    through_F: Tensor
    through_h: Tensor


class Unrolled:
    """A net with shortcuts at work on a batch, ready to pass its gradient back along any single path.

    Its parameters and their gradients are left alone. Of a gated mix only F and h count as paths: what the gate
    itself passes back is left out. Raises ValueError for a plain net, which has one path.
    """

    def __init__(self, net: ResNet, x: Tensor, labels: Tensor):
        units = units_of(net)
        if net.spec.is_plain:
            raise ValueError("a plain net has a single path")
        labels = check_batch(x, labels, net)
        with evaluating(net), taking_gradients():
            self._images = x.detach().requires_grad_()
            self._stem = net.stem(self._images)
            self._units: list[_Unit] = []
            features = self._stem.detach().requires_grad_()  # each unit has a graph of its own
            for _, unit in units:
                x = unit.preact(features)
                h, F, gated = unit.h(x), unit.F(x), x.detach()
                through_F = unit.f(unit.mix(h.detach(), F, gated))
                through_h = unit.f(unit.mix(h, F.detach(), gated))
                self._units.append(_Unit(features, through_F, through_h))
                features = through_F.detach().requires_grad_()
            loss = cross_entropy(net.head(features), labels, reduction="sum")
            (self._last,) = torch.autograd.grad(loss, features)

    @property
    def units(self) -> int:
        """How many units there are: the longest path's length."""
        return len(self._units)

    def gradient(self, path: Iterable[int]) -> Tensor:
        """∂loss/∂image (N C H W, of each image's own cross-entropy) along the path through F of these units.

        Summed over all 2^n paths it is the gradient. Units are given by their numbers, from 0.
        """
        through = set(path)
        if others := sorted(through - set(range(self.units))):
            raise UserError(f"path={shown(others)}: the units are numbered from 0 to {self.units - 1}.")
        gradient = self._last
        for i, unit in reversed([*enumerate(self._units)]):
            way = unit.through_F if i in through else unit.through_h
            (gradient,) = torch.autograd.grad(way, unit.features, gradient, retain_graph=True)
        return torch.autograd.grad(self._stem, self._images, gradient, retain_graph=True)[0]

    def norm_by_length(self, draws: int, seed: int) -> list[float]:
        """Mean over images and `draws` random paths of the gradient's norm, for each length from 0."""
        check_counts(draws=draws)
        draw = random.Random(seed)

        def norm(length: int) -> float:
            gradient = self.gradient(draw.sample(range(self.units), length))
            return float(squared_norms(gradient).sqrt().mean())

        return [math.fsum(norm(length) for _ in range(draws)) / draws for length in range(self.units + 1)]


def gradient_shares(norms: list[float]) -> list[float]:
    """Share of the gradient that comes from paths of each length: how many there are times their mean norm.

    All zero where no gradient flows. Veit 2016, section 5.
    """
    units = len(norms) - 1
    weights = [math.comb(units, k) / 2**units * norm for k, norm in enumerate(norms)]
    total = math.fsum(weights)
    return [w / total if total else 0.0 for w in weights]


def middle(shares: list[float], covered: float = 0.95) -> tuple[int, int]:
    """The fewest neighbouring lengths that hold at least `covered` of the whole: shortest, longest."""
    n = len(shares)
    wide_enough = [
        (last - first, -math.fsum(shares[first : last + 1]), first, last)
        for first in range(n)
        for last in range(first, n)
        if math.fsum(shares[first : last + 1]) >= covered * math.fsum(shares) - 1e-12
    ]
    _, _, first, last = min(wide_enough)
    return first, last


def mean_length(norms: list[float]) -> float:
    """The mean length of paths, each weighted with the gradient that it carries."""
    return math.fsum(k * share for k, share in enumerate(gradient_shares(norms)))


def decay(norms: list[float]) -> tuple[float, float]:
    """The slope of a straight line through log10 of the norms by length, and the share of variance it explains.

    Lengths along which no gradient flows are left out; slope and share are 0 if fewer than two are left.
    """
    points = [(k, math.log10(norm)) for k, norm in enumerate(norms) if norm > 0]
    if len(points) < 2:
        return 0.0, 0.0
    lengths, logs = zip(*points, strict=True)
    slope = statistics.linear_regression(lengths, logs).slope
    return slope, statistics.correlation(lengths, logs) ** 2 if len(set(logs)) > 1 else 0.0
