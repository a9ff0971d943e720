"""Batches of images, from memory or from files: order and augmentation are functions of (seed, epoch, position)."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from resnetlab.data import augmentation as aug
from resnetlab.data.augmentation import CROP_FLIP_DRAWS, alternating_flips, crop_flip
from resnetlab.data.crops import CENTRE_CROP, CROPS, middle
from resnetlab.data.files import Files
from resnetlab.data.images import Images
from resnetlab.data.normalisation import Normalisation
from resnetlab.data.randaugment import RAND_AUGMENT_DRAWS, TRIVIAL_AUGMENT_DRAWS, rand_augment, trivial_augment
from resnetlab.data.resizing import USUAL, Resizing
from resnetlab.data.seeds import balanced_order, epoch_order, seed_of, uniform
from resnetlab.data.streaming import BadImages, ReadPlan, read_ahead
from resnetlab.machine import moved, widest_float

# The operations on 8-bit pixels by the recipe's `policy`, and the draws they need.
POLICIES: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], int]] = {
    "randaugment": (rand_augment, 2 * RAND_AUGMENT_DRAWS),
    "trivialaugment": (trivial_augment, TRIVIAL_AUGMENT_DRAWS),
}
SHIFTING = ("crop_flip", "crop_alternating_flip")  # values of `augment` that crop padded images
EVALUATION_BATCH = 500


@dataclass(frozen=True)
class Augmentation:
    """The augmentation of training images; the fields are those of a recipe."""

    augment: str = "none"
    crop_padding: int = 4  # pixels on each side: He 2015, section 4.2
    policy: str = "none"
    colour_jitter: float = 0.0
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    label_smoothing: float = 0.0

    @property
    def soft(self) -> bool:
        """Whether targets are shares of the classes rather than single labels."""
        return bool(self.mixup or self.cutmix or self.label_smoothing)


class Batch(NamedTuple):
    """Prepared training images, and their targets."""

    x: Tensor  # float32 N C H W
    labels: Tensor  # int64 N; of mixed images, the label with the larger share
    targets: Tensor | None  # float N K, if they are shares of the classes
    stop: int = 0  # the position in the epoch at which the next batch starts
    smallest: int = 0  # the fewest images that a process has of this batch; 0 if there is one process


def batch_ends(images: int, batch_size: int, least: int = 2) -> list[int]:
    """The positions at which the batches of an epoch end; all but the last have `batch_size` images.

    A last batch of fewer than `least` images joins the one before it, since batch norm can't normalise a single image;
    with several processes `least` is two for each.
    """
    ends = [*range(batch_size, images, batch_size), images]
    if len(ends) > 1 and ends[-1] - ends[-2] < least:
        del ends[-2]
    return ends


def share(start: int, stop: int, rank: int, ranks: int) -> tuple[int, int]:
    """One process's part of the positions `start` to `stop`; together the parts cover each position once."""
    count = stop - start
    return start + count * rank // ranks, start + count * (rank + 1) // ranks


