"""Boosting: whether units step down the loss's gradient, and how good the features are after each of them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from resnetlab.measuring.units import (
    Batch,
    Step,
    count_wrong,
    cross_entropy,
    evaluating,
    keeps_size,
    labelled,
    squared_norms,
    steps,
    taking_gradients,
    units_of,
    without_branch,
)
from resnetlab.nets.net import ResNet


@dataclass(frozen=True)
class Alignment:
    """Cosines between a unit's F(x) and −∂loss/∂x, mean over images; None if F or the gradient is zero for all."""

    own: float | None  # the gradient of the image itself
    other: float | None  # that of another of its batch: what directions have in common without knowing the image
    chance: float  # a random direction's cosine has this standard deviation: 1/√(values in x)


def alignments(net: ResNet, batches: Iterable[Batch]) -> dict[str, Alignment]:
    """How far F(x) points down the loss's gradient, by the unit's name, for units that keep their maps' size, if any.

    The loss is each image's own cross-entropy and x what h and F take, so x and F(x) have one shape
    (Jastrzebski et al. 2018, section 4, up to the sign). Images whose F or gradient is zero are left out, as for
    `other` is one that is alone in its batch. The network and its gradients are left as they were.
    """
    sums: dict[str, Tensor] = {}
    sizes: dict[str, int] = {}
    if not any(keeps_size(unit) for _, unit in units_of(net)):
        return {}
    for x, labels in labelled(batches, net):
        with evaluating(net), taking_gradients():
            features = net.stem(x).detach().requires_grad_()
            taken: list[Step] = list(steps(net, features))
            scores = net.head(taken[-1].unit.f(taken[-1].y))
            loss = cross_entropy(scores, labels, reduction="sum")
            taken = [step for step in taken if keeps_size(step.unit)]
            gradients = torch.autograd.grad(loss, [step.x for step in taken])
        for step, gradient in zip(taken, gradients, strict=True):
            F = step.F.detach()
            own, other = _cosines(F, -gradient), _cosines(F, -gradient.roll(1, 0))
            other = other if len(F) > 1 else other[:0]
            parts = [own.nansum(), own.isfinite().sum(), other.nansum(), other.isfinite().sum()]
            sums[step.name] = sums.get(step.name, 0) + torch.stack([p.double() for p in parts]).cpu()
            sizes[step.name] = F[0].numel()
    return {name: _alignment(*total.tolist(), size=sizes[name]) for name, total in sums.items()}


def _alignment(own: float, owns: float, other: float, others: float, *, size: int) -> Alignment:
    """From the sums of cosines, each with the number of its images, and the number of values in x."""
    return Alignment(own / owns if owns else None, other / others if others else None, 1 / math.sqrt(size))


def _cosines(a: Tensor, b: Tensor) -> Tensor:
    """The cosine of each image, float64 N; NaN where a or b is zero."""
    return (a.double() * b.double()).flatten(1).sum(1) / (squared_norms(a) * squared_norms(b)).sqrt()


@dataclass(frozen=True)
class ReadOut:
    """How good the features after a unit are: top-1 error in % and mean cross-entropy in nats."""

    unit: str
    error: float
    loss: float


@torch.no_grad()
def read_outs(net: ResNet, batches: Iterable[Batch]) -> list[ReadOut]:
    """The head's answers from what enters the first unit ("stem"), then from what leaves each unit, in order.

    The features reach the head through the shortcuts of the units that are left, whose F is deleted: where sizes
    change these subsample and pad with zeros (option A), or project. Nothing is trained anew. Raises ValueError
    for a plain net, which has no such way. The network is left as it was.
    """
    units = units_of(net)
    if net.spec.is_plain:
        raise ValueError("a plain net has no shortcuts to its head")
    wrong, losses, images = [0] * (len(units) + 1), [0.0] * (len(units) + 1), 0
    with evaluating(net):
        for x, labels in labelled(batches, net):
            images += len(labels)
            features = net.stem(x)
            for i in range(len(units) + 1):
                carried = features
                for _, unit in units[i:]:
                    carried = without_branch(unit, carried)
                scores = net.head(carried)
                wrong[i] += count_wrong(scores, labels)
                losses[i] += float(cross_entropy(scores, labels, reduction="sum"))
                if i < len(units):
                    features = units[i][1](features)
    names = ["stem", *(name for name, _ in units)]
    return [ReadOut(n, 100 * w / images, loss / images) for n, w, loss in zip(names, wrong, losses, strict=True)]
