"""Batch norm folded into the convolutions before it, for a network that is no longer trained."""

from __future__ import annotations

import copy
from itertools import pairwise

import torch
from torch import nn

from resnetlab.nets.net import ResidualUnit, ResNet
from resnetlab.nets.vgg import VGG


def folded(net: ResNet | VGG) -> ResNet | VGG:
    """A copy of the network, in evaluation mode, with batch norm folded into the convolutions before it.

    A batch norm directly after a convolution becomes an Identity of the same name, and the scores change only by
    rounding. Batch norm after a sum stays: the first of a pre-activation branch, the last of such a network, and that
    of `bn_after_add`.
    """
    made = copy.deepcopy(net).eval()
    for module in list(made.modules()):
        for names in layer_runs(module):
            for name, next_name in pairwise(names):
                conv, norm = _last(getattr(module, name)), getattr(module, next_name)
                if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    _fold(conv, norm)
                    setattr(module, next_name, nn.Identity())
    return made


def layer_runs(module: nn.Module) -> list[tuple[str, ...]]:
    """The names of a module's layers that run one after another, with nothing between them."""
    if isinstance(module, ResidualUnit):
        return [module.preact_layers, module.branch_layers, module.postact_layers]  # the sum comes before the last
    if isinstance(module, ResNet):
        return [module.stem_layers, module.last_layers]
    if isinstance(module, nn.Sequential):
        return [tuple(name for name, _ in module.named_children())]
    return []


def _last(layer: nn.Module) -> nn.Module:
    """The layer itself, or the last layer of a deep stem."""
    return layer[-1] if isinstance(layer, nn.Sequential) else layer


@torch.no_grad()
def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """γ (W x + b − μ) / √(σ² + ε) + β as one convolution: W' = s W, b' = s (b − μ) + β with s = γ / √(σ² + ε).

    (Ioffe & Szegedy 2015, algorithm 2, at inference.) Computed in float64, so that the result is rounded only once.
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()  # C
    bias = conv.bias.double() if conv.bias is not None else 0.0
    shift = (bias - norm.running_mean.double()) * scale + norm.bias.double()
    kernel = conv.weight.double() * scale[:, None, None, None]  # C_out C_in/groups k k
    conv.weight = nn.Parameter(kernel.to(conv.weight.dtype))
    conv.bias = nn.Parameter(shift.to(conv.weight.dtype))
