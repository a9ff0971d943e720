"""The module that is exported and that engines run: one graph from pixels to scores."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from resnetlab.data.normalisation import Normalisation
from resnetlab.nets.folding import folded
from resnetlab.nets.net import ResNet
from resnetlab.nets.vgg import VGG


class WithNormalisation(nn.Module):
    """A network with its normalisation before it: pixels, uint8 N C H W, -> scores before the softmax, float32 N K."""

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, normalise: Normalisation):
        super().__init__()
        self.net = net
        self.register_buffer("mean", normalise.mean)
        self.register_buffer("std", normalise.std)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.net((pixels.float() / 255 - self.mean) / self.std)


def exported_module(net: ResNet | VGG, normalise: Normalisation) -> WithNormalisation:
    """A network for export: batch norm folded, the normalisation within, in evaluation mode."""
    return WithNormalisation(folded(net), normalise).eval().requires_grad_(False)


def noise(shape: tuple[int, int, int], images: int) -> Tensor:
    """Random pixels to test a network with, the same each time: uint8 N C H W; shape: C H W."""
    return torch.randint(0, 256, (images, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(images))
