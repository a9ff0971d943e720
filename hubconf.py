"""The zoo's networks for torch.hub: torch.hub.load(FOLDER, "resnet50", source="local", weights=FILE).

pretrained=True takes the weights that come with the package, and weights="torchvision:resnet50" those of that name.
"""

from __future__ import annotations

from collections.abc import Callable

import resnetlab
from resnetlab.errors import UserError

dependencies = ["torch", "numpy", "safetensors"]


def _entry(name: str) -> Callable[..., object]:
    def network(weights: str | None = None, *, pretrained: bool = False, num_classes: int | None = None) -> object:
        if pretrained and weights is not None:
            raise UserError(f"pretrained=True takes the package's weights; leave it out to load {weights}.")
        if pretrained:
            weights = f"pretrained:{name}"
        if weights is None:
            return resnetlab.build(name) if num_classes is None else resnetlab.build(name, num_classes=num_classes)
        return resnetlab.load(weights, net=name if num_classes is None else f"{name}(num_classes={num_classes})")

    network.__name__ = name
    network.__doc__ = (
        f"{name}, newly initialised, or with weights: a file, a name, or pretrained=True for the package's."
    )
    return network


globals().update({name: _entry(name) for name in resnetlab.names()})
