"""The training loop: in each epoch, a step for each batch; then evaluate, and save. Unfinished runs resume."""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch

from resnetlab.data.files import Files
from resnetlab.data.loading import evaluation_batch
from resnetlab.errors import UserError, check_counts, dead_worker
from resnetlab.machine import device_name, find_device, freed_memory_kept
from resnetlab.measuring.accuracy import accuracy
from resnetlab.nets.fusing import fused_evaluation
from resnetlab.run_files import RESULT, Result, last_epoch
from resnetlab.storage import disk_errors, locked, write_json
from resnetlab.training.averaging import reestimate
from resnetlab.training.checkpoint import RngState, TrainingProgress
from resnetlab.training.distributed import LOCK_PATIENCE, Distributed, align_buffers
from resnetlab.training.precision import as_started, autocast, on_threads, repeatable, rng_states, set_rng_states
from resnetlab.training.run import Run, as_begun, open_folder
from resnetlab.training.session import Job, TrainingSession
from resnetlab.training.setup import added_counts
from resnetlab.training.signals import Stop
from resnetlab.training.usual_torch import usual_torch

LOG_STEPS = 100  # steps from one logged line of metrics to the next
STATUS_SECONDS = 5  # a status is yielded at least this often, unless steps take longer
_log = logging.getLogger(__name__)
_AT_WORK = threading.RLock()  # torch has one random state for all threads, so trainings in several threads take turns


@dataclass(frozen=True)
class Status:
    """How a run goes: yielded every LOG_STEPS steps or STATUS_SECONDS, before evaluation, and at an epoch's end."""

    epochs_done: int  # complete ones
    step: int
    steps: int  # in all
    lr: float
    train_error: float  # %, over the epoch's batches so far
    test_error: float | None  # %, after the last complete epoch
    images_per_second: float  # of the epoch's steps, without its evaluation
    next: Literal["training", "evaluating"] = "training"


def train(
    run: Run,
    *,
    device: str = "cpu",
    threads: int | None = None,
    workers: int = 0,
    checkpoint_steps: int | None = None,
    stop: Stop | None = None,
    distributed: Distributed | None = None,
) -> Iterator[Status]:
    """Train the run to its end, from its last checkpoint if it has one; yields a Status now and then.

    A finished run is left as it is. On one machine, the run determines the weights to the last bit: it keeps the number
    of threads that it started with, and after an interruption it ends as an uninterrupted run would. A checkpoint is
    written after every epoch and, within an epoch, every `checkpoint_steps` steps or, by default, ten minutes.
    `workers` processes decode image files ahead. Neither affects the result. `distributed`: the processes that train
    the run together, each of which makes this call (`distributed.joined`); only the main one reads and writes the
    folder. A run also resumes with another number of processes, if an epoch has as many steps with it, but its result
    then differs in the last bits.
    Afterwards `run.result()` holds the errors.

    Raises UserError for a device that is not here, a folder of another version, damaged checkpoints, a full disk, too
    little memory, or a loss that is not finite; and Stopped, with the last step saved, once `stop` is asked to.
    """
    check_counts(checkpoint_steps=checkpoint_steps, threads=threads)
    device = find_device(device)
    distributed = distributed or Distributed()
    threads = threads or torch.get_num_threads()
    settings = distributed.broadcast_from_main(lambda: open_folder(run, threads, device, distributed.world_size))
    if distributed.broadcast_from_main(run.result) is not None:
        return
    if distributed.is_main:
        _warn_of_another_device(settings, device)
    run, recipe = as_begun(run, settings), as_started(run.recipe, settings.get("resolved", {}), device)
    patience = LOCK_PATIENCE if distributed.world_size > 1 else 0
    lock = locked(run.folder, patience) if distributed.is_main else contextlib.nullcontext()
    began = settings.get("ranks", 1)
    statuses = _to_the_end(Job(run, recipe, device, workers, checkpoint_steps, stop or Stop(), distributed, began))
    # Recomputing saves memory at the cost of time, so the system gets back what it frees.
    kept = freed_memory_kept(device == "cpu" and not recipe.checkpoint_activations)
    with lock, kept, contextlib.closing(statuses):
        try:
            yield from _undisturbed(statuses, settings["threads"], device)
        except RuntimeError as error:
            if words := dead_worker(error):
                raise UserError(f"{run.folder}: {words}.") from error
            raise


def _warn_of_another_device(settings: dict[str, Any], device: str) -> None:
    """Say so if the run started on a GPU and continues on a CPU, or on another kind of GPU, or the reverse."""
    began, here = settings["machine"].get("device"), device_name(device)
    if began and began != here:
        _log.warning(
            f"the run started on {began} and continues on {here}: its result is not bit-identical to that of an "
            "uninterrupted run."
        )


