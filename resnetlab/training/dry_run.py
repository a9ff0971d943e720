"""A dry run: the recipe, length, memory and time of a run, before it starts, even if its data is absent."""

from __future__ import annotations

import contextlib
import math
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from resnetlab.data.images import Data, Images
from resnetlab.data.loading import batch_ends
from resnetlab.data.open import known_counts
from resnetlab.errors import UserError, counted, out_of_memory
from resnetlab.measuring.complexity import Complexity, complexity
from resnetlab.measuring.load import other_work
from resnetlab.nets.zoo import spec as named_spec
from resnetlab.training.finetune import read_pretrained
from resnetlab.training.layer_groups import check_layer_groups
from resnetlab.training.muon import check_muon
from resnetlab.training.optimiser import tensors_per_weight
from resnetlab.training.precision import AUTO
from resnetlab.training.recipe import Recipe
from resnetlab.training.run import Run
from resnetlab.training.runs import summary
from resnetlab.training.schedule import ONECYCLE_RISE, ScheduleState, learning_rate, total_steps, unfinished_warmup
from resnetlab.training.trial import Trial, flat, settings_kept

TIMED_STEPS = 5
FIRST_BATCH = 4  # images in the steps that are tried first
SECONDS_A_STEP = 4.0  # the timed steps use fewer images if a whole batch would take longer
SHARE_OF_MEMORY = 0.4  # of the free memory of this machine that the timed steps may use


@dataclass(frozen=True)
class Memory:
    """An estimate of the bytes that a process holds at once in training, in float32, without libraries and images."""

    parameters: int
    gradients: int
    momentum: int
    activations: int  # kept for the backward pass from the forward pass of a batch, or of one of its parts
    average: int = 0  # of the weights, if the recipe has one
    measured_peak: int | None = None  # on a GPU: the peak of allocated memory in steps of a whole batch

    @property
    def total(self) -> int:
        """The sum of the estimates."""
        return self.parameters + self.gradients + self.momentum + self.activations + self.average


@dataclass(frozen=True)
class Timing:
    """The times of a few real steps, and of the run at that speed."""

    timed_images: int  # in each timed step; fewer than a batch if a batch would not fit or would take too long
    seconds_a_step: float  # of a whole batch, or of a process's share of it
    images_per_second: float  # of one process
    training_seconds: float | None  # all steps; None if their number is not known
    evaluation_seconds: float | None  # all evaluations; None if the number of images is not known
    busy_cores: float | None = None  # that other work took just before, if that makes these times too long


@dataclass(frozen=True)
class DryRun:
    """What a run would be; nothing is written."""

    recipe: dict[str, Any]
    changed: tuple[str, ...]  # fields that are not at their default
    resolved: dict[str, Any]  # the values of `auto` on this machine, or where the run started
    folder: str
    state: str  # of that folder: "new", or its state in `runs`
    network: str
    start: str  # what is kept of the source that the run starts from, if any
    parameters: int
    multiply_adds: int  # for one image
    data: str
    train_images: int | None  # None, here and below, if the data is absent and its size is not known
    validation_images: int | None
    test_images: int | None
    image: tuple[int, int, int]  # C H W, as the network receives it
    steps_per_epoch: int | None
    steps: int | None
    epochs: float | None
    learning_rates: tuple[tuple[int, float], ...]  # (step, lr) at the start and where it changes
    lr_words: str  # changes of the rate that depend on more than the step
    memory: Memory
    timing: Timing | None  # None if no batch fits
    nondeterministic: tuple[str, ...]  # operations that keep the run from being reproducible to the last bit
    device: str
    threads: int
    missing: str = ""  # why the data can't be opened, if it is absent
    unknown: tuple[str, ...] = ()  # what can't be said without it

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self) | {"memory": asdict(self.memory) | {"total": self.memory.total}}


