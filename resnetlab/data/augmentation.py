"""Augmentations as pure functions of images and random numbers, which the caller draws.

x is a batch N C H W (8-bit or float, as each function states); draws are N D, uniform in [0, 1), where D is the
constant *_DRAWS. Results don't depend on the other images of the batch, unless images are mixed on purpose.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from resnetlab.data import operations
from resnetlab.data.normalisation import Normalisation
from resnetlab.errors import UserError

TRIES = 10  # for a box that fits
RESIZED_CROP_DRAWS = 4 * TRIES  # each try: area, ratio, top, left
RANDOM_ERASING_DRAWS = 1 + 4 * TRIES  # whether, then as above
COLOUR_JITTER_DRAWS = 8  # four strengths, four places in the order
COLOUR_NOISE_DRAWS = 3  # one for each principal component
CROP_FLIP_DRAWS = 3  # vertical place, horizontal place, flip

Box = tuple[int, int, int, int]  # top, left, height, width


def resized_crop_box(
    draws: Sequence[float],
    height: int,
    width: int,
    scale: tuple[float, float] = (0.08, 1.0),
) -> Box:
    """The part of one image to crop and resize.

    Its share of the area is uniform in `scale`, its width / height log-uniform in 3/4 to 4/3, its place uniform.
    If no try fits, it is the largest part in the middle with an allowed ratio.
    Source: Szegedy et al. 2014 (1409.4842), section 6, in the form of torchvision's RandomResizedCrop.
    """
    narrowest, widest = 3 / 4, 4 / 3
    for start in range(0, RESIZED_CROP_DRAWS, 4):
        share, shape, down, across = draws[start : start + 4]
        area = height * width * (scale[0] + (scale[1] - scale[0]) * share)
        aspect = narrowest * (widest / narrowest) ** shape
        h, w = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < h <= height and 0 < w <= width:
            return int(down * (height - h + 1)), int(across * (width - w + 1)), h, w
    h = min(height, round(width / narrowest))
    w = min(width, round(height * widest))
    return (height - h) // 2, (width - w) // 2, h, w


def random_erasing(
    x: Tensor,
    draws: Tensor,
    probability: float = 0.25,
    scale: tuple[float, float] = (0.02, 0.33),
    ratio: tuple[float, float] = (0.3, 3.3),
) -> Tensor:
    """Set a random rectangle to 0 in a share of the images.

    x: float and normalised, so that 0 is the mean colour. The rectangle's share of the area is uniform in `scale`,
    its height / width log-uniform in `ratio` (the paper: uniform), its sides shorter than the image's. An image is
    left as it is if no try fits. Source: Zhong et al. 2017 (1708.04896), algorithm 1; torchvision's RandomErasing.
    """
    height, width = x.shape[2:]
    chosen = draws[:, 0] < probability
    share, shape, down, across = draws[:, 1:RANDOM_ERASING_DRAWS].unflatten(1, (TRIES, 4)).unbind(2)  # N TRIES
    area = height * width * (scale[0] + (scale[1] - scale[0]) * share)
    aspect = ratio[0] * (ratio[1] / ratio[0]) ** shape
    h, w = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (h < height) & (w < width)
    tried = torch.stack([(down * (height - h + 1)).floor(), (across * (width - w + 1)).floor(), h, w, fits])
    first = fits.int().argmax(1)
    top, left, h, w, fitting = tried[:, torch.arange(len(x), device=x.device), first]
    chosen = chosen & fitting.bool()
    rows = torch.arange(height, device=x.device)
    columns = torch.arange(width, device=x.device)
    tall = (rows >= top[:, None]) & (rows < (top + h)[:, None])  # N H
    wide = (columns >= left[:, None]) & (columns < (left + w)[:, None])  # N W
    return x.masked_fill((chosen[:, None, None] & tall[:, :, None] & wide[:, None, :])[:, None], 0)


def colour_jitter(x: Tensor, draws: Tensor, brightness: float, contrast: float, saturation: float) -> Tensor:
    """Change brightness, contrast and saturation, in an order drawn for each image.

    x: uint8. A factor is uniform in [max(0, 1 - b), 1 + b]; a strength of 0 changes nothing. Source: torchvision's
    ColorJitter on Pillow images. Its fourth change, of the hue, is left out; the order keeps a place for it.
    """
    changes = {
        operations.brightness: (max(0.0, 1 - brightness), 1 + brightness),
        operations.contrast: (max(0.0, 1 - contrast), 1 + contrast),
        operations.colour: (max(0.0, 1 - saturation), 1 + saturation),
        operations.identity: (0.0, 0.0),
    }
    strength = torch.stack(
        [low + (high - low) * d for (low, high), d in zip(changes.values(), draws[:, :4].unbind(1), strict=True)], 1
    )
    for choice in draws[:, 4:COLOUR_JITTER_DRAWS].argsort(dim=1, stable=True).unbind(1):
        x = operations.apply_each(x, choice, strength.gather(1, choice[:, None])[:, 0], list(changes))
    return x


# The principal components of ImageNet's RGB values in [0, 1], as fb.resnet.torch publishes them.
EIGENVALUES = (0.2175, 0.0188, 0.0045)
EIGENVECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))  # a row a channel
NOISE = 0.1  # the standard deviation of alpha


def colour_noise(x: Tensor, draws: Tensor) -> Tensor:
    """Add to every pixel of an image the same random mix of ImageNet's principal colour components.

    x: float in [0, 1], not normalised, N 3 H W; the result can leave [0, 1]. The mix is the sum over components of
    eigenvector * eigenvalue * alpha with alpha ~ N(0, 0.1).
    Source: Krizhevsky et al. 2012, section 4.1. Raises UserError where there are not 3 channels.
    """
    if x.shape[1] != 3:
        raise UserError(f"Colour noise needs images of 3 channels, not {x.shape[1]}: choose another augmentation.")
    normal = torch.special.ndtri(draws[:, :COLOUR_NOISE_DRAWS].clamp(min=2**-25))  # half of float32's smallest step
    first, second, third = (n * NOISE * value for n, value in zip(normal.unbind(1), EIGENVALUES, strict=True))
    shift = [a * first + b * second + c * third for a, b, c in EIGENVECTORS]  # no matmul: it may depend on N
    return x + torch.stack(shift, 1)[:, :, None, None].to(x.dtype)


def one_hot_smooth(labels: Tensor, classes: int, smoothing: float = 0.0) -> Tensor:
    """Soft targets, float N K: 1 - smoothing on the label, and smoothing spread evenly over all classes.

    Source: Szegedy et al. 2015 (1512.00567), section 7.
    """
    return torch.nn.functional.one_hot(labels, classes).float() * (1 - smoothing) + smoothing / classes


def mixing_draws(seed: int, images: int, alpha: float) -> tuple[float, Tensor, tuple[float, float]]:
    """The draws for mixing a batch: lam ~ Beta(alpha, alpha), each image's partner (N), a place (down, across).

    lam is the share that an image keeps, the same for the whole batch. Raises UserError unless alpha > 0.
    """
    if not alpha > 0:
        raise UserError(f"alpha={alpha} must be above 0.")
    generator = torch.Generator().manual_seed(seed)
    share, down, across = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
    from scipy.special import betaincinv  # takes a quarter of a second to import, and only mixing needs it

    return float(betaincinv(alpha, alpha, share)), torch.randperm(images, generator=generator), (down, across)


def mixup(x: Tensor, targets: Tensor, lam: float, partner: Tensor) -> tuple[Tensor, Tensor]:
    """Mix each image and its target with its partner's: lam of its own, 1 - lam of the other.

    x: float N C H W; targets: float N K. Source: Zhang et al. 2017 (1710.09412), section 2.
    """
    return lam * x + (1 - lam) * x[partner], lam * targets + (1 - lam) * targets[partner]


def cutmix_box(lam: float, place: tuple[float, float], height: int, width: int) -> Box:
    """The part to paste: 1 - lam of the area, of the image's shape, its centre uniform, cut at the borders.

    Source: Yun et al. 2019 (1905.04899), equation 2, and its code's rounding.
    """
    h, w = int(height * math.sqrt(1 - lam)) // 2, int(width * math.sqrt(1 - lam)) // 2  # half of each side
    down, across = int(place[0] * height), int(place[1] * width)
    top, left = max(0, down - h), max(0, across - w)
    return top, left, min(height, down + h) - top, min(width, across + w) - left


def cutmix(x: Tensor, targets: Tensor, box: Box, partner: Tensor) -> tuple[Tensor, Tensor]:
    """Paste the partner's part in `box` into each image; targets are mixed by the exact areas.

    x: float N C H W; targets: float N K. Source: Yun et al. 2019 (1905.04899), equation 1.
    """
    top, left, h, w = box
    part = (..., slice(top, top + h), slice(left, left + w))
    x, theirs = x.clone(), x[partner]
    x[part] = theirs[part]
    lam = 1 - h * w / (x.shape[2] * x.shape[3])
    return x, lam * targets + (1 - lam) * targets[partner]


def alternating_flips(first: Tensor, epoch: int) -> Tensor:
    """Which images an epoch mirrors, bool N: each is mirrored in every other epoch, half of them in the first.

    first: N, uniform in [0, 1), the same numbers in all epochs. Two consecutive epochs show an image both ways; random
    flips show it the same way twice half the time. Source: Jordan 2024 (2404.00498).
    """
    return (first < 0.5) ^ bool(epoch % 2)


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
