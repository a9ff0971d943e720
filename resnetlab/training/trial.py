"""A few trial steps of a run, with its network, optimiser and batches; no result of them is kept."""

from __future__ import annotations

import contextlib
import itertools
import time
import warnings
from collections.abc import Generator, Iterator
from functools import partial
from typing import Any

import torch

from resnetlab.data.loading import Batch
from resnetlab.data.normalisation import Normalisation
from resnetlab.data.streaming import BadImages
from resnetlab.errors import UserError
from resnetlab.machine import wait_for
from resnetlab.measuring.accuracy import accuracy
from resnetlab.run_files import read_begun
from resnetlab.storage import Damaged
from resnetlab.training.precision import as_started, on_threads, repeatable, resolved
from resnetlab.training.recipe import Recipe
from resnetlab.training.run import Run
from resnetlab.training.setup import TrainingData, added_counts, class_weights, first_network, make_loader
from resnetlab.training.step import make_stepper


def flat(channels: int) -> Normalisation:
    """An arbitrary normalisation, for when only its time matters."""
    return Normalisation(torch.full((channels, 1, 1), 0.5), torch.ones(channels, 1, 1))


@contextlib.contextmanager
def settings_kept(device: str, threads: int | None) -> Iterator[None]:
    """A context for trial steps with the settings of torch that a training has; restores the caller's afterwards."""
    with repeatable(device), on_threads(threads or torch.get_num_threads()):
        yield


def _settled(run: Run, device: str) -> Recipe:
    """The run's recipe with what `auto` came to where it started, or comes to here if it has not."""
    begun: dict[str, Any] = {}
    with contextlib.suppress(Damaged):  # as the state of the run says
        begun = read_begun(run.folder)
    return as_started(run.recipe, begun.get("resolved") or resolved(run.recipe, run.spec, device), device)


class Trial:
    """What a few steps need: network, optimiser and batches, as the training loop has them."""

    def __init__(self, run: Run, normalise: Normalisation, *, device: str, workers: int):
        self.run, self.device = run, device
        self.data = TrainingData.of(run, device)
        self.recipe = _settled(run, device)
        # On a GPU, code would be compiled for each number of images that is tried.
        recipe = self.recipe if device == "cpu" else self.recipe.override(compile=False)
        self.net = first_network(run, recipe, device)
        weights = class_weights(recipe, self.data.train.labels, len(run.data.classes))
        self.stepper = make_stepper(self.net, recipe, device, weights)
        self.loader = make_loader(
            run,
            normalise,
            device=device,
            workers=workers,
            unreadables=BadImages(skip=True, limit=len(run.data.train)),
        )

    def seconds(self, images: int, *, steps: int, before: int = 0) -> float:
        """Seconds per step of that many images, including loading; the `before` first steps are not counted."""
        self.stepper.train()
        with contextlib.closing(self.batches(images)) as batches:
            for step in range(before + steps):
                if step == before:
                    wait_for(self.device)
                    started = time.perf_counter()
                self.stepper(next(batches), 0.0)  # a rate of 0 takes the same time and can't diverge
            wait_for(self.device)
        return (time.perf_counter() - started) / steps

    def batches(self, images: int) -> Generator[Batch, None, None]:
        """Batches of that many images, epoch after epoch without end. Raises UserError if no image can be read."""
        for epoch in itertools.count():
            none = True
            for batch in self.loader.training(self.data.train, images, self.run.recipe.seed, epoch):
                none = False
                yield batch._replace(x=self.stepper.laid_out(batch.x))
            if none:
                raise UserError(f"{self.run.data.title}: no batch of {images} has two readable images.")

    def evaluation(self, images: int) -> float:
        """Seconds that evaluating one image takes. Raises UserError if none of those tried can be read."""
        some = self.data.test[torch.arange(min(images, len(self.data.test)))]
        counted = partial(added_counts, f"{self.run.data.title}: none of {len(some)} test images", list)
        for _ in range(2):  # the first is left out
            started = time.perf_counter()
            accuracy(self.net, self.loader.evaluation(some, images), counted)
            wait_for(self.device)
        return (time.perf_counter() - started) / len(some)

    def nondeterministic(self) -> tuple[str, ...]:
        """Operations of a training step that torch knows to be nondeterministic on this device."""
        before = torch.are_deterministic_algorithms_enabled()
        warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.use_deterministic_algorithms(True, warn_only=True)
            try:
                self.seconds(2, steps=1)
            finally:
                torch.use_deterministic_algorithms(before, warn_only=warn_only)
        split = [str(w.message).partition(" does not have a deterministic") for w in caught]
        return tuple(dict.fromkeys(operation for operation, separator, _ in split if separator))
