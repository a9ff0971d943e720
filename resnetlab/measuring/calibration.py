"""Calibration: whether a network is right as often as it is sure (Guo et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BINS = 15  # Guo et al. 2017, Table 1


@dataclass(frozen=True)
class Bin:
    """The images whose predicted class has a probability in (low, high]; the means are 0 if there are none."""

    low: float
    high: float
    images: int
    confidence: float  # mean probability of the predicted class
    accuracy: float  # share of them that is right


def reliability(confidence: Tensor, right: Tensor, bins: int = BINS) -> list[Bin]:
    """The reliability diagram: bins of equal width over the probability of the predicted class (section 2).

    confidence: float N; right: bool N. A probability of 0 belongs to the first bin.
    """
    ends = torch.tensor([i / bins for i in range(1, bins)], dtype=torch.float64, device=confidence.device)
    which = torch.bucketize(confidence.double(), ends)
    images = which.bincount(minlength=bins)
    sums = [which.bincount(t.double(), minlength=bins) for t in (confidence, right)]
    means = [(s / images.clamp(min=1)).tolist() for s in sums]
    rows = zip(images.tolist(), *means, strict=True)
    return [Bin(i / bins, (i + 1) / bins, *row) for i, row in enumerate(rows)]


def calibration_error(bins: list[Bin]) -> float:
    """The expected calibration error, ECE, 0 to 1: the mean over images of |accuracy - confidence| (eq. 3)."""
    total = sum(b.images for b in bins)
    return sum(b.images * abs(b.accuracy - b.confidence) for b in bins) / total if total else 0.0
