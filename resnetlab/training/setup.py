"""What a run starts with: its images, its initial network, and the loader of its batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from resnetlab.data.files import Files
from resnetlab.data.images import Images
from resnetlab.data.loading import Loader
from resnetlab.data.normalisation import Normalisation, imagenet, parse_normalisation
from resnetlab.data.resizing import USUAL
from resnetlab.data.statistics import NORMALISATIONS, measure
from resnetlab.data.streaming import BadImages
from resnetlab.errors import UserError
from resnetlab.nets.net import ResNet
from resnetlab.nets.vgg import VGG
from resnetlab.nets.zoo import build
from resnetlab.training.distributed import Distributed
from resnetlab.training.recipe import Recipe
from resnetlab.training.run import Run


@dataclass(frozen=True)
class TrainingData:
    """The images of a run: those in memory on the device, where they stay, and files as they are."""

    train: Images | Files
    validation: Images | Files
    test: Images | Files

    @classmethod
    def of(cls, run: Run, device: str) -> TrainingData:
        """The run's images, split into training, held-out and test images."""
        sides = (*run.data.hold_out(run.recipe.validation_images), run.data.test)
        return cls(*(side.to(device) if isinstance(side, Images) else side for side in sides))


def first_network(run: Run, recipe: Recipe, device: str) -> ResNet | VGG:
    """The network with which the run begins: with its initial weights, on the device."""
    net = build(run.spec, seed=recipe.seed)
    if run.pretrained:
        run.pretrained.put_into(net)
    return net.to(device)


def make_loader(
    run: Run,
    normalise: Normalisation,
    *,
    device: str,
    workers: int,
    unreadables: BadImages,
    distributed: Distributed | None = None,
) -> Loader:
    """The loader of the run's batches, of which each process has its share."""
    distributed = distributed or Distributed()
    return Loader(
        normalise=normalise.to(device),
        classes=len(run.data.classes),
        size=run.spec.input_size,
        augmentation=run.recipe.augmentation,
        device=device,
        workers=workers,
        rank=distributed.rank,
        ranks=distributed.world_size,
        unreadables=unreadables,
        balanced=run.recipe.balance == "sampling",
        resizing=run.resizing or USUAL,
    )


def class_weights(recipe: Recipe, labels: Tensor, classes: int) -> Tensor | None:
    """The factor of an image's loss, by its class, float32 K; None unless the recipe weights classes.

    N / (C n) for a class with n of N images, if C classes have any: each class has the same share of the loss, and the
    mean over the images stays comparable, since the mean of the weights is 1. A class without images has weight 0.
    """
    if recipe.balance != "class_weights":
        return None
    counts = labels.cpu().bincount(minlength=classes)
    weights = len(labels) / (counts.clamp(min=1) * (counts > 0).sum())
    return torch.where(counts > 0, weights, 0.0).float()


def added_counts(which: str, added: Callable[[list[float]], list[float]], counts: list[float]) -> list[float]:
    """The counts of `accuracy`, with those that are `added` to them. Raises UserError, which says `which` images, if
    they are of none.
    """
    together = added(counts)
    if not together[0]:
        raise UserError(f"{which} can be read; see 'resnetlab data audit'.")
    return together


def normalisation_of(
    run: Run, *, workers: int = 0, progress: Callable[[int, int], object] = lambda *_: None
) -> Normalisation:
    """The normalisation of a run's images, which may have to be measured; see `data.statistics.measure`."""
    if run.recipe.normalise == "imagenet":
        return imagenet(run.spec.in_channels)
    if run.recipe.normalise == "source":
        assert run.pretrained is not None
        assert run.pretrained.normalisation is not None  # else the recipe has another one
        return run.pretrained.normalisation
    if run.recipe.normalise not in NORMALISATIONS:
        return parse_normalisation(run.recipe.normalise, run.spec.in_channels)
    images, _ = run.data.hold_out(run.recipe.validation_images)
    statistics = measure(images, run.spec.input_size, workers=workers, progress=progress)
    return NORMALISATIONS[run.recipe.normalise](statistics)
