"""The training loop: a generator that trains a run and yields how it goes; it resumes by itself."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from resnetlab.data.files import Files
from resnetlab.data.images import Images
from resnetlab.errors import UserError, dead_worker, out_of_memory
from resnetlab.measuring.accuracy import accuracy
from resnetlab.nets.fusing import fused_evaluation
from resnetlab.run_files import RESULT, Result, last_epoch
from resnetlab.storage import disk_errors, locked, write_atomically
from resnetlab.training.averaging import reestimate
from resnetlab.training.checkpoint import Progress, save_best
from resnetlab.training.distributed import LOCK_PATIENCE, Ranks, align_buffers
from resnetlab.training.precision import as_started, autocast
from resnetlab.training.recipe import Recipe
from resnetlab.training.run import Run, open_folder
from resnetlab.training.schedule import after_evaluation, after_step, learning_rate, needs_batch_error
from resnetlab.training.signals import Stop, Stopped
from resnetlab.training.sitting import (
    Sitting,
    begin_epoch,
    check_loss,
    check_weights,
    checkpoint,
    due,
    end_epoch,
    no_memory,
    sit_down,
    unfinished,
)

EVALUATION_BATCH = 500
LOG_STEPS = 100  # a line of metrics every so many steps
STATUS_SECONDS = 5  # a sign of life at least so often, while steps are not longer


@dataclass(frozen=True)
class Status:
    """How a run goes: yielded every LOG_STEPS steps or STATUS_SECONDS, before evaluation, and at an epoch's end."""

    epochs_done: int  # whole ones
    step: int
    steps: int  # in all
    lr: float
    train_error: float  # %, over the epoch's batches so far
    test_error: float | None  # %, after the last whole epoch
    images_per_second: float
    next: Literal["training", "evaluating"] = "training"


def train(
    run: Run,
    *,
    device: str = "cpu",
    threads: int | None = None,
    workers: int = 0,
    checkpoint_steps: int | None = None,
    stop: Stop | None = None,
    ranks: Ranks | None = None,
) -> Iterator[Status]:
    """Train the run to its end, from where it stands; yields a Status now and then.

    Nothing is done if it is finished. The weights follow from the run to the last bit, on one machine and
    with one number of threads, which the run keeps from its start; interrupted, it goes on from the last
    checkpoint with the same outcome as an unbroken run. One is written after every epoch and within it every
    `checkpoint_steps` steps or, by default, ten minutes. `workers` processes decode images of files ahead. None of
    that changes an outcome. `ranks`: the processes that train the run together, each of which calls this with its
    own (`distributed.joined`); only the first reads and writes the folder. With another number of them than before
    a run goes on as well, but ends with other bits. Afterwards `run.result()` holds the errors.
    Raises UserError for a folder of another version, damaged checkpoints, a full disk, too little memory, or a loss
    that is not finite; and Stopped, with the last step saved, once `stop` is asked to.
    """
    if checkpoint_steps is not None and checkpoint_steps < 1:
        raise UserError(f"checkpoint_steps={checkpoint_steps} must be 1 or more.")
    ranks = ranks or Ranks()
    threads = threads or torch.get_num_threads()
    settings = ranks.from_first(lambda: open_folder(run, threads, device, ranks.ranks))
    if ranks.from_first(run.result) is not None:
        return
    lock = locked(run.folder, LOCK_PATIENCE if ranks.ranks > 1 else 0) if ranks.first else contextlib.nullcontext()
    recipe = as_started(run.recipe, settings.get("resolved", {}))
    statuses = _to_the_end(run, recipe, device, workers, checkpoint_steps, stop or Stop(), ranks)
    with lock, contextlib.closing(statuses):
        try:
            yield from _undisturbed(statuses, settings["threads"], device)
        except RuntimeError as error:
            if words := dead_worker(error):
                raise UserError(f"{run.folder}: {words}.") from error
            raise


