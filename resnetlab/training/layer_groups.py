"""The layer groups of a network, from its input on: the stem and each stage; frozen groups, and learning rates."""

from __future__ import annotations

from torch import nn

from resnetlab.errors import UserError
from resnetlab.nets.net import ResNet
from resnetlab.nets.spec import NetSpec
from resnetlab.nets.zoo import Spec
from resnetlab.training.recipe import Recipe


def layer_groups(net: nn.Module) -> list[nn.Module]:
    """The stem and the stages of a residual network, in order; what follows is its head."""
    assert isinstance(net, ResNet)  # check_layer_groups has made sure of it
    return [nn.ModuleList(getattr(net, name) for name in net.stem_layers), *net.stages()]


def check_layer_groups(recipe: Recipe, spec: Spec) -> None:
    """Raise UserError unless the network has the groups that the recipe's `freeze` and `layer_decay` refer to."""
    if not recipe.freeze and recipe.layer_decay == 1:
        return
    if not isinstance(spec, NetSpec):
        raise UserError(
            f"freeze and layer_decay work on a residual network's stages, but {spec.name} has none; leave them out."
        )
    if recipe.freeze > 1 + len(spec.stages):
        raise UserError(
            f"freeze={recipe.freeze}: {spec.name or 'the network'} has a stem and {len(spec.stages)} stages, so "
            f"choose 0 to {1 + len(spec.stages)}."
        )


def freeze(net: nn.Module, count: int) -> None:
    """Keep the first `count` groups as they are: no gradient, no weight decay; see also `training_mode`."""
    for group in layer_groups(net)[:count] if count else []:
        group.requires_grad_(False)


def training_mode(trained: nn.Module, net: nn.Module, frozen: int) -> None:
    """Put `trained`, which holds the network, into training mode, except for the network's frozen groups.

    They stay in evaluation mode: batch norm normalises by the statistics that the weights were trained with and
    keeps them, and nothing is dropped. A frozen group is thus a fixed function, as if its outputs were stored.
    """
    trained.train()
    for group in layer_groups(net)[:frozen] if frozen else []:
        group.eval()


def lr_factors(net: nn.Module, layer_decay: float) -> dict[nn.Parameter, float]:
    """The factor of each parameter's learning rate: 1 in the head, and `layer_decay` times as much in each group
    towards the input (discriminative fine-tuning, Howard & Ruder 2018, section 3.2).
    """
    factors = dict.fromkeys(net.parameters(), 1.0)
    for depth, group in enumerate(reversed(layer_groups(net)) if layer_decay != 1 else [], 1):
        factors |= dict.fromkeys(group.parameters(), layer_decay**depth)
    return factors
