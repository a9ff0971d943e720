"""A network unit by unit: what enters each unit, its shortcut, its branch and their sum; and units without their F."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as tf
from torch import Tensor, nn

from resnetlab.errors import UserError, shown
from resnetlab.nets.mixing import Plain
from resnetlab.nets.net import ResidualUnit, ResNet

Batch = tuple[Tensor, Tensor]  # x N C H W, labels N
AUTOCASTS = ("cpu", "cuda", "mps")


@dataclass(frozen=True)
class Step:
    """One unit at work: y = mix(h(x), F(x)) (He 2016, eq. 1). x is N C H W; h, F and y are N C' H' W'.

    In a plain net h takes no part in y.
    """

    name: str  # e.g. "layer1.0"
    unit: ResidualUnit
    x: Tensor  # what h and F take: the unit's input, after a pre-activation that they share
    h: Tensor
    F: Tensor
    y: Tensor


@contextlib.contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Within it the network is in evaluation mode; then each of its modules is in its own mode again."""
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextlib.contextmanager
def taking_gradients() -> Iterator[None]:
    """Within it gradients can be taken, if the caller has switched them off by torch.no_grad.

    Raises UserError within torch.inference_mode, whose tensors have none.
    """
    if torch.is_inference_mode_enabled():
        raise UserError("gradients can't be taken within torch.inference_mode(); measure outside it.")
    with torch.enable_grad():
        yield


@contextlib.contextmanager
def own_draws(x: Tensor, seed: int | None = None) -> Iterator[None]:
    """Within it torch draws, as dropout does, from random states that are not the caller's, on the CPU and x's device.

    They begin as the caller's, or at `seed`.
    """
    with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
        if seed is not None:
            torch.default_generator.manual_seed(seed)
        if seed is not None and x.is_cuda:
            with torch.cuda.device(x.device):
                torch.cuda.manual_seed(seed)
        yield


def unlabelled(batches: Iterable[Tensor], net: nn.Module) -> Iterator[Tensor]:
    """The same batches of images, but for empty ones. Raises UserError for what is no batch that the network takes, and
    if there are no images.
    """
    for x in _several(batches):
        if not isinstance(x, Tensor):
            raise UserError(f"a batch is a {type(x).__name__}: give images alone, a tensor N C H W, without labels.")
        if len(x):
            check_images(x, net)
            yield x


def labelled(batches: Iterable[Batch], net: nn.Module) -> Iterator[Batch]:
    """The same batches, of images and labels as int64, but for empty ones. Raises UserError for what is no batch that
    the network takes, for labels that are not one number for each image, and if there are no images.
    """
    for batch in _several(batches):
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise UserError(f"a batch is a {type(batch).__name__}: give pairs of images, N C H W, and labels, N.")
        x, labels = batch
        labels = check_labels(x, labels)
        if len(x):
            check_images(x, net)
            yield x, labels


def _several(batches: Iterable[Any]) -> Iterator[Any]:
    if isinstance(batches, Tensor):  # its images would be taken for batches
        raise UserError("batches is one tensor: give a list of batches, even of a single one.")
    images = 0
    for batch in batches:
        yield batch
        images += len(batch if isinstance(batch, Tensor) else batch[0])
    if not images:
        raise UserError("there are no images to measure: the batches are empty.")


def check_images(x: object, net: nn.Module | None = None) -> None:
    """Raise UserError unless x is images as networks take them: numbers that are not whole, N C H W, at least one.

    net: the network that takes them as they are; they must be of its channels, precision and device.
    """
    if not isinstance(x, Tensor):
        raise UserError(f"images={shown(x)} must be a tensor N C H W.")
    if x.ndim != 4 or not x.is_floating_point():
        raise UserError(f"images of shape {tuple(x.shape)} and {x.dtype}: give floating-point numbers, N C H W.")
    if not len(x):
        raise UserError("there are no images to measure: the batch is empty.")
    layers = net.modules() if isinstance(net, nn.Module) else ()
    if first := next((layer for layer in layers if isinstance(layer, nn.Conv2d)), None):
        _check_fit(x, first)


def _check_fit(x: Tensor, first: nn.Conv2d) -> None:
    """Raise UserError for images that the first layer doesn't take; an autocast converts them itself."""
    if x.shape[1] != first.in_channels:
        raise UserError(
            f"images of shape {tuple(x.shape)} have {x.shape[1]} channels, and the network takes {first.in_channels}: "
            f"give N {first.in_channels} H W."
        )
    weight = first.weight
    if (x.dtype, x.device) != (weight.dtype, weight.device) and not any(map(torch.is_autocast_enabled, AUTOCASTS)):
        raise UserError(
            f"images are {x.dtype} on {x.device}, and the network is {weight.dtype} on {weight.device}: convert the "
            "images by .to()."
        )


