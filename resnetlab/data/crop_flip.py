"""The augmentation of CIFAR images in memory, whole batches at once: pad, crop at random, flip half, normalise."""

from __future__ import annotations

import torch
from torch import Tensor

from resnetlab.data.normalisation import Normalisation

PAD = 4  # pixels on each side (He 2015, section 4.2)
CROP_FLIP_DRAWS = 3


def crop_flip(pixels: Tensor, draws: Tensor, normalise: Normalisation, padded: Tensor) -> Tensor:
    """Normalise, pad each image with zeros, crop its size at a random place, flip half (He 2015, section 4.2).

    pixels: uint8 N C H W; draws: N 3, uniform in [0, 1): the vertical place, the horizontal place, the flip;
    padded: float, at least N images of C H+2p W+2p, zero at its borders, which is written to. Returns float N C H W.
    For speed, images are mirrored while they are 8-bit, and each window is copied in one piece; apart from rounding,
    the result equals the four steps one after another.
    """
    n, channels, height, width = pixels.shape
    pad, whole = (padded.shape[2] - height) // 2, padded.shape[3]
    mirrored = draws[:, 2] < 0.5
    place = mirrored.argsort(descending=True, stable=True)  # the mirrored ones first
    count = int(mirrored.sum())
    pixels = pixels.index_select(0, place)
    inner = padded[:n, :, pad : pad + height, pad : pad + width]
    # Expanded to the image's size, since broadcasting along rows would keep the kernel from using vector instructions.
    scale, shift = (
        t.expand(channels, height, width).contiguous()
        for t in (1 / (255 * normalise.std), -normalise.mean / normalise.std)
    )
    for part, group, moved in (
        (inner[:count], pixels[:count].flip(3), shift.flip(2)),
        (inner[count:], pixels[count:], shift),
    ):
        torch.addcmul(moved, part.copy_(group), scale, out=part)
    top, left = (draws[:, :2] * (2 * pad + 1)).long().unbind(1)
    left = torch.where(mirrored, 2 * pad - left, left)
    image = torch.empty_like(place).scatter_(0, place, torch.arange(n, device=place.device))  # where each went
    plane = image[:, None] * channels + torch.arange(channels, device=place.device)  # N C
    starts = plane * (padded.shape[2] * whole) + (top * whole + left)[:, None]
    # All windows of the buffer, by where they start; they overlap in memory.
    last = padded.numel() - (height - 1) * whole - width
    windows = padded.view(-1).as_strided((last + 1, height, width), (1, whole, 1))
    return windows.index_select(0, starts.view(-1)).view(n, channels, height, width)