def dry_run(
    run: Run,
    *,
    device: str = "cpu",
    threads: int | None = None,
    workers: int = 0,
    stand_in: StandIn | None = None,
    ranks: int = 1,
) -> DryRun:
    """Describe what a run would be, after a few real steps; its folder is neither made nor touched.

    stand_in: what is known of absent data, in place of which `run` has made-up images. ranks: the number of processes
    that share each batch, of which this one tries its own share.
    The random state and the number of threads are left as they were.
    """
    recipe, counted, size = run.recipe, complexity(run.spec), _size(run, stand_in, ranks)
    batch = math.ceil(min(recipe.batch_size, size.train or recipe.batch_size) / ranks)
    cuda = device.startswith("cuda")
    with settings_kept(device, threads):
        if cuda:
            torch.cuda.reset_peak_memory_stats(device)
        # Any mean takes as long to subtract as the right one, which may have to be measured first.
        trial = Trial(run, flat(run.spec.in_channels), device=device, workers=workers)
        memory = _memory(trial, recipe, counted, batch)
        trouble = trial.nondeterministic()
        timing = _timing(trial, batch, memory, size, ranks)
        threads = torch.get_num_threads()
    if cuda and timing and timing.timed_images == batch:
        memory = replace(memory, measured_peak=torch.cuda.max_memory_allocated(device))
    default = Recipe().to_dict()
    rates, words = _learning_rates(recipe, size.steps) if size.steps else ((), "depends on the length of the run")
    return DryRun(
        recipe=recipe.to_dict(),
        changed=tuple(k for k, v in recipe.to_dict().items() if v != default.get(k)),
        resolved={name: getattr(trial.recipe, name) for name in AUTO},
        folder="" if stand_in else str(run.folder),
        state="unknown" if stand_in else summary(run.folder).state if run.folder.exists() else "new",
        network=run.spec.name,
        start=run.pretrained.note if run.pretrained else "",
        parameters=counted.parameters,
        multiply_adds=counted.multiply_adds,
        data=run.data.title,
        train_images=size.train,
        validation_images=size.held_out,
        test_images=size.test,
        image=counted.input,
        steps_per_epoch=size.steps_per_epoch,
        steps=size.steps,
        epochs=size.steps / size.steps_per_epoch if size.steps and size.steps_per_epoch else None,
        learning_rates=rates,
        lr_words=words,
        memory=memory,
        timing=timing,
        nondeterministic=trouble,
        device=device,
        threads=threads,
        missing=stand_in.missing if stand_in else "",
        unknown=tuple(stand_in.unknown()) if stand_in else (),
    )


@dataclass(frozen=True)
class _Size:
    """Images and steps of a run; None if its data is absent and they are not known."""

    train: int | None
    test: int | None
    held_out: int | None
    steps_per_epoch: int | None
    steps: int | None


def _size(run: Run, stand_in: StandIn | None, ranks: int) -> _Size:
    recipe = run.recipe
    train: int | None
    if stand_in:
        train, test, held_out = stand_in.train, stand_in.test, stand_in.held_out
    else:
        kept, validation = run.data.hold_out(recipe.validation_images)
        train, test, held_out = len(kept), len(run.data.test), len(validation)
    if train is None:
        return _Size(None, test, held_out, None, recipe.iterations)
    per_epoch = len(batch_ends(train, recipe.batch_size, 2 * ranks))
    return _Size(train, test, held_out, per_epoch, total_steps(recipe, per_epoch))


