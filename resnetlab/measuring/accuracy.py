"""Accuracy over a data set, from exact counts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as tf
from torch import Tensor, nn

from resnetlab.machine import widest_float
from resnetlab.measuring.halving import in_halves
from resnetlab.measuring.units import check_classes, check_labels, evaluating

# Of CIFAR's size. A feature map of the first stage then has 16 MB: glibc takes one of more than 32 MB from the system
# anew each time, which takes an eighth of the forward pass.
AT_ONCE = 250


@dataclass(frozen=True)
class Accuracy:
    """How many of `images` had their label as the highest score, and among the five highest."""

    images: int
    top1_correct: int
    top5_correct: int
    loss: float  # mean cross-entropy, in nats

    @property
    def top1(self) -> float:
        """Top-1 accuracy in %."""
        return 100 * self.top1_correct / self.images

    @property
    def top5(self) -> float:
        """Top-5 accuracy in %; 100 where there are no more than five classes."""
        return 100 * self.top5_correct / self.images

    @property
    def error(self) -> float:
        """Top-1 error in %, as the papers print it."""
        return 100 * (self.images - self.top1_correct) / self.images


@torch.inference_mode()
def accuracy(
    net: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    added: Callable[[list[float]], list[float]] = lambda counts: counts,
) -> Accuracy:
    """Count right answers over batches of (x float N C H W, labels int64 N).

    The network is evaluated as it stands in evaluation mode; each of its modules is left in its own mode. An image
    counts as right in top-k when fewer than k classes score higher than its label, so the order of
    equal scores doesn't matter; scores that are not finite count as wrong. Where several processes count
    a part each, `added` gives the sums over all of them of four numbers, and the batches of one may be empty.
    A batch that does not fit into memory is counted in halves. Raises ValueError when there are no images, and
    UserError for labels that are no classes.
    """

    def count_right(x: Tensor, labels: Tensor) -> Tensor:
        return _count(torch.cat([net(part) for part in _parts(x)]), check_labels(x, labels))

    with evaluating(net):
        counted = [count for batch in batches for count in in_halves(count_right, *batch)]
    images, top1, top5, loss = added(torch.stack(counted).sum(0).tolist() if counted else [0.0] * 4)
    if not images:
        raise ValueError("accuracy of no images: the batches are empty")
    return Accuracy(int(images), int(top1), int(top5), loss / images)


def _parts(x: Tensor) -> tuple[Tensor, ...]:
    """What passes through the network together; the whole batch is counted together all the same."""
    return x.tensor_split(max(1, math.ceil(len(x) / AT_ONCE))) if x.device.type == "cpu" else (x,)


def _count(scores: Tensor, labels: Tensor) -> Tensor:
    """Images, right in top-1, right in top-5, summed loss: float64, exact for counts below 2^53; on an Apple GPU
    float32, exact below 2^24.
    """
    if labels.is_cpu:  # a GPU would have to be waited for
        check_classes(scores, labels)
    own = scores.gather(1, labels[:, None])  # N 1
    higher = (scores > own).sum(1)  # how many classes beat the label
    finite = scores.isfinite().all(1)
    loss = tf.cross_entropy(scores.float(), labels, reduction="sum")
    counts = [
        torch.tensor(len(labels), device=scores.device),
        ((higher < 1) & finite).sum(),
        ((higher < 5) & finite).sum(),
    ]
    return torch.stack([each.to(widest_float(scores.device)) for each in (*counts, loss)])
