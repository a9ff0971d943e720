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
    inner = padded[:n, :, pad : pad + height, pad : pad + width]
    # Expanded to the image's size, since broadcasting along rows would keep the kernel from using vector instructions.
    scale, shift = (
        t.expand(channels, height, width).contiguous()
        for t in (1 / (255 * normalise.std), -normalise.mean / normalise.std)
    )
    image = (_copied_at_once if pixels.is_cuda else _copied_in_two)(inner, pixels, mirrored, scale, shift)
    top, left = (draws[:, :2] * (2 * pad + 1)).long().unbind(1)
    left = torch.where(mirrored, 2 * pad - left, left)
    plane = image[:, None] * channels + torch.arange(channels, device=image.device)  # N C
    starts = plane * (padded.shape[2] * whole) + (top * whole + left)[:, None]
    # All windows of the buffer, by where they start; they overlap in memory.
    last = padded.numel() - (height - 1) * whole - width
    windows = padded.view(-1).as_strided((last + 1, height, width), (1, whole, 1))
    return windows.index_select(0, starts.view(-1)).view(n, channels, height, width)


def _copied_in_two(inner: Tensor, pixels: Tensor, mirrored: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Copy normalised images to `inner`, those to mirror before the others. Returns where each went: int64 N."""
    place = mirrored.argsort(descending=True, stable=True)  # the mirrored ones first
    count = int(mirrored.sum())
    pixels = pixels.index_select(0, place)
    for part, group, moved in (
        (inner[:count], pixels[:count].flip(3), shift.flip(2)),
        (inner[count:], pixels[count:], shift),
    ):
        torch.addcmul(moved, part.copy_(group), scale, out=part)
    return torch.empty_like(place).scatter_(0, place, torch.arange(len(place), device=place.device))


def _copied_at_once(inner: Tensor, pixels: Tensor, mirrored: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """The same with twice the work, but without the number of images to mirror, for which a GPU had to be waited for.

    Every image keeps its place.
    """
    chosen = mirrored[:, None, None, None]
    inner.copy_(torch.where(chosen, pixels.flip(3), pixels))
    torch.addcmul(torch.where(chosen, shift.flip(2), shift), inner, scale, out=inner)
    return torch.arange(len(pixels), device=pixels.device)
