"""Fully connected networks at initialisation and their input gradients, for the shattering of gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

WIDTH = 200
POINTS = 256


@dataclass(frozen=True)
class Variant:
    """z_{l+1} = skip·z_l + β·W_l ρ(norm(z_l)), ρ being ReLU and W_l ~ N(0, 2/width), without biases.

    norm: "none"; "centre", less the mean over the points; "batch", that divided by the standard deviation.
    """

    norm: Literal["none", "centre", "batch"]
    skip: bool = False
    beta: float = 1.0


# Balduzzi et al. 2017, Figures 1 and 2, and what they leave to be asked: plain nets without centring, residual
# nets without batch norm.
VARIANTS = {
    "plain": Variant("none"),
    "plain centred": Variant("centre"),
    "plain BN": Variant("batch"),
    "resnet": Variant("none", skip=True),
    "resnet BN": Variant("batch", skip=True),
    "resnet BN 0.1": Variant("batch", skip=True, beta=0.1),
}


@dataclass(frozen=True)
class Gradients:
    """Gradients of a scalar network at some points, and how many units pairs of points share."""

    values: Tensor  # P D: ∂f/∂x at each point
    coactive: list[float]  # layer by layer: share of units that are active at both points, over all pairs


def grid_points() -> Tensor:
    """The points of Balduzzi et al. 2017: POINTS on [−2, 2], evenly (P 1)."""
    return torch.linspace(-2, 2, POINTS)[:, None]


def gaussian_points(seed: int) -> Tensor:
    """POINTS independent points of N(0, 1) in WIDTH dimensions (P D): pairs that nothing relates."""
    return torch.randn(POINTS, WIDTH, generator=_generator(seed, 1), device="cpu")


def input_gradients(variant: Variant, depth: int, points: Tensor, seed: int) -> Gradients:
    """∂f/∂x of a random network f with z_1 … z_depth at each point (P D), on the points' device.

    Points on a line (D = 1) first pass a ReLU layer with weights and biases of N(0, 2), whose hinges lie spread out
    over the line. z_1 is a dense linear map of that, or of the points themselves, and f of z_depth (Balduzzi et al.
    2017, sections 2 and 3; where BN stands and the first layer are ours, as their text leaves them open). The
    statistics of "centre" and "batch" are over the points, and count as constants in the derivative: it says how
    f(x) changes with its own x.
    """
    generator = _generator(seed, 0)

    def drawn(*shape: int, variance: float) -> Tensor:
        return (torch.randn(*shape, generator=generator, device="cpu") * math.sqrt(variance)).to(points.device)

    x = points.detach().clone().requires_grad_()
    with torch.enable_grad():
        z, gain = x, 1.0
        if points.shape[1] == 1:
            z, gain = torch.relu(x @ drawn(1, WIDTH, variance=2) + drawn(WIDTH, variance=2)), 2.0
        z = z @ drawn(z.shape[1], WIDTH, variance=gain / z.shape[1])
        coactive = []
        for _ in range(depth - 1):
            normed = _normed(z, variant.norm)
            coactive.append(coactive_share(normed > 0))
            branch = variant.beta * torch.relu(normed) @ drawn(WIDTH, WIDTH, variance=2 / WIDTH)
            z = z + branch if variant.skip else branch
        f = z @ drawn(WIDTH, 1, variance=1 / WIDTH)
        (gradients,) = torch.autograd.grad(f.sum(), x)
    return Gradients(gradients, coactive)


def _generator(seed: int, stream: int) -> torch.Generator:
    return torch.Generator().manual_seed(2 * seed + stream)


def _normed(z: Tensor, norm: str) -> Tensor:
    if norm == "none":
        return z
    z = z - z.detach().mean(0)
    return z / z.detach().std(0, correction=0) if norm == "batch" else z


def coactive_share(active: Tensor) -> float:
    """The share of units (P N, true where active) that are active at both of two points, over all pairs of them."""
    points, units = active.shape
    counts = active.double().sum(0)  # a unit active at c points is so at c(c − 1) ordered pairs
    return ((counts * (counts - 1)).sum() / (points * (points - 1) * units)).item()


def pair_correlation(gradients: Tensor) -> float | None:
    """The mean of g_i·g_j over all pairs of points in parts of the mean of |g_i|² (gradients: P D); None if all are 0.

    The correlation of Balduzzi et al. 2017, theorems 1 to 3, whose expectation over weights is here one over pairs.
    """
    g = gradients.double()
    own = g.square().sum()
    if own == 0:
        return None
    return ((g.sum(0).square().sum() - own) / (len(g) - 1) / own).item()


def predicted_correlation(variant: Variant, depth: int, *, centred: bool = False) -> float:
    """The same by theorem (Balduzzi et al. 2017), if each pair of points shares a quarter of each layer's units.

    Theorem 1: 1/2 a layer. Theorem 2, without BN and with β = 1: 3/4 a block. Theorem 3, with BN: a block multiplies
    by (v + β²/2) / (v + β²), v being the variance of what BN divides by, 1 + β²(l − 1) at block l. `centred` counts
    that BN takes the mean over the points away before it divides, so that a branch adds (1 − 1/π)β² to that, since
    1/π of ρ's mean square is its squared mean. Counted in the layers between the gradient's place and the output:
    depth − 1.
    """
    if not variant.skip:
        return 0.5 ** (depth - 1)
    square, correlation = variant.beta**2, 1.0
    for block in range(depth - 1):
        added = square * (1 - 1 / math.pi if centred else 1)
        variance = 1 + added * block if variant.norm == "batch" else 1
        correlation *= (variance + square / 2) / (variance + square)
    return correlation
