"""The accuracy of a network as its run or file states it, which tells users how far to trust it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NotRequired, TypedDict

from resnetlab.errors import UserError
from resnetlab.measuring.intervals import wilson
from resnetlab.nets.zoo import Spec
from resnetlab.run_files import SETTINGS, read_epochs, read_result, read_settings
from resnetlab.schema import MOST_WHOLE, Between, Percent, trouble
from resnetlab.storage import is_there
from resnetlab.weights.load import Loaded
from resnetlab.weights.metadata import spec_from_dict
from resnetlab.weights.published import TORCHVISION

VALIDATION_IMAGES = 50_000  # of ImageNet
Count = Annotated[int, Between(1, MOST_WHOLE)]


class AccuracyValues(TypedDict):
    """An accuracy as JSON."""

    top1: Percent
    images: NotRequired[Count]


@dataclass(frozen=True)
class RecordedAccuracy:
    """How many of its test images a network classified correctly."""

    top1: float  # %
    images: int | None = None  # number of test images; None if it is not recorded

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of `top1` in % (Wilson 1927); None where the number of images is not known."""
        if self.images is None:
            return None
        low, high = wilson(round(self.top1 / 100 * self.images), self.images)
        return 100 * low, 100 * high

    def to_dict(self) -> AccuracyValues:
        """As JSON values, which `from_dict` reads."""
        return {"top1": self.top1} if self.images is None else {"top1": self.top1, "images": self.images}

    @classmethod
    def from_dict(cls, values: AccuracyValues) -> RecordedAccuracy:
        """The inverse of `to_dict`."""
        return cls(values["top1"], values.get("images"))


def known_accuracy(source: str | Path, loaded: Loaded, image_size: int | None) -> RecordedAccuracy | None:
    """The accuracy of a loaded network as its run, its file, or, for torchvision's weights, torchvision states it.

    image_size: given if it is not the file's own. None if no accuracy is stated for images of that size.
    """
    if found := recorded_accuracy(loaded.file, loaded.net.spec):
        return found
    measured = loaded.metadata.measured if loaded.metadata else {}
    kind, _, name = str(source).partition(":")
    if image_size is not None:
        return None
    if measured and not trouble(measured, AccuracyValues):
        return RecordedAccuracy(measured["top1"], measured.get("images"))
    if kind == "torchvision" and name in TORCHVISION:
        return RecordedAccuracy(TORCHVISION[name].top1, VALIDATION_IMAGES)
    return None


def recorded_accuracy(weights: Path, spec: Spec) -> RecordedAccuracy | None:
    """The accuracy that a run recorded for the weight file in its folder `last` or `best`, as weights of that network.

    None for other files, for the last weights of an unfinished run, which may be newer than its last evaluation, for
    another network or image size than the run's, and if a record is damaged, since a network can be used without it.
    """
    folder, which = weights.parent.parent, weights.parent.name
    if which not in ("last", "best") or not is_there(folder / SETTINGS):
        return None
    try:
        settings, epochs = read_settings(folder), read_epochs(folder)
        finished, own = read_result(folder) is not None, spec_from_dict(settings["spec"])
    except (UserError, TypeError, ValueError, KeyError):
        return None
    if not epochs or own != spec or (which == "last" and not finished):
        return None
    # The best epoch is the first of the lowest error, as the training decides it.
    line = epochs[-1] if which == "last" else min(epochs, key=lambda e: e.get("validation_error", e["test_error"]))
    if math.isnan(line["test_error"]):
        return None
    images = None if line.get("unreadable") else settings["data"].get("test_images")
    return RecordedAccuracy(100 - line["test_error"], images or None)
