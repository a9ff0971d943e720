"""The parts of a network from its input on, the stem and each stage: which stay frozen, and at what rate they learn."""

from __future__ import annotations

from torch import nn

from resnetlab.errors import UserError
from resnetlab.nets.net import ResNet
from resnetlab.nets.spec import NetSpec
from resnetlab.nets.zoo import Spec
from resnetlab.training.recipe import Recipe


def parts(net: nn.Module) -> list[nn.Module]:
    """The stem and the stages of a residual network, in order; what follows is its head."""
    assert isinstance(net, ResNet)  # check_parts has seen to it
    return [nn.ModuleList(getattr(net, name) for name in net.stem_layers), *net.stages()]


def check_parts(recipe: Recipe, spec: Spec) -> None:
    """Raise UserError unless the network has the parts that the recipe's `freeze` and `layer_decay` speak of."""
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
    """Keep the first `count` parts as they are: no gradient, no weight decay; see also `training_mode`."""
    for part in parts(net)[:count] if count else []:
        part.requires_grad_(False)


def training_mode(trained: nn.Module, net: nn.Module, frozen: int) -> None:
    """Put what is trained into training mode, but for the frozen parts of the network in it.

    They stay in evaluation mode: batch norm normalises by the statistics that the weights were trained with and
    keeps them, and nothing is dropped. So a frozen part is one fixed function, as when its outputs were stored.
    """
    trained.train()
    for part in parts(net)[:frozen] if frozen else []:
        part.eval()


def lr_factors(net: nn.Module, layer_decay: float) -> dict[nn.Parameter, float]:
    """What the learning rate of each parameter is multiplied by: 1 in the head, and from part to part towards the
    input `layer_decay` times as much (discriminative fine-tuning, Howard & Ruder 2018, section 3.2).
    """
    factors = dict.fromkeys(net.parameters(), 1.0)
    for depth, part in enumerate(reversed(parts(net)) if layer_decay != 1 else [], 1):
        factors |= dict.fromkeys(part.parameters(), layer_decay**depth)
    return factors
