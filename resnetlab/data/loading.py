"""Batches of images: order and augmentation as pure functions of (seed, epoch, position)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as tf
from torch import Tensor

from resnetlab.data.images import Images
from resnetlab.data.seeds import seed_of


@dataclass(frozen=True)
class Normalisation:
    """(pixels / 255 − mean) / std; both broadcast to C H W and are kept with a trained network."""

    mean: Tensor
    std: Tensor

    def __call__(self, pixels: Tensor) -> Tensor:
        """uint8 N C H W -> float32 N C H W."""
        return (pixels.float() / 255 - self.mean) / self.std

    def to(self, device: torch.device | str) -> Normalisation:
        """The same on another device."""
        return Normalisation(self.mean.to(device), self.std.to(device))


def pixel_mean(images: Images) -> Normalisation:
    """Subtract each pixel's mean over the images, C H W; no scaling (He 2015, section 4.2)."""
    mean = images.pixels.sum(0, dtype=torch.int64).double() / (255 * len(images))  # whole numbers: exact
    return Normalisation(mean.float(), torch.ones(len(mean), 1, 1))


def channel_mean_std(images: Images) -> Normalisation:
    """Subtract each channel's mean and divide by its standard deviation, both C 1 1."""
    levels = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.stack([c.flatten().bincount(minlength=256) for c in images.pixels.unbind(1)]).double()  # C 256
    share = counts / counts.sum(1, keepdim=True)
    mean = share @ levels
    std = (share @ levels.square() - mean.square()).sqrt()
    return Normalisation(mean.float()[:, None, None], std.float()[:, None, None])


NORMALISATIONS = {"pixel_mean": pixel_mean, "channel_mean_std": channel_mean_std}


PAD = 4  # pixels on each side (He 2015, section 4.2)


def random_crop_flip(x: Tensor, draws: Tensor, pad: int = PAD) -> Tensor:
    """Pad each image with zeros, cut out its size at a random place, flip half of them (He 2015, section 4.2).

    x: float N C H W, already normalised, so that zero is the mean; draws: N 3, uniform in [0, 1): the
    vertical place, the horizontal place, the flip.
    """
    n, _, height, width = x.shape
    windows = tf.pad(x, (pad, pad, pad, pad)).unfold(2, height, 1).unfold(3, width, 1)  # N C 2p+1 2p+1 H W
    top, left = (draws[:, :2] * (2 * pad + 1)).long().unbind(1)
    x = windows[torch.arange(n, device=x.device), :, top, left]  # N C H W
    return torch.where(draws[:, 2].lt(0.5)[:, None, None, None], x.flip(3), x)


AUGMENTATIONS = {"none": None, "crop_flip": random_crop_flip}


def epoch_draws(seed: int, epoch: int, images: int) -> tuple[Tensor, Tensor]:
    """The order of an epoch (N) and each position's random numbers (N 3), from seed and epoch alone."""
    generator = torch.Generator().manual_seed(seed_of("order and augmentation", seed, epoch))
    order = torch.randperm(images, generator=generator)
    return order, torch.rand(images, 3, generator=generator)


def batch_ends(images: int, batch_size: int) -> list[int]:
    """Where the batches of an epoch end: all of `batch_size` but the last.

    Batch norm has no variance of a single image, so a last batch of one joins the batch before it.
    """
    ends = [*range(batch_size, images, batch_size), images]
    if len(ends) > 1 and ends[-1] - ends[-2] == 1:
        del ends[-2]
    return ends


def training_batches(
    images: Images, batch_size: int, seed: int, epoch: int, *, normalise: Normalisation, augment: str
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (x, labels) of one epoch, shuffled, normalised and augmented on the images' device."""
    order, draws = (t.to(images.labels.device) for t in epoch_draws(seed, epoch, len(images)))
    augmentation = AUGMENTATIONS[augment]
    start = 0
    for end in batch_ends(len(images), batch_size):
        batch = images[order[start:end]]
        x = normalise(batch.pixels)
        if augmentation:
            x = augmentation(x, draws[start:end])
        yield x, batch.labels
        start = end


def evaluation_batches(images: Images, batch_size: int, normalise: Normalisation) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (x, labels) in order, each image once."""
    for start in range(0, len(images), batch_size):
        batch = images[slice(start, start + batch_size)]
        yield normalise(batch.pixels), batch.labels
