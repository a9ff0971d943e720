"""What is subtracted from pixels and what they are divided by."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Normalisation:
    """(pixels / 255 − mean) / std; both broadcast to C H W and are kept with a trained network."""

    mean: Tensor
    std: Tensor

    def __call__(self, pixels: Tensor) -> Tensor:
        """uint8 N C H W -> float32 N C H W."""
        return self.of_unit(pixels.float().div_(255))

    def of_unit(self, x: Tensor) -> Tensor:
        """The same for pixels that are divided by 255 already; x is overwritten."""
        return x.sub_(self.mean).div_(self.std)

    def to(self, device: torch.device | str) -> Normalisation:
        """The same on another device."""
        return Normalisation(self.mean.to(device), self.std.to(device))


def imagenet(channels: int = 3) -> Normalisation:
    """The means and deviations of ImageNet's training images that nearly all published weights were trained with.

    For grey images the means over the colours.
    """
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    if channels == 1:
        mean, std = mean.mean(0, keepdim=True), std.mean(0, keepdim=True)
    return Normalisation(mean[:, None, None], std[:, None, None])