def _to_the_end(
    run: Run, recipe: Recipe, device: str, workers: int, checkpoint_steps: int | None, stop: Stop, ranks: Ranks
) -> Generator[Status, None, None]:
    sitting = sit_down(run, recipe, device, workers, checkpoint_steps, stop, ranks)
    with sitting.metrics.file:
        while unfinished(sitting):
            yield from _epoch(sitting)
    if ranks.first:
        _finish(run, sitting.progress)
    ranks.wait()


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


def _epoch(s: Sitting) -> Iterator[Status]:
    """Train for an epoch, what is left of it or of the run; evaluate, log, and write the checkpoint."""
    progress, folder = s.progress, s.run.folder
    begin_epoch(s)
    stepping = True
    try:
        yield from _steps(s)
        stepping = False
        if not s.share.seen:
            size = s.recipe.batch_size
            raise UserError(f"{folder}: no batch of {size} has two readable images; check its data.")
        line = _so_far(s)
        check_weights(s)
        yield _status(s, line, "evaluating")
        with s.stepper.evaluated():
            _reestimate(s)
            line = {"epoch": progress.epoch + 1} | line | _evaluate(s)
    except Stopped as stopped:
        if progress.step > s.saved_step:
            checkpoint(s)
        s.ranks.wait()  # for the first one to save: when one has ended, torchrun ends the others
        stopped.step = progress.step
        raise
    except Exception as error:
        if isinstance(error, UserError) or not (words := out_of_memory(error)):
            raise
        if not stepping and s.ranks.ranks == 1 and progress.step > s.saved_step:
            checkpoint(s)  # a step that failed has changed batch norm's statistics; an evaluation changes nothing
        raise no_memory(s, words, stepping=stepping) from error
    after_evaluation(s.recipe, line.get("validation_error", line["train_error"]), s.schedule)
    s.test_error = line["test_error"]
    s.metrics.write(line)
    end_epoch(s)
    chosen = line.get("validation_error", line["test_error"])
    progress.waited += 1
    if chosen < progress.best_error:
        progress.best_error, progress.waited = chosen, 0
        if s.ranks.first:
            with disk_errors(folder), s.stepper.evaluated() as net:
                save_best(folder, net, s.card)
    checkpoint(s)
    yield _status(s, line)


def _steps(s: Sitting) -> Iterator[Status]:
    """The epoch's steps from `progress.position` on. Raises Stopped between two of them."""
    recipe, progress, share = s.recipe, s.progress, s.share
    own = s.loader.training(s.train, recipe.batch_size, recipe.seed, progress.epoch, start=progress.position)
    batches = s.ranks.in_step(s.ranks.give_up(own, s.stop), lambda: due(s))
    alone = s.ranks.ranks == 1
    reported = time.monotonic()
    s.stepper.train()
    with contextlib.closing(own):  # which ends its workers
        while progress.step < s.steps:
            found = next(batches, None)
            if found is None:
                return
            batch, save = found
            s.lr = learning_rate(recipe, progress.step, s.steps, s.schedule)
            loss, wrong = s.stepper(batch._replace(x=_laid_out(batch.x, recipe)), s.lr)
            if needs_batch_error(recipe, s.schedule):
                mistakes, images = s.ranks.sums([int(wrong), len(batch.labels)])
                after_step(recipe, progress.step, 100 * mistakes / images, s.schedule)
            s.sums += torch.stack([loss, wrong, loss.isfinite()]).double()
            share.seen += len(batch.labels)
            s.seen += len(batch.labels)
            progress.step += 1
            progress.position, share.unreadable = batch.stop, s.loader.unreadables.count
            if s.device == "cpu":  # a GPU is not waited for after each step
                check_loss(s)
            log = progress.step % LOG_STEPS == 0
            if log:
                s.metrics.write(_so_far(s))
            if save:
                checkpoint(s)
            if log or (alone and time.monotonic() - reported > STATUS_SECONDS):
                reported = time.monotonic()
                yield _status(s, _so_far(s))