def _to_the_end(job: Job) -> Generator[Status, None, None]:
    """Train epoch by epoch; after each one evaluate, log, and write the checkpoint."""
    session = TrainingSession.open(job)
    with session.metrics.file:
        for epoch in session.epochs():
            with session.interruptible(), contextlib.closing(session.batches()) as batches:
                reported = time.monotonic()
                for batch, save in batches:
                    session.step(batch)
                    log = session.progress.step % LOG_STEPS == 0
                    if log:
                        session.metrics.write(session.averages())
                    if save:
                        session.checkpoint()
                    if log or (job.distributed.world_size == 1 and time.monotonic() - reported > STATUS_SECONDS):
                        reported = time.monotonic()
                        yield _status(session, session.averages())
            with session.interruptible(evaluating=True):
                line = session.averages()
                session.check_weights()
                trained = _status(session, line, "evaluating")
                yield trained
                line = {"epoch": epoch + 1} | line | _evaluate(session)
            session.end_epoch(line)
            session.checkpoint()
            yield replace(_status(session, line), images_per_second=trained.images_per_second)
    if job.distributed.is_main:
        _write_result(job.run, session.progress)
    job.distributed.wait()


def _undisturbed(statuses: Iterator[Status], threads: int, device: str) -> Iterator[Status]:
    """The same statuses; torch's state, random numbers and threads are the run's while it works, else the caller's.

    Random numbers that the caller draws between two statuses, or another training, must not change a run, nor may an
    autocast or a default dtype of the caller's. The number of threads matters, since it decides the order of sums.
    """
    own: RngState = {}  # the run's
    while True:
        with _AT_WORK, usual_torch(), repeatable(device), on_threads(threads):
            if own:
                set_rng_states(own, device)
            try:
                status = next(statuses, None)
            finally:
                own = rng_states(device)
        if status is None:
            return
        yield status


def _status(
    session: TrainingSession, line: dict[str, float], doing: Literal["training", "evaluating"] = "training"
) -> Status:
    """The session's status; line: the averages of its epoch."""
    epoch = session.epoch
    return Status(
        epochs_done=session.progress.epoch,
        step=session.progress.step,
        steps=session.total_steps,
        lr=session.lr,
        train_error=line["train_error"],
        test_error=session.test_error,
        images_per_second=epoch.seen * session.job.distributed.world_size / (time.perf_counter() - epoch.started),
        next=doing,
    )


def _evaluate(session: TrainingSession) -> dict[str, float]:
    """Loss and error (%) of the test images and, if any are held out, of the validation images.

    For files, also the number that could not be read, in this epoch's training and here. Errors are computed as in the
    steps, in the recipe's precision and with fused layers if it has them, but the last time in float32 and layer by
    layer, so that a loaded network will have the error that the run ends with.
    """
    job, stepper = session.job, session.stepper
    last = session.progress.step >= session.total_steps or job.recipe.stop_after  # which may end the run here
    precision = "fp32" if last or job.recipe.precision == "fp16" else job.recipe.precision
    line: dict[str, float] = {}
    with stepper.evaluated() as net:
        _reestimate(session)
        align_buffers(net, job.distributed)
        for name, images in (("test", session.data.test), ("validation", session.data.validation)):
            if len(images):
                batches = session.loader.evaluation(images, evaluation_batch(images))
                waited = job.distributed.until_stopped(batches, job.stop)
                prepared = ((stepper.laid_out(x), labels) for x, labels in waited)
                counted = partial(added_counts, f"{job.recipe.data}: none of the {name} images", job.distributed.sums)
                with autocast(precision, stepper.kind), fused_evaluation(not last):
                    measured = accuracy(net, prepared, counted)
                line |= {f"{name}_loss": measured.loss, f"{name}_error": measured.error}
    if isinstance(session.data.train, Files):
        (count,) = job.distributed.sums([session.loader.unreadables.count])
        line["unreadable"] = int(count)
    return line


def _reestimate(session: TrainingSession) -> None:
    """After the last step, re-estimate batch norm's statistics over batches of the next epoch, if the recipe asks."""
    job, recipe, progress = session.job, session.job.recipe, session.progress
    if recipe.bn_reestimate and progress.step >= session.total_steps:
        # The unreadable files of these batches do not belong to the epoch, neither here nor below:
        session.loader.unreadables.count = 0
        batches = session.loader.training(session.data.train, recipe.batch_size, recipe.seed, progress.epoch + 1)
        with contextlib.closing(batches):
            waited = job.distributed.in_step(job.distributed.until_stopped(batches, job.stop), lambda: False)
            first = itertools.islice(waited, recipe.bn_reestimate)
            reestimate(session.stepper.net, (session.stepper.laid_out(batch.x) for batch, _ in first))
        session.loader.unreadables.count = session.epoch.totals.unreadable


def _write_result(run: Run, progress: TrainingProgress) -> None:
    """Write result.json, which marks the run as finished: errors in %, of the last epoch."""
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
        write_json(run.folder / RESULT, result)
