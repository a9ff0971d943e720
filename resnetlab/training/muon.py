"""Muon: SGD with momentum that makes the update of each convolution orthogonal (Jordan et al. 2024)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from resnetlab.errors import UserError
from resnetlab.nets.net import ResidualUnit
from resnetlab.nets.spec import NetSpec
from resnetlab.nets.zoo import Spec
from resnetlab.training.recipe import Recipe

# Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks": x ↦ ax + b xxᵀx + c (xxᵀ)²x takes every
# singular value of 0.01 or more to between 0.7 and 1.2 in five rounds.
A, B, C = 3.4445, -4.7750, 2.0315
ROUNDS = 5


class Muon(torch.optim.SGD):
    """SGD, except for the groups marked `orthogonal`, which hold convolutions' weights W (out x in·k·k as matrices).

    v := μv + g as in SGD; W := W · √out / ‖W‖ and W := W − lr · √out · UVᵀ / ‖UVᵀ‖ with the singular vectors of v (of
    g + μv with Nesterov). Batch norm cancels the length of a filter, so only its direction matters: with the length
    fixed, lr is the angle by which it turns in a step, and weight decay would change nothing. So only convolutions that
    a batch norm follows are turned (`turned_weights`).
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of all parameters that have a gradient."""
        for group in self.param_groups:
            if group["orthogonal"]:
                self._turn(group)
        super().step()

    def _turn(self, group: dict[str, Any]) -> None:
        """Update a group's weights by shape; then clear their gradients, so that SGD skips them."""
        turned = [weight for weight in group["params"] if weight.grad is not None]
        if not turned:
            return
        of_shape: defaultdict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for weight, direction in zip(turned, self._directions(turned, group), strict=True):
            of_shape[weight.shape].append((weight, direction.reshape(len(weight), -1)))
            weight.grad = None
        for shape, of_weights in of_shape.items():
            weights, directions = zip(*of_weights, strict=True)
            length = math.sqrt(shape[0])
            factors = length / torch.stack(torch._foreach_norm(weights))
            for weight, factor, turn in zip(weights, factors, orthogonal(torch.stack(directions)), strict=True):
                weight.mul_(factor)
                # min(turn.shape) singular values of about 1 have the length √min: a tall matrix's turn is lengthened.
                weight.sub_(turn.reshape(shape), alpha=group["lr"] * length / math.sqrt(min(turn.shape)))

    def _directions(self, weights: list[Tensor], group: dict[str, Any]) -> Sequence[Tensor]:
        """The directions into which the weights turn, after an update of their velocities.

        All in one call for each operation: one at a time, starting them takes a GPU longer than computing them.
        """
        for weight in weights:
            if "momentum_buffer" not in self.state[weight]:
                self.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
        velocities: list[Tensor] = [self.state[weight]["momentum_buffer"] for weight in weights]
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        torch._foreach_mul_(velocities, group["momentum"])
        torch._foreach_add_(velocities, gradients)
        if not group["nesterov"]:
            return velocities
        return torch._foreach_add(gradients, velocities, alpha=group["momentum"])


def orthogonal(matrices: Tensor) -> Tensor:
    """About UVᵀ of each matrix UΣVᵀ, N R C: its singular values become 0.7 to 1.2."""
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
    for _ in range(ROUNDS):
        gram = x @ x.mT
        x = A * x + (B * gram + C * gram @ gram) @ x
    return x.mT if tall else x


def turned_weights(net: nn.Module) -> set[nn.Parameter]:
    """The weights of the units' convolutions that a batch norm follows, which cancels their length.

    Not so the last of a pre-activation branch, gates and squeeze-and-excitation: their length is part of the function.
    """
    turned: set[nn.Parameter] = set()
    for unit in (module for module in net.modules() if isinstance(module, ResidualUnit)):
        branch, projection = (getattr(unit, name) for name in unit.branch_layers), unit.downsample.children()
        for layer, following in (*pairwise(branch), *pairwise(projection)):
            if isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
                turned.add(layer.get_parameter("weight"))
    return turned


def check_muon(recipe: Recipe, spec: Spec) -> None:
    """Raise UserError if the recipe's optimiser is Muon and the network's convolutions have no batch norm."""
    if recipe.optimiser == "muon" and not (isinstance(spec, NetSpec) and spec.norm == "batch"):
        raise UserError(
            "optimiser='muon' fixes the length of filters, which batch norm must take out again, and "
            f"{spec.name or 'this network'} has no batch norm; use optimiser='sgd'."
        )
