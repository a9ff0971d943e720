"""What a run starts with: weights, order and dropout by its seed, and the statistics of what it trains on."""

from __future__ import annotations

import contextlib
from pathlib import Path

import torch
from torch import Tensor

from resnetlab.nets.zoo import build
from resnetlab.training.distributed import Distributed
from resnetlab.training.recipes import recipe
from resnetlab.training.run import make_run, open_folder
from resnetlab.training.session import Job, TrainingSession
from resnetlab.training.setup import normalisation_of
from resnetlab.training.signals import Stop


def test_the_seed_decides_the_first_weights_the_order_and_what_dropout_draws(tmp_path: Path) -> None:
    def begun(seed: int) -> tuple[Tensor, Tensor, Tensor]:
        run = make_run(recipe("digits", net="cifar_resnet8", seed=seed), tmp_path)
        open_folder(run, 1, "cpu", 1)
        session = TrainingSession.open(Job(run, run.recipe, "cpu", 0, None, Stop(), Distributed()))
        weight = session.stepper.net.get_parameter("fc.weight").detach()
        with torch.random.fork_rng(devices=[]), session.metrics.file, contextlib.closing(session.batches()) as batches:
            next(session.epochs())
            return weight, next(batches)[0].labels, torch.get_rng_state()

    zero, one = begun(0), begun(1)
    for of_zero, of_one in zip(zero, one, strict=True):
        assert not torch.equal(of_zero, of_one)
    for seed, (weight, _, _) in enumerate((zero, one)):
        assert torch.equal(weight, build("cifar_resnet8(in_channels=1)", seed=seed).get_parameter("fc.weight"))


def test_the_mean_is_that_of_the_images_that_are_trained_on(tmp_path: Path) -> None:
    run = make_run(recipe("digits", validation_images=1000, normalise="pixel_mean"), tmp_path)
    kept, _ = run.data.hold_out(1000)
    wanted = kept.pixels.double().mean(0) / 255  # type: ignore[union-attr]
    torch.testing.assert_close(normalisation_of(run).mean, wanted.float())
