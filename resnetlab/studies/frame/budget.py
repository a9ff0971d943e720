"""The cost of a plan before it runs: in equivalent epochs of cifar_resnet20, and in hours on this machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from resnetlab.data.open import READERS, Counts
from resnetlab.errors import UserError, counted
from resnetlab.machine import available_cores, machine
from resnetlab.measuring.complexity import costs
from resnetlab.nets.zoo import spec
from resnetlab.run_files import read_begun
from resnetlab.studies.frame.measurement import opened
from resnetlab.training.dry_run import dry_run
from resnetlab.training.recipe import Recipe
from resnetlab.training.run import Run, make_run

UNIT = ("cifar_resnet20", "cifar10")  # an epoch of it costs 1
WORTH_TIMING = 5.0  # epochs of cifar_resnet20, i.e. minutes: from here on steps are timed if no finished run tells


@dataclass(frozen=True)
class Budget:
    """The cost of trainings; epochs are those of cifar_resnet20 on CIFAR-10 with the same number of multiply-adds."""

    runs: int
    epochs: float
    finished: int  # runs that are finished already
    epochs_left: float
    seconds_left: float | None = None  # on this machine; None if it can't be estimated
    by_runs: bool = False  # whether finished runs gave the estimate, rather than a few steps
    busy_cores: float | None = None  # that other work took while these few steps were timed, if the machine was busy

    @property
    def words(self) -> str:
        """For a line of progress."""
        if not self.runs:
            return "nothing is trained"
        said = f"{counted(self.runs, 'run')} with the multiply-adds of {_epochs(self.epochs)} of cifar_resnet20"
        if self.finished == self.runs:
            return f"{said}, {'all ' * (self.runs > 1)}finished"
        if self.finished:
            said += f"; {self.finished} finished, {_epochs(self.epochs_left)} left"
        if self.seconds_left is None:
            return said
        how = "finished runs" if self.by_runs else "a few steps"
        if self.busy_cores is not None:
            how += f" beside other work on {self.busy_cores:.1f} cores, without which it takes less time"
        return f"{said}; about {_hours(self.seconds_left)} of training on this machine, by {how}"


def budget(recipes: Iterable[Recipe], runs: Path, device: str = "cpu") -> Budget:
    """The cost of the recipes, each counted once, and the part that is left; measurements are not included.

    The time is estimated per multiply-add from the finished runs among them that this machine trained; if there are
    none, and enough is left, from a few steps. Raises UserError for data that can't be read.
    """
    resolved = [make_run(recipe, runs, opened(recipe.data)) for recipe in dict.fromkeys(recipes)]
    left = [run for run in resolved if not _is_finished(run)]
    done = [run for run in resolved if run not in left]
    epochs_left = sum(epochs_of(run.recipe) for run in left)
    known = Budget(len(resolved), sum(epochs_of(run.recipe) for run in resolved), len(done), epochs_left)
    if not left:
        return known
    if (rate := _rate(done, device)) is not None:
        return replace(known, seconds_left=rate * epochs_left, by_runs=True)
    if epochs_left < WORTH_TIMING:
        return known
    smallest = min(left, key=lambda run: _multiply_adds(run.recipe.net, UNIT[1]))
    timing = dry_run(smallest, device=device, threads=available_cores()).timing
    if timing is None or timing.training_seconds is None or timing.evaluation_seconds is None:
        return known
    rate = (timing.training_seconds + timing.evaluation_seconds) / epochs_of(smallest.recipe)
    return replace(known, seconds_left=rate * epochs_left, busy_cores=timing.busy_cores)


def _epochs(number: float) -> str:
    amount = f"{number:,.0f}" if number >= 10 else f"{number:.2g}"
    return f"{amount} epoch{'s' * (amount != '1')}"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:,.1f} hours" if seconds >= 5400 else counted(max(1, round(seconds / 60)), "minute")


def epochs_of(recipe: Recipe) -> float:
    """The number of epochs of cifar_resnet20 on CIFAR-10 that need as many multiply-adds as this training."""
    kind = recipe.data.partition(":")[0]
    unit = _multiply_adds(*UNIT) * _counts(UNIT[1]).train
    return length(recipe) * _counts(kind).train * _multiply_adds(recipe.net, kind) / unit


def length(recipe: Recipe) -> float:
    """The length of a training of one of the scales in epochs of its data."""
    images = _counts(recipe.data.partition(":")[0]).train
    return recipe.epochs if recipe.epochs is not None else (recipe.iterations or 0) * recipe.batch_size / images


def total_epochs(recipes: Sequence[Recipe]) -> float:
    """The same of several trainings, each counted once."""
    return sum(map(epochs_of, dict.fromkeys(recipes)))


def _counts(kind: str) -> Counts:
    """The size of a data set of the scales."""
    counts = READERS[kind].counts
    assert counts is not None
    return counts


@lru_cache(maxsize=256)
def _multiply_adds(net: str, kind: str) -> int:
    """The multiply-adds of a network for one image of a kind of data."""
    shape = _counts(kind).shape
    assert shape is not None
    channels, size, _ = shape
    return costs(replace(spec(net), in_channels=channels, input_size=size))[1]


def _is_finished(run: Run) -> bool:
    try:
        return run.result() is not None
    except UserError:  # a damaged folder: the run itself will say so
        return False


def _rate(done: Sequence[Run], device: str) -> float | None:
    """Seconds per epoch of cifar_resnet20 on all cores, from runs trained on this machine; None if there are none."""
    here, seconds, epochs = machine(device), 0.0, 0.0
    for run in done:
        try:
            settings, result = read_begun(run.folder), run.result()
        except UserError:
            continue
        made_on = settings["machine"]
        if result and all(made_on.get(key) == here.get(key) for key in ("processor", "cores", "device")):
            share = min(1.0, settings["threads"] / available_cores()) if here["device"] == "cpu" else 1.0
            seconds += result["seconds"] * share
            epochs += epochs_of(run.recipe)
    return seconds / epochs if epochs else None
