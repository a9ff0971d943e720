"""Residual and plain networks to measure."""

from __future__ import annotations

from resnetlab.nets.net import ResNet
from resnetlab.nets.zoo import build


def made(name: str) -> ResNet:
    """The network of this name, always the same, in evaluation mode."""
    net = build(name, seed=0)
    assert isinstance(net, ResNet)
    return net.eval()
