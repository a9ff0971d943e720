"""The training loop: a generator that trains a run and yields how it goes; it resumes by itself."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import math
import os
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resnetlab.data.files import Files
from resnetlab.data.images import Images
from resnetlab.data.loading import Augmentation, Loader, batch_ends, measure
from resnetlab.data.normalisation import NORMALISATIONS, Normalisation, imagenet
from resnetlab.data.seeds import seed_of
from resnetlab.data.streaming import Unreadables
from resnetlab.errors import UserError
from resnetlab.measuring.accuracy import accuracy
from resnetlab.nets.net import ResNet
from resnetlab.nets.vgg import VGG
from resnetlab.nets.zoo import build
from resnetlab.training.checkpoint import (
    Card,
    Progress,
    load_checkpoint,
    save_best,
    save_checkpoint,
)
from resnetlab.training.recipe import Recipe
from resnetlab.training.run import RESULT_KEYS, Run, disk_errors, locked, open_folder, write_atomically
from resnetlab.training.schedule import (
    ScheduleState,
    after_evaluation,
    after_step,
    learning_rate,
    needs_batch_error,
)
from resnetlab.training.step import make_optimiser, training_step

EVALUATION_BATCH = 500
EPOCH_KEYS = ("epoch", "step", "train_error", "test_error")
LOG_STEPS = 100  # a line of metrics and a sign of life every so many steps


@dataclass(frozen=True)
class Status:
    """How a run goes, yielded every LOG_STEPS steps and at the end of each epoch."""

    epochs_done: int  # whole ones
    step: int
    steps: int  # in all
    lr: float
    train_error: float  # %, over the epoch's batches so far
    test_error: float | None  # %, after the last whole epoch
    images_per_second: float


def train(run: Run, *, device: str = "cpu", threads: int | None = None, workers: int = 0) -> Iterator[Status]:
    """Train the run to its end, from where it stands; yields a Status now and then.

    Nothing is done if it is finished. The weights follow from the run to the last bit, on one machine and
    with one number of threads, which the run keeps from its start; interrupted, it goes on from the last
    whole epoch with the same outcome as an unbroken run. `workers` processes decode images of files ahead, which
    changes no outcome. Afterwards `run.result()` holds the errors.
    Raises UserError for a folder of another version, a damaged checkpoint, a full disk, or a loss that is
    not finite.
    """
    settings = open_folder(run, threads or torch.get_num_threads(), device)
    if run.result() is not None:
        return
    with locked(run.folder), contextlib.closing(_to_the_end(run, device, workers)) as statuses:
        yield from _undisturbed(statuses, settings["threads"], device)


def _to_the_end(run: Run, device: str, workers: int) -> Generator[Status, None, None]:
    sitting = _sit_down(run, device, workers)
    with sitting.metrics.file:
        while sitting.progress.step < sitting.steps:
            yield from _epoch(sitting)
    _finish(run, sitting.progress)


def _undisturbed(statuses: Iterator[Status], threads: int, device: str) -> Iterator[Status]:
    """The same statuses, with settings of torch that are the run's own while it works and the caller's between.

    What a caller draws, or trains beside, between two statuses must not change a run. Sums come out in another
    order with another number of threads.
    """
    cuda = [torch.device(device)] if device.startswith("cuda") else []
    own: list[Tensor] = []  # the run's random state, of the processor and of its GPU
    while True:
        callers_threads = torch.get_num_threads()
        with torch.random.fork_rng(devices=cuda), torch.backends.cudnn.flags(benchmark=False, deterministic=True):
            torch.set_num_threads(threads)
            if own:
                torch.set_rng_state(own[0])
                for state, where in zip(own[1:], cuda, strict=True):
                    torch.cuda.set_rng_state(state, where)
            try:
                status = next(statuses, None)
            finally:
                own = [torch.get_rng_state(), *(torch.cuda.get_rng_state(where) for where in cuda)]
                torch.set_num_threads(callers_threads)
        if status is None:
            return
        yield status


class Metrics:
    """metrics.jsonl: one line per evaluation and per logged step, without times, so that a run repeats it."""

    def __init__(self, folder: Path, length: int, epochs: int):
        path = folder / "metrics.jsonl"
        with disk_errors(folder):
            path.touch()
            if path.stat().st_size < length:
                raise UserError(f"{path}: shorter than its checkpoint says; move {folder} away to start the run again.")
            os.truncate(path, length)  # what was logged after the checkpoint that is resumed
            if len(epochs_of(folder)) != epochs:
                raise UserError(f"{path}: damaged, it should hold {epochs} epochs; move {folder} away to start anew.")
            self.file = path.open("ab", buffering=0)  # a failed write must not be tried again when the file closes
        self.folder = folder
        self.length = length

    def write(self, line: dict[str, Any]) -> None:
        content = json.dumps(line).encode() + b"\n"
        with disk_errors(self.folder):
            if self.file.write(content) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.length += len(content)


@dataclass
class _Sitting:
    """One sitting at a run: what the loop holds between its start or resumption and its end or interruption."""

    run: Run
    device: str
    net: ResNet | VGG
    optimiser: torch.optim.SGD
    card: Card
    train: Images | Files
    validation: Images | Files
    test: Images | Files
    loader: Loader
    progress: Progress
    schedule: ScheduleState
    metrics: Metrics
    per_epoch: int  # steps
    steps: int  # in all
    test_error: float | None = None  # %, after the last whole epoch


def _sit_down(run: Run, device: str, workers: int) -> _Sitting:
    """Build what the run needs, and put its last checkpoint into it if there is one."""
    recipe = run.recipe
    train_images, validation = run.data.hold_out(recipe.validation_images)
    normalise = normalisation_of(run, workers=workers)
    net = build(run.spec, seed=recipe.seed).to(device)
    if recipe.channels_last:
        for parameter in net.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    optimiser = make_optimiser(net, recipe)
    progress, schedule = load_checkpoint(run.folder, net, optimiser) or (Progress(), ScheduleState())
    per_epoch = len(batch_ends(len(train_images), recipe.batch_size))
    return _Sitting(
        run=run,
        device=device,
        net=net,
        optimiser=optimiser,
        card=Card(run.spec, run.data.classes, normalise, recipe.to_dict()),
        train=_placed(train_images, device),
        validation=_placed(validation, device),
        test=_placed(run.data.test, device),
        loader=Loader(
            normalise=normalise.to(device),
            classes=len(run.data.classes),
            size=run.spec.input_size,
            augmentation=Augmentation(**{f.name: getattr(recipe, f.name) for f in fields(Augmentation)}),
            device=device,
            workers=workers,
            unreadables=Unreadables(recipe.unreadable == "skip", recipe.unreadable_limit),
        ),
        progress=progress,
        schedule=schedule,
        metrics=Metrics(run.folder, progress.metrics_bytes, progress.epoch),
        per_epoch=per_epoch,
        steps=total_steps(recipe, per_epoch),
    )


def _placed(images: Images | Files, device: str) -> Images | Files:
    """Images on the device, where they stay; files as they are."""
    return images.to(device) if isinstance(images, Images) else images


def normalisation_of(
    run: Run, *, workers: int = 0, progress: Callable[[int, int], object] = lambda *_: None
) -> Normalisation:
    """What a run's images are normalised by, which may have to be measured; see `data.loading.measure`."""
    if run.recipe.normalise == "imagenet":
        return imagenet(run.spec.in_channels)
    images, _ = run.data.hold_out(run.recipe.validation_images)
    found = measure(images, run.spec.input_size, workers=workers, progress=progress)
    return NORMALISATIONS[run.recipe.normalise](found)


