"""Right and wrong class by class: recall, precision, and which class is taken for which."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from resnetlab.measuring.intervals import wilson


@dataclass(frozen=True)
class ClassResult:
    """How a class fared."""

    images: int  # with this label
    predicted: int  # that were taken for it
    right: int  # both

    @property
    def recall(self) -> float | None:
        """Share of its images that were found, 0 to 1; None without images."""
        return self.right / self.images if self.images else None

    @property
    def recall_interval(self) -> tuple[float, float]:
        """Its 95 % interval."""
        return wilson(self.right, self.images)

    @property
    def precision(self) -> float | None:
        """Share of right ones among the images that were taken for it, 0 to 1; None if none was."""
        return self.right / self.predicted if self.predicted else None

    @property
    def precision_interval(self) -> tuple[float, float]:
        """Its 95 % interval."""
        return wilson(self.right, self.predicted)


def class_results(labels: Tensor, predicted: Tensor, classes: int) -> list[ClassResult]:
    """The result of each class, from int64 N; a prediction of -1 is none."""
    images = labels.bincount(minlength=classes)
    taken = predicted[predicted >= 0].bincount(minlength=classes)
    right = labels[labels == predicted].bincount(minlength=classes)
    return [ClassResult(*row) for row in zip(images.tolist(), taken.tolist(), right.tolist(), strict=True)]


@dataclass(frozen=True)
class Confusion:
    """So many images of one class were taken for another, or for their own."""

    label: int
    predicted: int  # -1: for none
    images: int


def confusions(labels: Tensor, predicted: Tensor) -> list[Confusion]:
    """The cells of the confusion matrix that are not 0, by label, then by prediction; from int64 N."""
    pairs, counts = torch.stack([labels, predicted], 1).unique(dim=0, return_counts=True)
    cells = zip(pairs.tolist(), counts.tolist(), strict=True)
    return [Confusion(label, taken_for, count) for (label, taken_for), count in cells]