def _memory(trial: Trial, recipe: Recipe, counted: Complexity, batch: int) -> Memory:
    trained = 4 * sum(p.numel() for p in trial.net.parameters() if p.requires_grad)
    weights, part = 4 * counted.parameters, math.ceil(batch / max(1, min(recipe.accumulate, batch // 2)))
    return Memory(
        parameters=weights,
        gradients=trained,
        momentum=trained * tensors_per_weight(recipe),
        activations=part * counted.training_bytes,
        average=weights if recipe.ema else 0,
    )


def _timing(trial: Trial, batch: int, memory: Memory, size: _Size, ranks: int) -> Timing | None:
    """Time a few steps, after one that is not counted, with as many images as fit and do not take too long."""
    share = 0.9 if trial.device.startswith("cuda") else SHARE_OF_MEMORY
    room = share * free_memory(trial.device) - (memory.total - memory.activations)
    fits = int(room * batch / memory.activations)
    images = min(batch, fits, FIRST_BATCH)
    if images < 2:
        return None
    busy = other_work()  # before the steps: during them, this run's own processes for loading and compiling would count
    try:
        swift = int(SECONDS_A_STEP * images / trial.seconds(images, steps=1, before=1))
        images = min(batch, fits, max(2, swift))
        seconds = trial.seconds(images, steps=TIMED_STEPS, before=1)
        evaluating = trial.evaluation(images)
    except Exception as error:
        if isinstance(error, UserError) or not out_of_memory(error):
            raise
        return None
    speed = images / seconds
    training = size.steps * batch / speed if size.steps else None
    evaluation = None
    if size.steps and size.steps_per_epoch and size.test is not None:
        evaluated = (size.test + (size.held_out or 0)) / ranks
        evaluation = math.ceil(size.steps / size.steps_per_epoch) * evaluated * evaluating
    return Timing(images, batch / speed, speed, training, evaluation, busy)


def free_memory(device: str) -> int:
    """Free bytes of the GPU, or of this machine and the container that this process runs in."""
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
    """The rate at the start, after the warm-up and where the schedule changes it, and what is not known in advance."""
    words = []
    warm = 0 if recipe.warmup == "none" else recipe.warmup_steps
    points = {0, min(warm, steps - 1), steps - 1}
    if recipe.schedule == "multistep":
        points |= {round(m * steps) for m in recipe.milestones}
    elif recipe.schedule == "plateau":
        words.append(
            f"multiplied by {recipe.lr_drop:g} after {counted(recipe.patience, 'evaluation')} without a lower "
            f"{'validation' if recipe.validation_images or recipe.validation_share else 'training'} error"
        )
    elif recipe.schedule != "constant":
        points |= {warm + round(share * (steps - warm)) for share in (0.25, 0.5, 0.75) if warm < steps}
        if recipe.schedule == "onecycle":
            points.add(warm + round(ONECYCLE_RISE * (steps - warm)))
    if recipe.warmup == "train_error":
        limit = f", for at most {counted(recipe.warmup_steps, 'step')}" if recipe.warmup_steps else ""
        words.append(f"{recipe.warmup_lr:g} until the training error is below {recipe.warmup_error:g} %{limit}")
    if unfinished := unfinished_warmup(recipe, steps):
        words.append(unfinished)
    rates = []
    for step in sorted(p for p in points if 0 <= p < steps):
        state = ScheduleState(warm_since=None if step == 0 else warm)
        rates.append((step, learning_rate(recipe, step, steps, state)))
    return tuple(rates), "; ".join(words)


@dataclass(frozen=True)
class StandIn:
    """A run on made-up images, and what is known of the real ones: None if only the data would tell."""

    run: Run
    missing: str  # why the data can't be opened, in a line
    train: int | None  # images
    test: int | None
    held_out: int | None
    classes: int | None

    def unknown(self) -> list[str]:
        """What is unknown without the data."""
        lines = ["the run's folder"]
        if self.train is None:
            lines.append("the number of images")
            lines += [] if self.run.recipe.iterations else ["the length of the run"]
        if self.classes is None:
            lines.append(f"the number of classes ({self.run.spec.num_classes} are assumed)")
        if self.run.pretrained:
            lines.append("whether the head is kept")
        return lines


def stand_in(recipe: Recipe, root: Path, missing: UserError) -> StandIn:
    """The run of a recipe whose data is absent, as `missing` says. Raises UserError for faults of the recipe itself."""
    known = known_counts(recipe.data)
    spec = named_spec(recipe.net) if recipe.net else None
    channels, size, _ = known.shape if known and known.shape else (3, recipe.image_size or 0, 0)
    names = tuple(map(str, range(known.classes if known else spec.num_classes if spec else 2)))
    pretrained = None
    if recipe.start:
        pretrained = read_pretrained(recipe, _made_up(recipe, (channels, size or 8, size or 8), names))
        pretrained = replace(pretrained, note=f"{pretrained.spec.name or 'a network'} from {recipe.start}")
        spec = pretrained.spec
    assert spec is not None  # a recipe without a network has a start
    side = size or spec.input_size
    fitted = replace(spec, in_channels=channels, num_classes=len(names), input_size=side)
    check_layer_groups(recipe, fitted)
    check_muon(recipe, fitted)
    train = known.train if known else None
    held_out = recipe.validation_images
    if recipe.validation_share and train is not None:
        held_out = max(1, round(recipe.validation_share * train))
    return StandIn(
        Run(fitted, recipe, _made_up(recipe, (channels, side, side), names), root, pretrained),
        str(missing),
        None if train is None else train - held_out,
        known.test if known else None,
        None if recipe.validation_share and train is None else held_out,
        known.classes if known else None,
    )


def _made_up(recipe: Recipe, shape: tuple[int, int, int], classes: tuple[str, ...]) -> Data:
    """A batch that repeats one image, which takes the memory of one; training and test images are the same."""
    pixels = torch.randint(0, 256, (1, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    count = recipe.batch_size
    images = Images(pixels.expand(count, *shape), torch.arange(count) % len(classes))
    return Data(recipe.data.partition(":")[0], images, images, classes, "made up")
