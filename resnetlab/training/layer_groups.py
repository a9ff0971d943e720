"""The layer groups of a network from its input on, the stem and each stage: which are frozen, and at what rate they
learn.
"""

from __future__ import annotations

from torch import nn

from resnetlab.errors import UserError
from resnetlab.nets.net import ResNet
from resnetlab.nets.spec import NetSpec
from resnetlab.nets.zoo import Spec
from resnetlab.training.recipe import Recipe


def layer_groups(net: nn.Module) -> list[nn.Module]:
    """The stem and the stages of a residual network, in order; what follows is its head."""
    assert isinstance(net, ResNet)  # check_layer_groups has seen to it
    return [nn.ModuleList(getattr(net, name) for name in net.stem_layers), *net.stages()]


def check_layer_groups(recipe: Recipe, spec: Spec) -> None:
    """Raise UserError unless the network has the groups that the recipe's `freeze` and `layer_decay` speak of."""
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
    """Put what is trained into training mode, but for the frozen groups of the network in it.

    They stay in evaluation mode: batch norm normalises by the statistics that the weights were trained with and
    keeps them, and nothing is dropped. So a frozen group is one fixed function, as when its outputs were stored.
    """
    trained.train()
    for group in layer_groups(net)[:frozen] if frozen else []:
        group.eval()


def lr_factors(net: nn.Module, layer_decay: float) -> dict[nn.Parameter, float]:
    """What the learning rate of each parameter is multiplied by: 1 in the head, and from group to group towards the
    input `layer_decay` times as much (discriminative fine-tuning, Howard & Ruder 2018, section 3.2).
    """
    factors = dict.fromkeys(net.parameters(), 1.0)
    for depth, group in enumerate(reversed(layer_groups(net)) if layer_decay != 1 else [], 1):
        factors |= dict.fromkeys(group.parameters(), layer_decay**depth)
    return factors