@dataclass(frozen=True)
class Loader:
    """Makes batches on `device`, which don't depend on `workers`, and over all ranks together not on `ranks`."""

    normalise: Normalisation
    classes: int
    size: int = 0  # files: the side of the square to which they are cropped
    augmentation: Augmentation = field(default_factory=Augmentation)
    device: str = "cpu"
    workers: int = 0  # processes that decode files ahead
    rank: int = 0
    ranks: int = 1
    unreadables: BadImages = field(default_factory=BadImages)
    balanced: bool = False  # whether an epoch has equally many training images of each class
    resizing: Resizing = USUAL  # files: how they are resized before the middle is cropped

    def training(
        self, images: Images | Files, batch_size: int, seed: int, epoch: int, start: int = 0
    ) -> Generator[Batch, None, None]:
        """Yield the batches of one epoch, shuffled and augmented, from position `start` on.

        batch_size is that of all ranks together. A batch with fewer than two readable images is left out; with several
        ranks the share is yielded as it is, so that all of them can leave the batch out.
        """
        order = (
            balanced_order(images.labels.cpu(), seed, epoch) if self.balanced else epoch_order(seed, epoch, len(images))
        )
        ends = [0, *batch_ends(len(images), batch_size, 2 * self.ranks)]
        stops = [b for b in ends if b > start]
        spans = [share(max(a, start), b, self.rank, self.ranks) for a, b in pairwise(ends) if b > start]
        padded, flips = torch.empty(0), None
        if self.augmentation.augment == "crop_alternating_flip":
            first = uniform("first flip", seed, 0, 0, len(images), 1)[:, 0]
            flips = alternating_flips(first, epoch)[order]
        for stop, (pixels, labels, positions) in zip(
            stops, self._pixels(images, order, spans, seed, epoch), strict=True
        ):
            if self.augmentation.augment in SHIFTING and len(padded) < len(labels):
                n, channels, height, width = pixels.shape
                added = 2 * self.augmentation.crop_padding
                padded = torch.zeros(n, channels, height + added, width + added, device=pixels.device)
            if len(labels) > 1:
                mirrored = None if flips is None else flips[positions]
                yield self._augmented(pixels, labels, positions, padded, mirrored, seed, epoch)._replace(stop=stop)
            elif self.ranks > 1:
                yield Batch(pixels.float(), labels, None, stop)

    def evaluation(self, images: Images | Files, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (x float32 N C H W, labels) in order, each image once over all ranks."""
        first, last = share(0, len(images), self.rank, self.ranks)
        asked = (batch_size, self.size, self.workers, self.unreadables, self.resizing)
        for pixels, labels in labelled(images, placed_batches(images, first, last, *asked)):
            yield self.normalise(self._moved(pixels)), self._moved(labels)

    def _pixels(
        self, images: Images | Files, order: Tensor, spans: list[tuple[int, int]], seed: int, epoch: int
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Pixels (uint8 N C H W), labels and positions of each span of the epoch's order."""
        if isinstance(images, Images):
            order = moved(order, images.labels.device)
            for a, b in spans:
                batch = images[order[a:b]]
                yield batch.pixels, batch.labels, torch.arange(a, b)
            return
        crop = CROPS[self.augmentation.augment]
        crop = middle(self.resizing) if crop is CENTRE_CROP else crop
        reading = ReadPlan(images, order, crop, self.size, seed, epoch)
        for read in read_ahead(reading, spans, workers=self.workers, pin=self.device.startswith("cuda")):
            self.unreadables.note(images, read.trouble)
            labels = images.labels[order[read.positions]]
            yield self._moved(read.pixels), self._moved(labels), read.positions

    def _moved(self, t: Tensor) -> Tensor:
        return moved(t, self.device)

    def _augmented(
        self,
        pixels: Tensor,
        labels: Tensor,
        positions: Tensor,
        padded: Tensor,
        mirrored: Tensor | None,
        seed: int,
        epoch: int,
    ) -> Batch:
        """The batch; padded: see `crop_flip`; mirrored: which images are, bool N, or None to draw it."""
        how = self.augmentation

        def drawn(purpose: str, count: int) -> Tensor:
            """Random numbers for the images, on the processor."""
            first, last = int(positions[0]), int(positions[-1])
            every = uniform(purpose, seed, epoch, first, last + 1, count)
            return every if len(every) == len(positions) else every[positions - first]

        def draws(purpose: str, count: int) -> Tensor:
            """The same where the images are."""
            own = drawn(purpose, count)
            if widest_float(pixels.device) == torch.float32:
                own = own.float().clamp_(max=1 - 2**-24)  # below 1, which the largest are rounded to
            return moved(own, pixels.device)

        # Which operation an image gets is decided on the processor: of a GPU's numbers it would have to wait.
        if how.policy in POLICIES:
            operate, count = POLICIES[how.policy]
            pixels = operate(pixels, drawn("policy", count))
        if how.colour_jitter:
            strengths = (how.colour_jitter,) * 3  # brightness, contrast, saturation
            pixels = aug.colour_jitter(pixels, drawn("colour jitter", aug.COLOUR_JITTER_DRAWS), *strengths)
        if how.augment in SHIFTING:
            places = draws("crop and flip", CROP_FLIP_DRAWS)
            if mirrored is not None:
                places[:, 2] = moved(~mirrored, places.device)
            x = crop_flip(pixels, places, self.normalise, padded)
        elif how.augment == "scale_crop_flip_colour":
            noisy = aug.colour_noise(pixels.float().div_(255), draws("colour noise", aug.COLOUR_NOISE_DRAWS))
            x = self.normalise.of_unit(noisy)
        else:
            x = self.normalise(pixels)
        if how.erasing:
            x = aug.random_erasing(x, draws("erasing", aug.RANDOM_ERASING_DRAWS), how.erasing)
        return self._mixed(x, labels, int(positions[0]), seed, epoch)

    def _mixed(self, x: Tensor, labels: Tensor, position: int, seed: int, epoch: int) -> Batch:
        """The batch with its targets, mixed by mixup or cutmix; if both are set, by one of them, equally often."""
        how = self.augmentation
        if not how.soft:
            return Batch(x, labels, None)
        targets = aug.one_hot_smooth(labels, self.classes, how.label_smoothing)
        ways = [way for way in ("mixup", "cutmix") if getattr(how, way)]
        if ways:
            own = seed_of(f"mixing at {position}", seed, epoch)
            way = ways[own % len(ways)]
            lam, partner, place = aug.mixing_draws(own, len(x), getattr(how, way))
            partner = moved(partner, x.device)
            if way == "mixup":
                x, targets = aug.mixup(x, targets, lam, partner)
            else:
                x, targets = aug.cutmix(x, targets, aug.cutmix_box(lam, place, *x.shape[2:]), partner)
        return Batch(x, targets.argmax(1), targets)


def evaluation_batch(images: Images | Files) -> int:
    """How many images are evaluated at once; files are large."""
    return EVALUATION_BATCH if isinstance(images, Images) else EVALUATION_BATCH // 10


def placed_batches(
    images: Images | Files,
    first: int,
    last: int,
    batch_size: int,
    size: int,
    workers: int,
    unreadables: BadImages,
    resizing: Resizing = USUAL,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images `first` to `last` in order, uint8 N C H W, with their numbers, int64 N; files give their middle.

    Images that can't be read are left out as `unreadables` allows, so that a batch may have none.
    """
    spans = [(a, min(a + batch_size, last)) for a in range(first, last, batch_size)]
    if isinstance(images, Images):
        for a, b in spans:
            yield images.pixels[a:b], torch.arange(a, b)
        return
    reading = ReadPlan(images, torch.arange(last), middle(resizing), size)
    for read in read_ahead(reading, spans, workers=workers):
        unreadables.note(images, read.trouble)
        yield read.pixels, read.positions


def labelled(images: Images | Files, batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of `placed_batches` that have images, with labels in place of numbers."""
    for pixels, places in batches:
        if len(places):
            yield pixels, images.labels[moved(places, images.labels.device)]
