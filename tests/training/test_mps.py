"""Apple's GPUs, as far as they can be tested without one: a step computes nothing in double precision on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from resnetlab import machine
from resnetlab.data import loading
from resnetlab.data.augmentation import CROP_FLIP_DRAWS
from resnetlab.data.images import Images
from resnetlab.data.loading import Augmentation, Loader
from resnetlab.data.normalisation import Normalisation
from resnetlab.errors import UserError
from resnetlab.nets.zoo import build, spec
from resnetlab.training import launch as launching
from resnetlab.training.distributed import Distributed, local_device
from resnetlab.training.launch import launch
from resnetlab.training.precision import repeatable, resolved, rng_states, set_rng_states
from resnetlab.training.recipe import Recipe
from resnetlab.training.recipes import recipe
from resnetlab.training.step import make_stepper


class _NoDoubles(TorchDispatchMode):
    """A device without float64: "meta", which computes shapes and types only."""

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        made = function(*arguments, **(named or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and tensor.device.type == "meta":
                assert tensor.dtype != torch.float64, f"{function} gives float64"
        return made


@pytest.mark.parametrize("optimiser", ["sgd", "adamw", "muon"])
def test_a_step_and_its_batch_have_no_doubles(optimiser: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "WITHOUT_FLOAT64", ("mps", "meta"))
    values = Recipe(optimiser=optimiser, balance="class_weights", clip_gradient=1.0)
    how = Augmentation(erasing=0.5, mixup=0.2, label_smoothing=0.1)
    images = Images(torch.zeros(8, 3, 32, 32, dtype=torch.uint8), torch.arange(8) % 4)
    normalise = Normalisation(torch.zeros(3, 1, 1), torch.ones(3, 1, 1))
    with _NoDoubles():
        loader = Loader(normalise.to("meta"), 10, augmentation=how, device="meta")
        stepper = make_stepper(build("cifar_resnet8"), values, "meta", torch.ones(10))
        for batch in loader.training(images.to("meta"), 4, 0, 0):
            assert batch.x.device.type == "meta"
            assert stepper(batch, 0.1).loss.dtype == torch.float32


def test_the_check_sees_a_double(monkeypatch: pytest.MonkeyPatch) -> None:
    with _NoDoubles(), pytest.raises(AssertionError, match="gives float64"):
        torch.zeros(1, device="meta").double()


def test_draws_stay_below_one_in_single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest of double precision are rounded to 1, as a place in an image one pixel beyond it."""
    monkeypatch.setattr(machine, "WITHOUT_FLOAT64", ("mps", "cpu"))
    nearly = torch.tensor(1 - 2**-53, dtype=torch.float64)
    monkeypatch.setattr(loading, "uniform", lambda *_: nearly.expand(4, CROP_FLIP_DRAWS))
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(loading, "crop_flip", lambda pixels, draws, *_: seen.append(draws) or pixels.float())
    images = Images(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.arange(4))
    normalise = Normalisation(torch.zeros(3, 1, 1), torch.ones(3, 1, 1))
    list(Loader(normalise, 10, augmentation=Augmentation(augment="crop_flip")).training(images, 4, 0, 0))
    assert [(draws.dtype, bool((draws < 1).all())) for draws in seen] == [(torch.float32, True)]


def test_its_random_state_is_the_runs_and_then_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    states = [torch.tensor([7], dtype=torch.uint8)]
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: states[-1])
    monkeypatch.setattr(torch.mps, "set_rng_state", states.append)
    with repeatable("mps"):
        states.append(torch.tensor([9], dtype=torch.uint8))
        assert rng_states("mps")["mps"] == 9
    assert states[-1] == 7
    set_rng_states({"cpu": torch.get_rng_state()}, "mps")  # of a run that began on a processor
    assert len(states) == 3


def test_auto_takes_nothing_that_is_the_processors_own() -> None:
    fast = recipe("cifar_fast")
    assert resolved(fast, spec(fast.net), "mps") == {"precision": "fp32", "channels_last": False, "compile": False}


def test_what_it_can_not_do_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "find_device", lambda name: name)
    with pytest.raises(UserError, match="policy='randaugment' computes in double precision, which Apple GPUs lack"):
        launch(recipe("digits", policy="randaugment"), tmp_path, Distributed(), device="mps")
    with pytest.raises(UserError, match="several processes can't share an Apple GPU"):
        local_device("mps", Distributed(world_size=2))
