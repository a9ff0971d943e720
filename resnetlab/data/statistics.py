"""Means and deviations of training images: measured, for files on a sample, and cached."""

from __future__ import annotations

import hashlib
import json
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from resnetlab.data.files import Files
from resnetlab.data.images import Images
from resnetlab.data.loading import labelled, placed_batches
from resnetlab.data.normalisation import Normalisation
from resnetlab.data.seeds import seed_of
from resnetlab.data.streaming import BadImages
from resnetlab.errors import UserError
from resnetlab.storage import cache_folder, keep_if_possible

MOST_MEASURED = 20_000  # files; of more, a sample, whose mean is accurate to 0.002 on the pixels' scale of 0 to 1


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

    def by_channel(self) -> tuple[Tensor, Tensor]:
        """Each channel's mean and standard deviation, of pixels / 255: float64 C."""
        levels = torch.arange(256, dtype=torch.float64) / 255
        share = self.levels.double() / self.levels.sum(1, keepdim=True)
        mean = share @ levels
        return mean, (share @ levels.square() - mean.square()).clamp(min=0).sqrt()

    def channel_mean_std(self) -> Normalisation:
        """Subtract each channel's mean and divide by its standard deviation, or by 1 if it has one level; C 1 1."""
        mean, std = self.by_channel()
        std = torch.where(std > 0, std, 1.0)
        return Normalisation(mean.float()[:, None, None], std.float()[:, None, None])


NORMALISATIONS: dict[str, Callable[[Statistics], Normalisation]] = {
    "pixel_mean": Statistics.pixel_mean,
    "channel_mean_std": Statistics.channel_mean_std,
}


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
    """The cache file for the statistics of these files at this size, in $XDG_CACHE_HOME/resnetlab."""
    hashed = hashlib.sha256(f"statistics 1, {size}, {MOST_MEASURED}\n".encode())
    files.digest_into(hashed)
    return cache_folder() / f"statistics-{hashed.hexdigest()[:24]}.json"


def read_statistics(path: Path) -> Statistics | None:
    """Read what `keep_statistics` wrote; None if it is missing or damaged, since it can be measured again."""
    try:
        found = json.loads(path.read_text())
        sums, levels = (torch.tensor(found[key], dtype=torch.int64) for key in ("sums", "levels"))
        made = Statistics(int(found["images"]), sums, levels)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, OverflowError, RecursionError):
        return None
    fits = sums.ndim == 3 and levels.shape == (len(sums), 256) and made.images > 0
    return made if fits and levels.sum().item() == made.images * sums.numel() else None


def keep_statistics(path: Path, found: Statistics) -> None:
    """Save statistics for the next time; if that is not possible, they are measured each time."""
    content = {"images": found.images, "sums": found.sums.tolist(), "levels": found.levels.tolist()}
    keep_if_possible(path, json.dumps(content).encode())


_measured: dict[Path, Statistics] = {}  # in case the cache can't be written
# Those of data with unreadable files, for as long as it is open: when it is opened anew, they may be repaired.
_partial: dict[Path, tuple[weakref.ref[object], Statistics]] = {}


def measure(
    images: Images | Files, size: int, *, workers: int = 0, progress: Callable[[int, int], object] = lambda *_: None
) -> Statistics:
    """Statistics of training images; of files at most MOST_MEASURED are measured, their middle at `size`.

    Those of files are kept for the next time if all could be read; files that can't are left out here. progress: called
    with how many are done, and of how many.
    """
    if isinstance(images, Images):
        return statistics_of([images.pixels])
    path = kept_statistics(images, size)
    partial = _partial.get(path)
    if partial and partial[0]() is images.source:
        return partial[1]
    found = _measured.get(path) or read_statistics(path)
    if not found:
        some = sample(images)
        skipping = BadImages(skip=True, limit=len(some))

        def batches() -> Iterator[Tensor]:
            done = 0
            for pixels, _ in labelled(some, placed_batches(some, 0, len(some), 64, size, workers, skipping)):
                done += len(pixels)
                progress(done, len(some))
                yield pixels
            if not done:
                first = some.place(0)
                raise UserError(
                    f"{first}: neither this nor any other training image can be read; see 'resnetlab data audit'."
                )

        found = statistics_of(batches())
        if found.images < len(some):
            _partial[path] = weakref.ref(images.source), found
            return found
        keep_statistics(path, found)
    _measured[path] = found
    return found
