"""A data set: images in memory or in files, labels, class names."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from resnetlab.data.files import Files
from resnetlab.data.seeds import seed_of
from resnetlab.errors import UserError, counted


@dataclass(frozen=True)
class Images:
    """Labelled images of one size: `pixels` uint8 N C H W, `labels` int64 N."""

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor | slice) -> Images:
        if isinstance(index, slice) or index.dtype == torch.bool:
            return Images(self.pixels[index], self.labels[index])
        index = index.to(self.labels.device)
        return Images(self.pixels.index_select(0, index), self.labels.index_select(0, index))

    def to(self, device: torch.device | str) -> Images:
        """The same images on another device."""
        return Images(self.pixels.to(device), self.labels.to(device))

    def digest_into(self, hashed: Any) -> None:
        """Feed every pixel and label to a hash of hashlib."""
        hashed.update(self.pixels.contiguous().numpy().tobytes())
        hashed.update(self.labels.contiguous().numpy().tobytes())


@dataclass(frozen=True)
class Data:
    """A data set: training and test images, both in memory or both in files, and what its labels mean."""

    name: str
    train: Images | Files
    test: Images | Files
    classes: tuple[str, ...]
    part: str = ""  # the tested part in words, if the kind of data doesn't determine it
    drawn: bool = False  # whether the test images were drawn for reading only, and not saved
    own_name: str = ""  # the user's name for it, if `name` is only its kind

    @property
    def title(self) -> str:
        """Its name in titles, messages and the names of runs; not part of any hash."""
        return self.own_name or self.name

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """C H W of an image in memory; None for files, which are resized as needed."""
        if isinstance(self.train, Files):
            return None
        c, h, w = self.train.pixels.shape[1:]
        return int(c), int(h), int(w)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the data, wherever it is: of every pixel and label, or by `Files.digest_into`."""
        hashed = hashlib.sha256(repr((self.name, self.classes)).encode())
        for part in (self.train, self.test):
            part.digest_into(hashed)
        return hashed.hexdigest()[:16]

    def check_hold_out(self, count: int) -> None:
        """Raise UserError unless `count` images can be held out, leaving at least two to train on."""
        most = len(self.train) - 2
        if most < 0:
            raise UserError(
                f"{self.title}: only {counted(len(self.train), 'training image')}; training needs two or more."
            )
        if not 0 <= count <= most:
            raise UserError(
                f"validation_images={count}: {self.title} has {len(self.train)} training images, so choose 0 to {most}."
            )

    def hold_out(self, count: int) -> tuple[Images | Files, Images | Files]:
        """Split the training images into (training, validation) with `count` validation images.

        The choice depends only on the number of images, so that all seeds have the same split (He 2015,
        section 4.2: 45k/5k). Raises UserError as `check_hold_out` does.
        """
        self.check_hold_out(count)
        order = self._hold_out_order()
        chosen = order[:count].sort().values
        kept = order[count:].sort().values
        return self.train[kept], self.train[chosen]

    def without_training_images(self) -> list[str]:
        """The classes without any training image, which a network can't learn."""
        there = self.train.labels.cpu().bincount(minlength=len(self.classes))
        return [self.classes[k] for k in torch.nonzero(there == 0).flatten().tolist()]

    def held_out_whole(self, count: int) -> list[str]:
        """The classes that would have no training images left, since all are among the `count` validation images."""
        labels = self.train.labels.cpu()
        kept = labels[self._hold_out_order()[count:]].bincount(minlength=len(self.classes))
        there = labels.bincount(minlength=len(self.classes))
        return [self.classes[k] for k in torch.nonzero((kept == 0) & (there > 0)).flatten().tolist()]

    def _hold_out_order(self) -> Tensor:
        generator = torch.Generator().manual_seed(seed_of("held-out images", 0))
        return torch.randperm(len(self.train), generator=generator)


# train: training and test images; evaluate: test images, which are all images unless some are known as training images;
# read: both sides as a training would have them, without saving a split.
Purpose = Literal["train", "evaluate", "read"]
