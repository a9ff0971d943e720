"""Steps on a GPU, with their batches: on one device, and without waiting for it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from stand_in_gpu import StandIn
from torch import Tensor

from resnetlab.data.images import Images
from resnetlab.data.loading import Augmentation, Loader
from resnetlab.data.normalisation import Normalisation
from resnetlab.data.operations import equalize, hue
from resnetlab.nets.zoo import build
from resnetlab.training.recipe import Recipe
from resnetlab.training.step import make_stepper

WAYS: dict[str, dict[str, Any]] = {
    "cifar": {"augment": "crop_flip"},
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


def losses(recipe: Recipe, device: str, gpu: StandIn | None = None) -> Tensor:
    """Of three steps; the waiting of all but the first is counted, which keeps what later ones use."""
    random = torch.Generator().manual_seed(0)
    x, labels = torch.randn(24, 3, 16, 16, generator=random).to(device), (torch.arange(24) % 4).to(device)
    loader = Loader(Normalisation(torch.zeros(1), torch.ones(1)).to(device), 4, device=device)
    stepper = make_stepper(build("cifar_resnet8", num_classes=4, seed=0), recipe, device, torch.ones(4))
    stepper.train()
    found = []
    for batch in loader.training(Images((x * 50 + 100).byte(), labels), 8, seed=0, epoch=0):
        found.append(stepper(batch._replace(x=stepper.laid_out(batch.x)), 0.1).loss)
        if gpu and len(found) == 1:
            gpu.waits.clear()
    waits = +gpu.waits if gpu else {}
    assert not waits
    return torch.stack(found).cpu()


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_batches_are_made_without_waiting_and_are_the_processors(way: dict[str, Any], gpu: StandIn) -> None:
    wanted = batches(way, "cpu")
    gpu.waits.clear()
    found = batches(way, "cuda")
    # The images, and the results at the end, are moved once.
    assert +gpu.waits == {"copy": 4 + len(found)}
    assert len(found) == len(wanted) >= 6
    assert all(map(torch.equal, found, wanted))


@pytest.mark.parametrize("values", RECIPES.values(), ids=RECIPES)
def test_steps_wait_for_nothing_and_are_the_processors(values: dict[str, Any], gpu: StandIn) -> None:
    assert torch.equal(losses(Recipe(**values), "cuda", gpu), losses(Recipe(**values), "cpu"))


@pytest.mark.parametrize("operation", [lambda x: equalize(x), lambda x: hue(x, torch.full((4,), 0.2).to(x.device))])
def test_operations_that_count_or_look_up_do_not_wait(operation: Any, gpu: StandIn) -> None:
    x = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    there = x.to("cuda")
    wanted = operation(x)
    gpu.waits.clear()
    found = operation(there)
    assert gpu.waits["bincount"] + gpu.waits["_local_scalar_dense"] == 0
    assert torch.equal(found.cpu(), wanted)


def test_the_stand_in_has_a_gpus_rules(gpu: StandIn) -> None:
    there, here = torch.arange(4).to("cuda"), torch.arange(4)
    assert str(there.device) == "cuda:0"
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        _ = there + here
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        there.index_select(0, here)
    gpu.waits.clear()
    for wait, name in (
        (lambda: there.sum().item(), "_local_scalar_dense"),
        (lambda: bool(there.any()), "_local_scalar_dense"),
        (lambda: there.cpu(), "copy"),
        (lambda: here.to("cuda"), "copy"),
        (lambda: torch.tensor(1.0, device="cuda"), "copy"),
        (lambda: there.bincount(), "bincount"),
        (lambda: there[there > 1], "index"),
    ):
        wait()
        assert +gpu.waits == {name: 1}, name
        gpu.waits.clear()
    with pytest.raises(AssertionError, match="read before it has arrived"):
        there.to("cpu", non_blocking=True)
    here.pin_memory().to("cuda", non_blocking=True)
    torch.zeros(2, device="cuda")
    assert not +gpu.waits
