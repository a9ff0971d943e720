"""Normalisation: the means subtracted from pixels, and the deviations by which they are divided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from resnetlab.errors import UserError, did_you_mean, shown

# Mean and deviation of each channel, of pixels / 255, over the training images of the named data set.
KNOWN: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}


@dataclass(frozen=True)
class Normalisation:
    """(pixels / 255 − mean) / std; both broadcast to C H W and are kept with a trained network."""

    mean: Tensor
    std: Tensor

    def __call__(self, pixels: Tensor) -> Tensor:
        """uint8 N C H W -> float32 N C H W."""
        return self.of_unit(pixels.float().div_(255))

    def of_unit(self, x: Tensor) -> Tensor:
        """The same for pixels already divided by 255; x is overwritten."""
        return x.sub_(self.mean).div_(self.std)

    def fits(self, image: Sequence[int]) -> bool:
        """Whether it applies to images of this shape, C H W; each side of a mean image is theirs."""
        return all(have in (1, want) for t in (self.mean, self.std) for have, want in zip(t.shape, image, strict=True))

    def to(self, device: torch.device | str) -> Normalisation:
        """The same on another device."""
        return Normalisation(self.mean.to(device), self.std.to(device))


def imagenet(channels: int = 3) -> Normalisation:
    """The means and deviations of ImageNet's training images with which nearly all published weights were trained.

    For grey images, their averages over the colours.
    """
    mean, std = map(torch.tensor, KNOWN["imagenet"])
    if channels == 1:
        mean, std = mean.mean(0, keepdim=True), std.mean(0, keepdim=True)
    return Normalisation(mean[:, None, None], std[:, None, None])


def check_normalisation(text: str, others: Sequence[str] = ()) -> None:
    """Raise UserError unless `parse_normalisation` reads the text, for images of some number of channels."""
    listed = max(part.count(",") + 1 for part in text.split("/"))
    parse_normalisation(text, listed if listed > 1 else 3, others)


def parse_normalisation(text: str, channels: int, others: Sequence[str] = ()) -> Normalisation:
    """The normalisation that a text names: a key of KNOWN, or MEAN/STD, each one number or one for each channel.

    others: other allowed texts, for the message. Raises UserError for another text, and for invalid numbers.
    """
    if text == "imagenet" and channels in (1, 3):
        return imagenet(channels)
    if text in KNOWN and channels == 3:
        values = list(KNOWN[text])
    else:
        try:
            values = [tuple(map(float, part.split(","))) for part in text.split("/")]
        except ValueError:
            values = []
    if len(values) != 2 or any(len(numbers) not in (1, channels) for numbers in values):
        named = KNOWN if channels == 3 else ["imagenet"] if channels == 1 else []
        known = list(dict.fromkeys([*others, *named]))
        names = f"{', '.join(known)}, or " if known else ""
        example = "0.49,0.48,0.45/0.25,0.24,0.26" if channels == 3 else "0.5/0.3"
        each = "each one number" + (f" or {channels}" if channels > 1 else ", since the images have one channel")
        raise UserError(
            f"normalise={shown(text)} must be {names}MEAN/STD of pixels from 0 to 1, {each}, "
            f"e.g. {example}.{did_you_mean(text, known)}"
        )
    mean, std = (torch.tensor(numbers).expand(channels)[:, None, None].clone() for numbers in values)  # C 1 1
    if not (mean.isfinite().all() and std.isfinite().all() and (std > 0).all()):
        raise UserError(f"normalise={shown(text)}: means must be finite, and standard deviations greater than 0.")
    return Normalisation(mean, std)
