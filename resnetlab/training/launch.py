"""A training as a command launches it: checked, with the lines that say what is trained and how it ended."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from resnetlab.data.files import Files, written_since
from resnetlab.data.loading import batch_ends
from resnetlab.data.open import is_absent, open_data
from resnetlab.data.understood import Understood
from resnetlab.data.workers import decoding_workers
from resnetlab.errors import UserError, check_counts, counted, shown, some
from resnetlab.machine import find_device
from resnetlab.nets.zoo import Spec
from resnetlab.run_files import RESULT, last_epoch
from resnetlab.training.distributed import Distributed, check_same, local_device
from resnetlab.training.dry_run import StandIn, stand_in
from resnetlab.training.loop import Status
from resnetlab.training.loop import train as train_run
from resnetlab.training.optimiser import unusual_rates
from resnetlab.training.precision import check_switches
from resnetlab.training.recipe import Recipe
from resnetlab.training.run import Run, make_run
from resnetlab.training.schedule import total_steps, unfinished_warmup
from resnetlab.training.setup import normalisation_of
from resnetlab.training.signals import Stop

WHOSE_NORMALISATION = {
    "source": "from the source file",
    "imagenet": "ImageNet's",
    "pixel_mean": "each pixel's mean over the training images",
    "channel_mean_std": "each channel's mean and standard deviation over the training images",
}

DOUBLES = ("policy", "colour_jitter")  # fields whose operations on images compute in double precision


@dataclass(frozen=True)
class Launch:
    """A run, and how this process trains it."""

    run: Run
    asked: Recipe  # before defaults were resolved
    distributed: Distributed
    device: str
    workers: int  # processes that decode
    threads: int | None = None
    checkpoint_steps: int | None = None
    stand_in: StandIn | None = None  # in a dry run whose data is absent

    def measure(self, progress: Callable[[int, int], object]) -> None:
        """Measure the training images for the normalisation now, so that the progress can be shown."""
        normalisation_of(self.run, workers=self.workers, progress=progress)

    def train(self, stop: Stop | None = None) -> Iterator[Status]:
        """Train, or read a finished run; as `loop.train`."""
        return train_run(
            self.run,
            device=self.device,
            threads=self.threads,
            workers=self.workers,
            checkpoint_steps=self.checkpoint_steps,
            stop=stop,
            distributed=self.distributed,
        )

    def warnings(self) -> list[str]:
        """Lines about suspicious data or rates, and about fields of the recipe that are ignored."""
        recipe, data = self.run.recipe, self.run.data
        lines = [line for line in (unusual_rates(recipe), self._warmup()) if line]
        lines += [
            f"{name}={value} is ignored: this version has no such field, but the run keeps the id that it gave"
            for name, value in recipe.ignored.items()
        ]
        if self.stand_in:  # whose classes are made up
            return lines
        if empty := data.without_training_images():
            they, have = ("it", "has") if len(empty) == 1 else ("they", "have")
            lines.append(
                f"{len(empty)} of {len(data.classes)} classes {have} no training images, so {they} can't be learned: "
                f"{some(map(shown, empty), 5)}"
            )
        if lost := data.held_out_whole(recipe.validation_images):
            have = "has" if len(lost) == 1 else "have"
            lines.append(
                f"{len(lost)} of {len(data.classes)} classes {have} no training images left, since all are held out "
                f"for validation: {some(map(shown, lost), 5)}; add images, or hold out fewer (--validation-share, "
                "--validation-images)"
            )
        return lines

    def _warmup(self) -> str:
        recipe = self.run.recipe
        if self.stand_in:  # whose steps are not the data's; the report of the dry run has them
            return ""
        trained = len(self.run.data.train) - recipe.validation_images
        steps = total_steps(recipe, len(batch_ends(trained, recipe.batch_size, 2 * self.distributed.world_size)))
        if not (line := unfinished_warmup(recipe, steps)):
            return ""
        return f"{line} of {steps:,}: shorten it with --warmup-steps, or train longer"

    def introduction(self, *, warn_of_scratch: bool) -> list[str]:
        """Lines that say what is trained on what, and from which weights; warn_of_scratch: warn if it has no start."""
        run = self.run
        lines = [f"{run.spec.name} on {run.data.title}: {run.folder}", str(understood_of(run, self.asked))]
        if run.pretrained:
            lines.append(run.pretrained.note)
        elif warn_of_scratch:
            lines.append(
                "no --from: training from scratch needs many more images and epochs; expect a far higher error with few"
            )
        if run.name and run.folder.name != f"{run.name}-{run.id}":
            lines.append(f"--name {run.name} has no effect: the run exists already, under the name {run.folder.name}")
        return lines

    def how_to_train_anew(self) -> str:
        """How to train again, although the run is finished."""
        run = self.run
        finished = (run.folder / RESULT).stat().st_mtime
        sides = (side for side in (run.data.train, run.data.test) if isinstance(side, Files))
        newer = sum(written_since(side, finished) for side in sides)
        written = f"{newer:,} of the data's files were written since then, with the same names and sizes; "
        return f"{written if newer else ''}to train again, remove {run.folder} or give another --seed"

    def conclusion(self, *, early: bool) -> list[str]:
        """Lines about a finished run that its errors don't tell; early: whether it was stopped early."""
        run, lines = self.run, []
        result = run.result()
        assert result is not None
        if early:
            lines.append(
                f"stopped early: the validation error has not fallen below {result['best_error']:.2f} % for "
                f"{counted(run.recipe.stop_after, 'epoch')}; best/ has the weights with the lowest"
            )
        if missing := last_epoch(run.folder).get("unreadable"):
            files = counted(missing, "unreadable file")
            lines.append(
                f"the last epoch lacked {files}; 'resnetlab data audit' names {'it' if missing == 1 else 'them'}"
            )
        return lines