def check_labels(x: Tensor, labels: Tensor) -> Tensor:
    """The labels as int64. Raises UserError unless they are one whole number for each image of x."""
    if not all(isinstance(value, Tensor) for value in (x, labels)):
        raise UserError(f"a batch has labels={shown(labels)}: give images and labels as tensors.")
    whole = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
    if labels.shape != x.shape[:1] or not whole:
        raise UserError(
            f"labels of shape {tuple(labels.shape)} and {labels.dtype} for {len(x)} images: give one whole number "
            "for each, the number of its class."
        )
    return labels.long()


def check_batch(x: Tensor, labels: Tensor, net: nn.Module | None = None) -> Tensor:
    """The labels of a single batch, as `check_labels` gives them; the images are checked, too, as by `check_images`."""
    check_images(x, net)
    return check_labels(x, labels)


def check_classes(scores: Tensor, labels: Tensor) -> None:
    """Raise UserError for labels that are none of the classes to which scores (N K) are given."""
    others = labels[(labels < 0) | (labels >= scores.shape[1])]
    if len(others):
        raise UserError(
            f"a label is {int(others[0])}, and the network's {scores.shape[1]} classes are numbered from 0 to "
            f"{scores.shape[1] - 1}."
        )


def cross_entropy(scores: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
    """torch's, of scores N K; UserError for labels that are no classes, some of which torch would leave out."""
    check_classes(scores, labels)
    return tf.cross_entropy(scores, labels, reduction=reduction)


def count_wrong(scores: Tensor, labels: Tensor) -> int:
    """How many images have their highest score (N K) for another class than their label, or one that is not finite.

    Of equal scores the first counts, as in a training's error: in `accuracy`, where each of them does, a network that a
    lesion left without an answer would have no error. Raises UserError for labels that are no classes.
    """
    check_classes(scores, labels)
    return int(((scores.argmax(1) != labels) | ~scores.isfinite().all(1)).sum())


def check_units(net: object) -> None:
    """Raise UserError for a network without residual units, such as a VGG net, and for what is no network."""
    if not isinstance(net, nn.Module):
        raise UserError(f"{shown(net)} is no network; give one that build or load returns.")
    if not callable(getattr(net, "units", None)):
        name = getattr(getattr(net, "spec", None), "name", "") or type(net).__name__
        raise UserError(f"{name}: has no units to measure; give a residual network of resnetlab's, or a plain one.")


def units_of(net: ResNet) -> list[tuple[str, ResidualUnit]]:
    """The units in order with their names. Raises UserError for a network that has none."""
    check_units(net)
    return list(net.units())


def steps(net: ResNet, features: Tensor) -> Iterator[Step]:
    """Run the units in order on what enters the first one. The last unit's output is `unit.f(y)`."""
    for name, unit in net.units():
        x = unit.preact(features)
        h, F = unit.h(x), unit.F(x)
        y = unit.mix(h, F, x)
        yield Step(name, unit, x, h, F, y)
        features = unit.f(y)


def stage_of(name: str) -> int:
    """The stage of a unit, from 1, by the unit's name: 3 of "layer3.0"."""
    return int(name.removeprefix("layer").partition(".")[0])


def keeps_size(unit: ResidualUnit) -> bool:
    """Whether a unit's output has its input's shape."""
    return unit.in_channels == unit.out_channels and unit.stride == 1


def is_plain(unit: ResidualUnit) -> bool:
    """Whether a unit has no shortcut."""
    return isinstance(unit.mix.equation, Plain)


def without_branch(unit: ResidualUnit, features: Tensor) -> Tensor:
    """What a unit hands on if its F is deleted (Veit 2016, section 4.1): f(mix(h(x), 0)); N C' H' W'.

    A plain unit is F alone, so it is left out whole, which ValueError denies where it changes sizes.
    """
    if is_plain(unit):
        if not keeps_size(unit):
            raise ValueError("a plain unit that changes sizes can't be removed: nothing else fits in its place")
        return features
    x = unit.preact(features)
    h = unit.h(x)
    return unit.f(unit.mix(h, torch.zeros_like(h), x))


def squared_norms(values: Tensor) -> Tensor:
    """‖v‖² of each image, float64 N, of values N ...."""
    return values.double().flatten(1).square().sum(1)