def _epoch(s: _Sitting) -> Iterator[Status]:
    """Train for an epoch (or what is left of the run), evaluate, log, and write the checkpoint."""
    recipe, progress, folder = s.run.recipe, s.progress, s.run.folder
    started, epoch = time.perf_counter(), progress.epoch
    torch.manual_seed(seed_of("dropout and the like", recipe.seed, epoch))
    s.loader.unreadables.count = 0
    batches = s.loader.training(s.train, recipe.batch_size, recipe.seed, epoch)
    sums = torch.zeros(2, dtype=torch.float64, device=s.device)  # loss, wrong
    seen = 0

    def so_far() -> tuple[dict[str, float], Status]:
        """The epoch's means as metrics and as status; reading them waits for the device."""
        loss, wrong = (sums / seen).tolist()
        speed = seen / (time.perf_counter() - started)
        status = Status(progress.epoch, progress.step, s.steps, lr, 100 * wrong, s.test_error, speed)
        return {"step": progress.step, "lr": lr, "train_loss": loss, "train_error": 100 * wrong}, status

    s.net.train()
    for batch in itertools.islice(batches, s.steps - progress.step):
        lr = learning_rate(recipe, progress.step, s.steps, s.schedule)
        loss, wrong = training_step(s.net, s.optimiser, batch._replace(x=_laid_out(batch.x, recipe)), lr)
        if needs_batch_error(recipe, s.schedule):
            after_step(recipe, progress.step, 100 * int(wrong) / len(batch.labels), s.schedule)
        sums += torch.stack([loss, wrong]).double()
        seen += len(batch.labels)
        progress.step += 1
        if progress.step % LOG_STEPS == 0:
            line, status = so_far()
            s.metrics.write(line)
            yield status

    if not seen:
        raise UserError(f"{folder}: no batch of {recipe.batch_size} has two images that can be read; see its data.")
    line, _ = so_far()
    if not math.isfinite(line["train_loss"]):
        raise UserError(
            f"{folder}: the loss is no longer finite in epoch {epoch + 1} (lr {lr:g}); lower lr or lengthen the "
            "warm-up. The checkpoint of the epoch before is kept."
        )
    line = {"epoch": epoch + 1} | line | _evaluate(s)
    after_evaluation(recipe, line.get("validation_error", line["train_error"]), s.schedule)
    s.test_error = line["test_error"]
    progress.epoch = epoch + 1
    progress.seconds += time.perf_counter() - started
    s.metrics.write(line)
    progress.metrics_bytes = s.metrics.length
    with disk_errors(folder):
        chosen = line.get("validation_error", line["test_error"])
        if chosen < progress.best_error:
            progress.best_error = chosen
            save_best(folder, s.net, s.card)
        save_checkpoint(folder, s.net, s.optimiser, s.card, progress, s.schedule)
    yield so_far()[1]