def _so_far(s: Sitting) -> dict[str, float]:
    """The epoch's means; reading them waits for the device. Raises UserError unless the loss is finite."""
    loss, wrong, images = s.ranks.sums([*check_loss(s), s.share.seen])
    loss, wrong = loss / images, wrong / images
    return {"step": s.progress.step, "lr": s.lr, "train_loss": loss, "train_error": 100 * wrong}


def _status(s: Sitting, line: dict[str, float], doing: Literal["training", "evaluating"] = "training") -> Status:
    progress = s.progress
    return Status(
        epochs_done=progress.epoch,
        step=progress.step,
        steps=s.steps,
        lr=s.lr,
        train_error=line["train_error"],
        test_error=s.test_error,
        images_per_second=s.seen * s.ranks.ranks / (time.perf_counter() - s.began),
        next=doing,
    )


def _laid_out(x: Tensor, recipe: Recipe) -> Tensor:
    """The batch in the recipe's memory layout."""
    return x.contiguous(memory_format=torch.channels_last if recipe.channels_last else torch.contiguous_format)


def _reestimate(s: Sitting) -> None:
    """After the last step, if the recipe says so: batch norm's statistics anew, over batches of the epoch to come."""
    recipe, progress = s.recipe, s.progress
    if recipe.bn_reestimate and progress.step == s.steps:
        batches = s.loader.training(s.train, recipe.batch_size, recipe.seed, progress.epoch + 1)
        with contextlib.closing(batches):
            some = s.ranks.give_up(itertools.islice(batches, recipe.bn_reestimate), s.stop)
            reestimate(s.net, (_laid_out(b.x, recipe) for b in some))
        s.loader.unreadables.count = s.share.unreadable  # these are not of the epoch that is counted


def _evaluate(s: Sitting) -> dict[str, float]:
    """Loss and error (%) of the test images and, if any are held out, of the validation images.

    Of files also how many could not be read, in this epoch's training and here. They are computed as the steps are,
    in the recipe's precision and with fused layers where it has them, but for the last time in float32 and layer by
    layer: what the run ends with is what a loaded network will be found to have.
    """
    line: dict[str, float] = {}
    last = s.progress.step == s.steps or s.recipe.stop_after  # which may end the run here
    precision = "fp32" if last or s.recipe.precision == "fp16" else s.recipe.precision
    align_buffers(s.net, s.ranks)
    for name, images in (("test", s.test), ("validation", s.validation)):
        if len(images):
            batches = s.loader.evaluation(images, evaluation_batch(images))
            try:
                waited = s.ranks.give_up(batches, s.stop)
                prepared = ((_laid_out(x, s.recipe), labels) for x, labels in waited)
                with autocast(precision, torch.device(s.device).type), fused_evaluation(not last):
                    found = accuracy(s.net, prepared, s.ranks.sums)
            except UserError:
                raise
            except ValueError as error:  # of no images
                raise UserError(f"{s.recipe.data}: none of the {name} images can be read; check its data.") from error
            line |= {f"{name}_loss": found.loss, f"{name}_error": found.error}
    if isinstance(s.train, Files):
        (count,) = s.ranks.sums([s.loader.unreadables.count])
        line["unreadable"] = int(count)
    return line


def evaluation_batch(images: Images | Files) -> int:
    """How many images are evaluated at once; files are large."""
    return EVALUATION_BATCH if isinstance(images, Images) else EVALUATION_BATCH // 10


def _finish(run: Run, progress: Progress) -> None:
    """Write result.json, which says that the run is finished: errors in %, of the last epoch."""
    last = last_epoch(run.folder)
    result = Result(
        train_error=last["train_error"],
        test_error=last["test_error"],
        best_error=progress.best_error,
        epochs=progress.epoch,
        steps=progress.step,
        seconds=round(progress.seconds, 2),
    )
    with disk_errors(run.folder):
        write_atomically(run.folder / RESULT, (json.dumps(result, indent=1) + "\n").encode())
