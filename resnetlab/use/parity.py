"""Whether an exported network agrees with PyTorch: its scores on noise, its predictions on test images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from resnetlab.data.images import Data
from resnetlab.data.loading import evaluation_batch, labelled, placed_batches
from resnetlab.data.resizing import Resizing
from resnetlab.data.streaming import BadImages
from resnetlab.errors import UserError

TOLERANCE = 1e-4  # the largest difference of scores that counts as rounding, as a share of the largest score

Scores = Callable[[Tensor], Tensor]  # pixels, uint8 N C H W -> scores, float32 N K


@dataclass(frozen=True)
class Check:
    """The difference between a file's scores and PyTorch's on one batch."""

    batch: int
    greatest_difference: float
    greatest_score: float  # PyTorch's, of either sign

    @property
    def is_rounding(self) -> bool:
        """Whether the difference is within TOLERANCE; False if it is not finite."""
        return self.greatest_difference <= TOLERANCE * self.greatest_score


@dataclass(frozen=True)
class Parity:
    """PyTorch's predictions and an exported network's on the same test images."""

    data: str
    images: int
    same_predictions: int
    pytorch_correct: int
    exported_correct: int
    unreadable: int = 0  # of the test images, left out

    @property
    def pytorch_top1(self) -> float:
        """PyTorch's top-1 accuracy in %."""
        return 100 * self.pytorch_correct / self.images

    @property
    def exported_top1(self) -> float:
        """The exported network's top-1 accuracy in %."""
        return 100 * self.exported_correct / self.images

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self) | {"pytorch_top1": self.pytorch_top1, "exported_top1": self.exported_top1}


def compare(pytorch: Scores, exported: Scores, pixels: Tensor) -> Check:
    """Run both on one batch. Raises UserError where PyTorch's own scores are not finite."""
    wanted, got = pytorch(pixels), exported(pixels)
    if not wanted.isfinite().all():
        raise UserError("the network's scores are already not finite in PyTorch: its training diverged.")
    return Check(len(pixels), (wanted - got).abs().max().item(), wanted.abs().max().item())


def measure_parity(
    pytorch: Scores,
    exported: Scores,
    data: Data,
    size: int,
    *,
    resizing: Resizing,
    outputs: Sequence[int],
    skip: bool,
    progress: Callable[[int, int], object],
) -> Parity:
    """Run both on the data's test images; files are resized and cropped to `size`.

    outputs: the network's output for each class of the data. skip: leave out and count unreadable files. progress is
    called with the number done and in all. Raises UserError for an unreadable file, and with `skip` if all are
    unreadable.

    Of equal scores, which int8 often has, the first is the answer, as in `predict`; `eval` takes the label among them.
    """
    images = same = right = exported_right = 0
    total, unreadables = len(data.test), BadImages(skip, limit=len(data.test))
    output_of = torch.tensor(outputs)
    batch = evaluation_batch(data.test)
    batches = placed_batches(data.test, 0, total, batch, size, 0, unreadables, resizing)
    for pixels, numbers in labelled(data.test, batches):
        labels = output_of[numbers]
        wanted, got = _answers(pytorch(pixels)), _answers(exported(pixels))
        images += len(labels)
        same += int((wanted == got).sum())
        right += int((wanted == labels).sum())
        exported_right += int((got == labels).sum())
        progress(images, total)
    if not images:
        raise UserError(f"{data.title}: none of its {total} test images can be read; see 'resnetlab data audit'.")
    return Parity(data.title, images, same, right, exported_right, unreadables.count)


def _answers(scores: Tensor) -> Tensor:
    """The output with the highest score, int64 N; -1 where scores, N K, are not finite."""
    return scores.argmax(1).where(scores.isfinite().all(1), -1)