def _laid_out(x: Tensor, recipe: Recipe) -> Tensor:
    """The batch in the recipe's memory layout."""
    return x.contiguous(memory_format=torch.channels_last if recipe.channels_last else torch.contiguous_format)


def _evaluate(s: _Sitting) -> dict[str, float]:
    """Loss and error (%) of the test images and, if any are held out, of the validation images.

    Of files also how many could not be read, in this epoch's training and here.
    """
    line: dict[str, float] = {}
    for name, images in (("test", s.test), ("validation", s.validation)):
        if len(images):
            batches = s.loader.evaluation(images, evaluation_batch(images))
            try:
                found = accuracy(s.net, ((_laid_out(x, s.run.recipe), labels) for x, labels in batches))
            except UserError:
                raise
            except ValueError as error:  # of no images
                raise UserError(f"{s.run.recipe.data}: not one {name} image can be read; see its data.") from error
            line |= {f"{name}_loss": found.loss, f"{name}_error": found.error}
    if isinstance(s.train, Files):
        line["unreadable"] = s.loader.unreadables.count
    return line


def evaluation_batch(images: Images | Files) -> int:
    """How many images are evaluated at once; files are large."""
    return EVALUATION_BATCH if isinstance(images, Images) else EVALUATION_BATCH // 10


def total_steps(recipe: Recipe, per_epoch: int) -> int:
    """Steps of a whole run."""
    if recipe.iterations is not None:
        return recipe.iterations
    assert recipe.epochs is not None
    return max(1, round(recipe.epochs * per_epoch))


def _finish(run: Run, progress: Progress) -> None:
    """Write result.json, which says that the run is finished: errors in %, of the last epoch."""
    last = epochs_of(run.folder)[-1]
    errors = (last["train_error"], last["test_error"], progress.best_error)
    values = (*errors, progress.epoch, progress.step, round(progress.seconds, 2))
    result = dict(zip(RESULT_KEYS, values, strict=True))
    with disk_errors(run.folder):
        write_atomically(run.folder / "result.json", (json.dumps(result, indent=1) + "\n").encode())


def epochs_of(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics that end an epoch. Raises UserError if the file is damaged."""
    path = folder / "metrics.jsonl"
    try:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        epochs = [line for line in lines if "epoch" in line]
        if not all(isinstance(line[key], int | float) for line in epochs for key in EPOCH_KEYS):
            raise ValueError("an epoch without its errors")
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(f"{path}: damaged ({error}); move {folder} away to start the run again.") from error
    return epochs
