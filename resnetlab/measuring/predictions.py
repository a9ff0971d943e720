"""What a network answers in a test: its scores over all places of an image, averages over views, and what is right."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from resnetlab.machine import widest_float
from resnetlab.measuring.accuracy import Accuracy
from resnetlab.measuring.units import check_classes, check_labels, check_units, evaluating
from resnetlab.nets.net import ResNet
from resnetlab.nets.vgg import MAP, SMALLEST, VGG

PIXELS_AT_ONCE = 32 * 224 * 224  # in one forward pass
NO_ANSWER = torch.iinfo(torch.int64).max  # the rank where scores are not finite


def scores_over_places(net: ResNet | VGG, x: Tensor) -> Tensor:
    """The mean over all places of the scores that the fully convolutional form of a network gives, N K.

    x: float N C H W, of any size that the network takes; for one place it is the network's own answer, bit by bit. A
    residual network is of this form as it stands: the mean over places of fc, a 1x1 convolution, is fc of the mean.
    VGG's classifier is applied to each 7x7 window of the last map, which is what its first layer as a 7x7 convolution
    does (Simonyan & Zisserman 2015, section 3.2). Raises ValueError for a VGG net that was not trained on 7x7 maps
    (`can_be_convolutional`).
    """
    if not isinstance(net, VGG):
        check_units(net)
        return net(x)
    if not can_be_convolutional(net):
        raise ValueError(f"a VGG net for images of {net.spec.input_size} pixels has no fully convolutional form")
    windows = net.features(x).unfold(2, MAP, 1).unfold(3, MAP, 1)  # N C h w 7 7
    each = windows.permute(0, 2, 3, 1, 4, 5).flatten(3)  # N h w 49C
    return net.classifier(each).mean((1, 2))


def can_be_convolutional(net: ResNet | VGG) -> bool:
    """Whether `scores_over_places` is for this network: a VGG net must give 7x7 maps without stretching them."""
    return isinstance(net, ResNet) or net.spec.input_size // SMALLEST == MAP


@torch.inference_mode()
def log_probabilities(net: ResNet | VGG, x: Tensor, *, whole: bool = False, mirrored: bool = False) -> Tensor:
    """ln of the softmax for images x, float N C H W: float64 N K, since then no small one becomes 0.

    On an Apple GPU they are float32. The network answers in evaluation mode, and is left as it was.

    whole: the network is applied at every place, and its scores are averaged over them before the softmax, as VGG's
    authors do (section 3.2). mirrored: the softmax of the images and of their mirror images are averaged.
    """

    def answer(x: Tensor) -> Tensor:
        scores = scores_over_places(net, x) if whole else net(x)
        return scores.to(widest_float(scores.device)).log_softmax(1)

    with evaluating(net):
        return average([answer(x), answer(x.flip(3))]) if mirrored else answer(x)


def average(log_probabilities: Sequence[Tensor]) -> Tensor:
    """ln of the mean of probabilities, of ln of each: the average over views, scales or members of an ensemble.

    He 2015 averages "scores" over views and scales; its authors' release says of the ten crops that these are softmax
    scores, and over scales VGG's averages the classes' posteriors (section 4.2). So it is the softmax everywhere.
    """
    return torch.stack(tuple(log_probabilities)).logsumexp(0) - math.log(len(log_probabilities))


def over_views(answer: Callable[[Tensor], Tensor], images: Sequence[Sequence[Tensor]]) -> Tensor:
    """The average over the views (uint8 C H W) of each image, N K, by `answer`, from a batch to ln of probabilities.

    Views of one shape go through the network together, at most PIXELS_AT_ONCE.
    """
    places = defaultdict[torch.Size, list[tuple[int, int]]](list)
    for i, views in enumerate(images):
        for j, view in enumerate(views):
            places[view.shape].append((i, j))
    found = dict[tuple[int, int], Tensor]()
    for shape, alike in places.items():
        count = max(1, PIXELS_AT_ONCE // (shape[1] * shape[2]))
        for some in (alike[first : first + count] for first in range(0, len(alike), count)):
            found |= zip(some, answer(torch.stack([images[i][j] for i, j in some])), strict=True)
    return torch.stack([average([found[i, j] for j in range(len(views))]) for i, views in enumerate(images)])


@dataclass(frozen=True)
class Predictions:
    """What was answered to each image, in order: tensors of N."""

    labels: Tensor  # int64
    predicted: Tensor  # int64: the likeliest class, of equal ones the label; -1 where scores are not finite
    confidence: Tensor  # float64: the probability of that class
    loss: Tensor  # float64: -ln of the label's probability
    rank: Tensor  # int64: how many classes are likelier than the label
    tied: Tensor  # bool: whether the label is the likeliest class together with others, which counts as right

    @classmethod
    def of(cls, log_probabilities: Tensor, labels: Tensor) -> Predictions:
        """From ln of probabilities, float64 N K, and labels, int64 N."""
        labels = check_labels(log_probabilities, labels)
        check_classes(log_probabilities, labels)
        own = log_probabilities.gather(1, labels[:, None])  # N 1
        finite = log_probabilities.isfinite().all(1)
        rank = (log_probabilities > own).sum(1).where(finite, NO_ANSWER)
        tied = (rank == 0) & ((log_probabilities == own).sum(1) > 1)
        highest, place = log_probabilities.max(1)
        predicted = labels.where(rank == 0, place).where(finite, -1)
        confidence = highest.exp().where(finite, 0.0)
        return cls(*(t.cpu() for t in (labels, predicted, confidence, -own[:, 0], rank, tied)))

    @classmethod
    def joined(cls, parts: Sequence[Predictions]) -> Predictions:
        """Those of several batches as one."""
        return cls(*(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(cls)))

    @property
    def right(self) -> Tensor:
        """Whether the label is the likeliest class, bool N."""
        return self.rank == 0

    @property
    def accuracy(self) -> Accuracy:
        """The counts."""
        return Accuracy(len(self.labels), int(self.right.sum()), int((self.rank < 5).sum()), float(self.loss.mean()))
