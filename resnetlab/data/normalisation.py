"""What is subtracted from pixels and what they are divided by; measured on the training images, kept for files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from resnetlab.data.files import Files
from resnetlab.data.seeds import seed_of
from resnetlab.storage import cache_folder, keep_if_possible

MOST_MEASURED = 20_000  # files; of more, a sample: its mean is then known to 0.002 of the 0 to 1 of a pixel


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


@dataclass(frozen=True)
class Statistics:
    """Sums over uint8 images of one size, from which means and deviations follow exactly."""

    images: int
    sums: Tensor  # of each pixel, int64 C H W
    levels: Tensor  # how often each channel has each of its 256 levels, int64 C 256

    def pixel_mean(self) -> Normalisation:
        """Subtract each pixel's mean over the images, C H W; no scaling (He 2015, section 4.2)."""
        mean = self.sums.double() / (255 * self.images)
        return Normalisation(mean.float(), torch.ones(len(mean), 1, 1))

    def channel_mean_std(self) -> Normalisation:
        """Subtract each channel's mean and divide by its standard deviation, both C 1 1."""
        levels = torch.arange(256, dtype=torch.float64) / 255
        share = self.levels.double() / self.levels.sum(1, keepdim=True)
        mean = share @ levels
        std = (share @ levels.square() - mean.square()).clamp(min=0).sqrt()
        std = torch.where(std > 0, std, 1.0)  # a channel of one level
        return Normalisation(mean.float()[:, None, None], std.float()[:, None, None])


NORMALISATIONS: dict[str, Callable[[Statistics], Normalisation]] = {
    "pixel_mean": Statistics.pixel_mean,
    "channel_mean_std": Statistics.channel_mean_std,
}


def imagenet(channels: int = 3) -> Normalisation:
    """The means and deviations of ImageNet's training images that nearly all published weights were trained with.

    For grey images the means over the colours.
    """
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    if channels == 1:
        mean, std = mean.mean(0, keepdim=True), std.mean(0, keepdim=True)
    return Normalisation(mean[:, None, None], std[:, None, None])


def statistics_of(batches: Iterable[Tensor]) -> Statistics:
    """Count over batches of uint8 N C H W, all of one size. Raises ValueError when there are no images."""
    images, sums, levels = 0, torch.tensor(0), torch.tensor(0)
    for pixels in batches:
        images += len(pixels)
        sums = sums + pixels.sum(0, dtype=torch.int64)
        levels = levels + torch.stack([c.flatten().bincount(minlength=256) for c in pixels.unbind(1)])
    if not images:
        raise ValueError("statistics of no images")
    return Statistics(images, sums, levels)


def sample(files: Files) -> Files:
    """The files that are measured: all, or MOST_MEASURED of them, drawn by a fixed seed."""
    if len(files) <= MOST_MEASURED:
        return files
    generator = torch.Generator().manual_seed(seed_of("measured images", 0))
    return files[torch.randperm(len(files), generator=generator)[:MOST_MEASURED].sort().values]


def kept_statistics(files: Files, size: int) -> Path:
    """Where the statistics of these files at this size are kept, or would be: below $XDG_CACHE_HOME/resnetlab."""
    hashed = hashlib.sha256(f"statistics 1, {size}, {MOST_MEASURED}\n".encode())
    files.digest_into(hashed)
    return cache_folder() / f"statistics-{hashed.hexdigest()[:24]}.json"


def read_statistics(path: Path) -> Statistics | None:
    """What `keep_statistics` wrote; None if it is not there or damaged, since it can be measured again."""
    try:
        found = json.loads(path.read_text())
        sums, levels = (torch.tensor(found[key], dtype=torch.int64) for key in ("sums", "levels"))
        made = Statistics(int(found["images"]), sums, levels)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, RecursionError):
        return None
    fits = sums.ndim == 3 and levels.shape == (len(sums), 256) and made.images > 0
    return made if fits and levels.sum().item() == made.images * sums.numel() else None


def keep_statistics(path: Path, found: Statistics) -> None:
    """Write them for the next time; without a place to write they are measured each time."""
    content = {"images": found.images, "sums": found.sums.tolist(), "levels": found.levels.tolist()}
    keep_if_possible(path, json.dumps(content).encode())