def launch(
    recipe: Recipe,
    runs: Path,
    distributed: Distributed,
    *,
    device: str = "auto",
    threads: int | None = None,
    workers: int | None = None,
    checkpoint_steps: int | None = None,
    dry_run: bool = False,
    name: str = "",
) -> Launch:
    """Check all that can be checked before a training; the run is the same in every process. Raises UserError.

    dry_run: write nothing, and put made-up images in place of absent data. name: the name of the run's folder.
    """
    processors = os.cpu_count() or 1
    if threads is not None and not 1 <= threads <= processors:
        raise UserError(f"threads={threads} must be 1 to {processors}, the number of cores of this machine.")
    check_counts(checkpoint_steps=checkpoint_steps)
    where = find_device(local_device(device, distributed))
    doubles = [f"{name}={value!r}" for name in DOUBLES if (value := getattr(recipe, name)) not in ("none", 0)]
    if where == "mps" and doubles:
        raise UserError(
            f"{doubles[0]} computes in double precision, which Apple GPUs lack: leave it out, or use --device cpu."
        )
    if dry_run and is_absent(recipe.data):
        return _on_stand_in(recipe, runs, distributed, where, threads)
    run = distributed.main_first(lambda: make_run(recipe, runs, purpose="read" if dry_run else "train", name=name))
    check_same(distributed, run.id)
    if run.result() is None:
        _check_recipe(run.recipe, run.spec, where)
    in_memory = run.data.shape is not None
    decoders = decoding_workers(workers, where, in_memory=in_memory, processes=distributed.local_world_size)
    return Launch(run, recipe, distributed, where, decoders, threads, checkpoint_steps)


def _check_recipe(recipe: Recipe, spec: Spec, device: str) -> None:
    """Raise UserError for a recipe with which this network does not train here."""
    check_switches(recipe, spec, torch.device(device).type)
    if recipe.warmup in ("constant", "train_error") and recipe.warmup_lr == 0 < recipe.lr:
        raise UserError(f"warmup={recipe.warmup!r} at a rate of 0 learns nothing: give a warmup_lr, such as 0.01.")


def _on_stand_in(recipe: Recipe, runs: Path, distributed: Distributed, device: str, threads: int | None) -> Launch:
    """A dry run whose data is absent. Raises UserError for what would be wrong with any data."""
    try:
        open_data(recipe.data, "read")
    except UserError as missing:
        made_up = stand_in(recipe, runs, missing)
        _check_recipe(recipe, made_up.run.spec, device)
        return Launch(made_up.run, recipe, distributed, device, 0, threads, stand_in=made_up)
    raise AssertionError(f"{recipe.data} is absent, but can be opened")


def understood_of(run: Run, asked: Recipe) -> Understood:
    """How a training interprets its data and its weights; asked: the recipe before defaults were resolved."""
    assumed = asked.normalise == "source" != run.recipe.normalise
    whose = WHOSE_NORMALISATION.get(run.recipe.normalise, f"{run.recipe.normalise}, as given")
    return Understood.of(
        run.data,
        held_out=run.recipe.validation_images,
        size=run.spec.input_size,
        resizing=run.resizing,
        layout=run.pretrained.naming if run.pretrained else "resnetlab, from scratch",
        normalisation=whose + (", since the file does not state one (--normalise gives it)" * assumed),
    )
