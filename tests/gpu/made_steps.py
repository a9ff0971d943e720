"""Batches and steps of made-up images, on a GPU or the processor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from resnetlab.data.images import Images
from resnetlab.data.loading import Augmentation, Loader
from resnetlab.data.normalisation import Normalisation
from resnetlab.nets.zoo import build
from resnetlab.training.recipe import Recipe
from resnetlab.training.step import make_stepper

WAYS: dict[str, dict[str, Any]] = {
    "cifar": {"augment": "crop_flip"},
    "alternating": {"augment": "crop_alternating_flip", "crop_padding": 2},
    "policies": {"policy": "randaugment", "erasing": 0.5},
    "a wide policy": {"policy": "trivialaugment"},
    "colours": {"augment": "scale_crop_flip_colour", "colour_jitter": 0.4},
    "mixed": {"mixup": 0.2, "cutmix": 1.0, "label_smoothing": 0.1},
}
RECIPES: dict[str, dict[str, Any]] = {
    "sgd": {"accumulate": 2, "clip_gradient": 1.0},
    "muon": {"optimiser": "muon", "ema": 0.9},
    "adamw": {"optimiser": "adamw", "channels_last": True},
    "recomputed": {"checkpoint_activations": True},
}


def batches(way: dict[str, Any], device: str) -> list[Tensor]:
    """An epoch's batches of made-up images, and their targets."""
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (24, 3, 32, 32), dtype=torch.uint8, generator=random)
    images = Images(pixels, torch.arange(24) % 4).to(device)
    mean, std = torch.rand(3, 32, 32, generator=random), torch.rand(3, 1, 1, generator=random)
    loader = Loader(Normalisation(mean, std).to(device), 4, augmentation=Augmentation(**way), device=device)
    made = list(loader.training(images, 8, seed=0, epoch=0))
    assert {batch.x.device for batch in made} == {images.pixels.device}
    return [part.cpu() for batch in made for part in (batch.x, batch.labels, batch.targets) if part is not None]


def losses(recipe: Recipe, device: str, after_first: Callable[[], object] = lambda: None) -> Tensor:
    """Of three steps; `after_first` is called after the first one, which makes what later ones use."""
    random = torch.Generator().manual_seed(0)
    x, labels = torch.randn(24, 3, 16, 16, generator=random).to(device), (torch.arange(24) % 4).to(device)
    loader = Loader(Normalisation(torch.zeros(1), torch.ones(1)).to(device), 4, device=device)
    stepper = make_stepper(build("cifar_resnet8", num_classes=4, seed=0), recipe, device, torch.ones(4))
    stepper.train()
    found = []
    for batch in loader.training(Images((x * 50 + 100).byte(), labels), 8, seed=0, epoch=0):
        found.append(stepper(batch._replace(x=stepper.laid_out(batch.x)), 0.1).loss)
        if len(found) == 1:
            after_first()
    return torch.stack(found)
