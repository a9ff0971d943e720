"""What a run would be, before it starts: its recipe, its length, and what it takes in memory and time."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import time
import warnings
from collections.abc import Generator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from resnetlab.data.loading import Batch, batch_ends
from resnetlab.data.normalisation import Normalisation
from resnetlab.data.streaming import BadImages
from resnetlab.errors import UserError, out_of_memory
from resnetlab.measuring.accuracy import accuracy
from resnetlab.measuring.complexity import complexity
from resnetlab.training.precision import AUTO, resolved
from resnetlab.training.recipe import Recipe
from resnetlab.training.run import Run
from resnetlab.training.runs import summary
from resnetlab.training.schedule import ONECYCLE_RISE, ScheduleState, learning_rate, total_steps
from resnetlab.training.setup import TrainingData, first_network, make_loader
from resnetlab.training.step import make_stepper

TIMED_STEPS = 5
FIRST_BATCH = 4  # images of the steps that are tried first
SECONDS_A_STEP = 4.0  # the timed steps take fewer images where a whole batch would take longer
SHARE_OF_MEMORY = 0.4  # of what is free on this machine, that the timed steps may fill


@dataclass(frozen=True)
class Memory:
    """Bytes that training holds at once, estimated: float32, without what libraries and images need."""

    parameters: int
    gradients: int
    momentum: int
    activations: int  # what a forward pass of a whole batch keeps for the backward pass
    measured_peak: int | None = None  # on a GPU: the most that was allocated in steps of a whole batch

    @property
    def total(self) -> int:
        """The sum of the estimates."""
        return self.parameters + self.gradients + self.momentum + self.activations


@dataclass(frozen=True)
class Timing:
    """What a few real steps took, and what the run would take at that."""

    timed_images: int  # in each timed step; fewer than a batch where that would not fit or take too long
    seconds_a_step: float  # of a whole batch
    images_per_second: float
    training_seconds: float  # all steps
    evaluation_seconds: float  # all evaluations


@dataclass(frozen=True)
class DryRun:
    """What a run would be; nothing of it is kept."""

    recipe: dict[str, Any]
    changed: tuple[str, ...]  # fields that are not at their default
    resolved: dict[str, Any]  # what `auto` comes to on this machine, or came to where the run started
    folder: str
    state: str  # of that folder: "new", or what `runs` says of it
    network: str
    start: str  # what is kept of the source that the run starts from, if any
    parameters: int
    multiply_adds: int  # for one image
    data: str
    train_images: int
    validation_images: int
    test_images: int
    image: tuple[int, int, int]  # C H W as the network gets it
    steps_per_epoch: int
    steps: int
    epochs: float
    learning_rates: tuple[tuple[int, float], ...]  # (step, lr) at the start and where it changes
    lr_words: str  # what a number of steps can't say
    memory: Memory
    timing: Timing | None  # None where no batch fits
    nondeterministic: tuple[str, ...]  # what keeps the run from repeating itself to the last bit
    device: str
    threads: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self) | {"memory": asdict(self.memory) | {"total": self.memory.total}}


def dry_run(run: Run, *, device: str = "cpu", threads: int | None = None, workers: int = 0) -> DryRun:
    """Say what a run would be, after a few real steps; its folder is neither made nor touched.

    The random state and the number of threads are left as they were.
    """
    recipe = run.recipe
    train, validation = run.data.hold_out(recipe.validation_images)
    counted = complexity(run.spec)
    batch = min(recipe.batch_size, len(train))
    per_epoch = len(batch_ends(len(train), recipe.batch_size))
    steps = total_steps(recipe, per_epoch)
    callers_threads, cuda = torch.get_num_threads(), [torch.device(device)] if device.startswith("cuda") else []
    with torch.random.fork_rng(devices=cuda), torch.backends.cudnn.flags(benchmark=False, deterministic=True):
        torch.set_num_threads(threads or callers_threads)
        try:
            if cuda:
                torch.cuda.reset_peak_memory_stats(device)
            trial = _Trial(run, device, workers)
            trained = 4 * sum(p.numel() for p in trial.net.parameters() if p.requires_grad)
            momentum = trained if recipe.momentum else 0
            memory = Memory(4 * counted.parameters, trained, momentum, batch * counted.training_bytes)
            trouble = trial.nondeterministic()
            timing = _timing(trial, batch, memory, steps, per_epoch)
        finally:
            torch.set_num_threads(callers_threads)
    if cuda and timing and timing.timed_images == batch:
        memory = replace(memory, measured_peak=torch.cuda.max_memory_allocated(device))
    default = Recipe().to_dict()
    rates, words = _learning_rates(recipe, steps)
    return DryRun(
        recipe=recipe.to_dict(),
        changed=tuple(k for k, v in recipe.to_dict().items() if v != default[k]),
        resolved={name: getattr(trial.recipe, name) for name in AUTO},
        folder=str(run.folder),
        state=summary(run.folder).state if run.folder.exists() else "new",
        network=run.spec.name,
        start=run.pretrained.note if run.pretrained else "",
        parameters=counted.parameters,
        multiply_adds=counted.multiply_adds,
        data=run.data.name,
        train_images=len(train),
        validation_images=len(validation),
        test_images=len(run.data.test),
        image=counted.input,
        steps_per_epoch=per_epoch,
        steps=steps,
        epochs=steps / per_epoch,
        learning_rates=rates,
        lr_words=words,
        memory=memory,
        timing=timing,
        nondeterministic=trouble,
        device=device,
        threads=threads or callers_threads,
    )


class _Trial:
    """What a few steps need: network, optimiser and batches, as the training loop has them."""

    def __init__(self, run: Run, device: str, workers: int):
        self.run, self.device = run, device
        self.data = TrainingData.of(run, device)
        self.recipe = run.recipe.override(**resolved(run.recipe, run.spec, device))
        # On a GPU each number of images that is tried would be compiled for.
        recipe = self.recipe if device == "cpu" else self.recipe.override(compile=False)
        self.net = first_network(run, recipe, device)
        self.stepper = make_stepper(self.net, recipe, device)
        channels = run.spec.in_channels
        self.loader = make_loader(
            run,
            # Subtracting any mean takes as long as subtracting the right one, which may have to be measured.
            Normalisation(torch.full((channels, 1, 1), 0.5), torch.ones(channels, 1, 1)),
            device=device,
            workers=workers,
            unreadables=BadImages(skip=True, limit=len(run.data.train)),
        )

    def seconds(self, images: int, *, steps: int, before: int = 0) -> float:
        """What a step of so many images takes, its batch included, after some that are not counted."""
        self.stepper.train()
        with contextlib.closing(self._batches(images)) as batches:
            for step in range(before + steps):
                if step == before:
                    self._wait()
                    started = time.perf_counter()
                batch = next(batches)
                self.stepper(
                    batch._replace(x=self.stepper.laid_out(batch.x)), 0.0
                )  # a rate of 0 takes as long and can't blow up
            self._wait()
        return (time.perf_counter() - started) / steps

    def _batches(self, images: int) -> Generator[Batch, None, None]:
        for epoch in itertools.count():
            none = True
            for batch in self.loader.training(self.data.train, images, self.run.recipe.seed, epoch):
                none = False
                yield batch
            if none:
                raise UserError(f"{self.run.data.name}: no batch of {images} has two readable images.")

    def evaluation(self, images: int) -> float:
        """Seconds that evaluating one image takes."""
        some = self.data.test[torch.arange(min(images, len(self.data.test)))]
        for _ in range(2):  # the first is left out
            started = time.perf_counter()
            accuracy(self.net, self.loader.evaluation(some, images))
            self._wait()
        return (time.perf_counter() - started) / len(some)

    def nondeterministic(self) -> tuple[str, ...]:
        """Operations of a training step of which torch knows that they do not repeat themselves on this device."""
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

    def _wait(self) -> None:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize(self.device)


def _timing(trial: _Trial, batch: int, memory: Memory, steps: int, per_epoch: int) -> Timing | None:
    """Time a few steps, the first left out, of as many images as fit and do not take too long."""
    share = 0.9 if trial.device.startswith("cuda") else SHARE_OF_MEMORY
    room = share * free_memory(trial.device) - (memory.total - memory.activations)
    fits = int(room * batch / memory.activations)
    images = min(batch, fits, FIRST_BATCH)
    if images < 2:
        return None
    try:
        swift = int(SECONDS_A_STEP * images / trial.seconds(images, steps=1, before=1))
        images = min(batch, fits, max(2, swift))
        seconds = trial.seconds(images, steps=TIMED_STEPS, before=1)
        evaluating = trial.evaluation(images) * (len(trial.run.data.test) + trial.run.recipe.validation_images)
    except Exception as error:
        if isinstance(error, UserError) or not out_of_memory(error):
            raise
        return None
    speed, evaluations = images / seconds, math.ceil(steps / per_epoch)
    return Timing(images, batch / speed, speed, steps * batch / speed, evaluations * evaluating)


def free_memory(device: str) -> int:
    """Bytes that are free: of the GPU, or of this machine and of the container that this process is in."""
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0]
    free = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free.append(1024 * int(next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))))
    with contextlib.suppress(OSError, ValueError):  # ValueError: "max", for no limit
        limit, used = (int(Path(f"/sys/fs/cgroup/memory.{name}").read_text()) for name in ("max", "current"))
        free.append(limit - used)
    return min(free)


def _learning_rates(recipe: Recipe, steps: int) -> tuple[tuple[tuple[int, float], ...], str]:
    """The rate at the start, after the warm-up and where the schedule changes it, and what is not known before."""
    words = []
    warm = 0 if recipe.warmup == "none" else recipe.warmup_steps
    points = {0, min(warm, steps - 1), steps - 1}
    if recipe.schedule == "multistep":
        points |= {round(m * steps) for m in recipe.milestones}
    elif recipe.schedule == "plateau":
        words.append(
            f"multiplied by {recipe.lr_drop:g} after {recipe.patience} evaluations without a lower "
            f"{'validation' if recipe.validation_images else 'training'} error"
        )
    elif recipe.schedule != "constant":
        points |= {warm + round(share * (steps - warm)) for share in (0.25, 0.5, 0.75) if warm < steps}
        if recipe.schedule == "onecycle":
            points.add(warm + round(ONECYCLE_RISE * (steps - warm)))
    if recipe.warmup == "train_error":
        limit = f", for at most {recipe.warmup_steps} steps" if recipe.warmup_steps else ""
        words.append(f"{recipe.warmup_lr:g} until the training error is below {recipe.warmup_error:g} %{limit}")
    if warm >= steps and recipe.warmup != "train_error":
        words.append(f"the warm-up of {warm:,} steps is not shorter than the run")
    rates = []
    for step in sorted(p for p in points if 0 <= p < steps):
        state = ScheduleState(warm_since=None if step == 0 else warm)
        rates.append((step, learning_rate(recipe, step, steps, state)))
    return tuple(rates), "; ".join(words)
