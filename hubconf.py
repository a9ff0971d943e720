"""The zoo's networks for torch.hub: torch.hub.load(FOLDER, "resnet50", source="local", weights=FILE)."""

from __future__ import annotations

from collections.abc import Callable

import resnetlab

dependencies = ["torch", "numpy", "safetensors"]


def _entry(name: str) -> Callable[..., object]:
    def network(weights: str | None = None, *, num_classes: int | None = None) -> object:
        if weights is None:
            return resnetlab.build(name) if num_classes is None else resnetlab.build(name, num_classes=num_classes)
        return resnetlab.load(weights, net=name if num_classes is None else f"{name}(num_classes={num_classes})")

    network.__name__ = name
    network.__doc__ = f"{name}, newly initialised, or with the weights of a file (resnetlab's or a peer's)."
    return network


globals().update({name: _entry(name) for name in resnetlab.names()})
