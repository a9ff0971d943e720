"""A training session: the state of a run from its start or resumption to its end or interruption.

`loop.train` opens one and goes through its epochs and their batches:

    session = TrainingSession.open(job)     the network, its data, and the last checkpoint if there is one
    for epoch in session.epochs():
        for batch, save in session.batches():
            session.step(batch)             sets the rate, takes the step (step.py), and counts its loss and errors
        session.end_epoch(line)             writes its line of metrics, keeps the best weights
        session.checkpoint()
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Generator, Iterator
from dataclasses import astuple, dataclass, field

import torch
from torch import Tensor

from resnetlab.data.loading import Batch, Loader, batch_ends
from resnetlab.data.seeds import seed_of
from resnetlab.data.streaming import BadImages
from resnetlab.errors import UserError, counted, out_of_memory
from resnetlab.machine import widest_float
from resnetlab.storage import disk_errors
from resnetlab.training.checkpoint import (
    Checkpoint,
    EpochTotals,
    RngState,
    TrainingProgress,
    load_checkpoint,
    save_best,
    save_checkpoint,
)
from resnetlab.training.distributed import Distributed, check_share, wrapped
from resnetlab.training.metrics import Metrics, NoMetrics
from resnetlab.training.precision import rng_states, set_rng_states
from resnetlab.training.recipe import Recipe
from resnetlab.training.run import Run, migrate
from resnetlab.training.schedule import (
    ScheduleState,
    after_evaluation,
    after_step,
    learning_rate,
    needs_batch_error,
    total_steps,
)
from resnetlab.training.setup import TrainingData, class_weights, first_network, make_loader, normalisation_of
from resnetlab.training.signals import Stop, Stopped
from resnetlab.training.step import Stepper, make_stepper
from resnetlab.weights.metadata import ModelMetadata

CHECKPOINT_SECONDS = 600  # between checkpoints within an epoch, unless they are asked for by steps
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A run to train, and how this machine trains it."""

    run: Run
    recipe: Recipe  # the run's, with the values that `auto` had where it started
    device: str
    workers: int  # processes that decode images of files ahead
    checkpoint_steps: int | None  # between checkpoints within an epoch; None: CHECKPOINT_SECONDS
    stop: Stop
    distributed: Distributed
    began: int = 1  # the number of processes with which it began


@dataclass
class EpochState:
    """The current epoch, as far as this process has trained it."""

    totals: EpochTotals
    rng_state: RngState  # to resume within the epoch
    # float64, or float32 on an Apple GPU: loss and wrong images so far, and steps since `first_step` with a finite loss
    sums: Tensor
    # Since this process began the epoch, or resumed it from a checkpoint:
    first_step: int = 0  # the run's step at that moment
    started: float = 0.0  # the time, by time.perf_counter()
    seen: int = 0  # images since then


@dataclass
class SavedState:
    """The last checkpoint."""

    step: int  # 0 if there is none
    at: float = field(default_factory=time.monotonic)  # when it was written
    counted: float = field(default_factory=time.perf_counter)  # `TrainingProgress.seconds` counts up to this time


@dataclass
class TrainingSession:
    """The training of a run: the job, its data, what trains it, and its progress."""

    job: Job
    data: TrainingData
    loader: Loader
    stepper: Stepper
    metadata: ModelMetadata
    metrics: Metrics | NoMetrics
    total_steps: int
    progress: TrainingProgress
    schedule: ScheduleState
    epoch: EpochState
    saved: SavedState
    test_error: float | None  # %, after the last complete epoch
    lr: float = 0.0  # of the last step

    @classmethod
    def open(cls, job: Job) -> TrainingSession:
        """Build what the run needs, and resume from its last checkpoint if there is one.

        Raises UserError for a damaged checkpoint, and for settings that the network, data or machine does not allow.
        """
        run, recipe, distributed = job.run, job.recipe, job.distributed
        data = TrainingData.of(run, job.device)
        check_share(distributed, recipe.batch_size, len(data.train))
        normalise = distributed.broadcast_from_main(lambda: normalisation_of(run, workers=job.workers))
        net = first_network(run, recipe, job.device)
        weights = class_weights(recipe, data.train.labels, len(run.data.classes))
        stepper = make_stepper(net, recipe, job.device, weights)
        checkpoint = _resume(run, stepper, distributed)
        progress = checkpoint.progress
        per_epoch = _steps(job, len(data.train), progress)
        totals, rng_state = _own_part(checkpoint, distributed)
        # With several processes, the network is wrapped after the checkpoint's weights are loaded.
        stepper.trained = wrapped(net, distributed, sync_bn=recipe.sync_bn)
        metrics = Metrics(run.folder, progress.metrics_bytes, progress.epoch) if distributed.is_main else NoMetrics()
        if distributed.is_main:
            migrate(run.folder)
        return cls(
            job=job,
            data=data,
            loader=make_loader(
                run,
                normalise,
                device=job.device,
                workers=job.workers,
                unreadables=BadImages(recipe.unreadable == "skip", recipe.unreadable_limit),
                distributed=distributed,
            ),
            stepper=stepper,
            metadata=ModelMetadata(run.spec, run.data.classes, normalise, run.recipe.to_dict(), resizing=run.resizing),
            metrics=metrics,
            total_steps=total_steps(recipe, per_epoch),
            progress=progress,
            schedule=checkpoint.schedule,
            epoch=EpochState(totals, rng_state, torch.zeros(3, dtype=widest_float(job.device), device=job.device)),
            saved=SavedState(progress.step),
            test_error=metrics.last_epoch["test_error"] if metrics.last_epoch else None,
        )

    @property
    def finished(self) -> bool:
        """Whether no epoch is left to train or evaluate, after the last step or because the run was stopped early."""
        progress, patience = self.progress, self.job.recipe.stop_after
        stopped_early = 0 < patience <= progress.waited
        return progress.position == 0 and (progress.step >= self.total_steps or stopped_early)

    def epochs(self) -> Iterator[int]:
        """Begin, or resume, one epoch after another; yields the number of complete epochs before each."""
        while not self.finished:
            self._begin_epoch()
            yield self.progress.epoch

    def _begin_epoch(self) -> None:
        job, progress, epoch = self.job, self.progress, self.epoch
        purpose = "dropout and the like" + (f" from {progress.position}" if progress.position else "")
        torch.manual_seed(seed_of(job.distributed.purpose(purpose), job.recipe.seed, progress.epoch))
        if progress.position and epoch.rng_state:
            set_rng_states(epoch.rng_state, job.device)
        self.loader.unreadables.count = epoch.totals.unreadable
        sums = [epoch.totals.loss, epoch.totals.wrong, 0]
        epoch.sums = torch.tensor(sums, dtype=widest_float(job.device), device=job.device)
        # In case no step of the epoch is left:
        self.lr = learning_rate(job.recipe, max(0, progress.step - 1), self.total_steps, self.schedule)
        epoch.first_step, epoch.started, epoch.seen = progress.step, time.perf_counter(), 0

    def batches(self) -> Generator[tuple[Batch, bool], None, None]:
        """Yield the remaining batches of the epoch, each with whether a checkpoint is due after its step.

        Each batch has to be trained on before the next is asked for. Raises Stopped between two of them.
        """
        recipe, progress, distributed = self.job.recipe, self.progress, self.job.distributed
        own = self.loader.training(
            self.data.train, recipe.batch_size, recipe.seed, progress.epoch, start=progress.position
        )
        batches = distributed.in_step(distributed.until_stopped(own, self.job.stop), self._checkpoint_due)
        self.stepper.train()
        with contextlib.closing(own):  # this ends its workers
            while progress.step < self.total_steps:
                batch = next(batches, None)
                if batch is None:
                    return
                yield batch

    def step(self, batch: Batch) -> None:
        """Take one step, and count it. Raises UserError for a loss that is not finite; on a GPU some steps later."""
        recipe, progress, epoch = self.job.recipe, self.progress, self.epoch
        self.lr = learning_rate(recipe, progress.step, self.total_steps, self.schedule)
        loss, wrong = self.stepper(batch._replace(x=self.stepper.laid_out(batch.x)), self.lr)
        if needs_batch_error(recipe, self.schedule):
            mistakes, images = self.job.distributed.sums([int(wrong), len(batch.labels)])
            after_step(recipe, progress.step, 100 * mistakes / images, self.schedule)
        epoch.sums += torch.stack([loss, wrong, loss.isfinite()]).to(epoch.sums.dtype)
        epoch.totals.seen += len(batch.labels)
        epoch.seen += len(batch.labels)
        progress.step += 1
        progress.position, epoch.totals.unreadable = batch.stop, self.loader.unreadables.count
        if self.job.device == "cpu":  # a GPU is not waited for after each step
            self._check_loss()

    def averages(self) -> dict[str, float]:
        """The epoch's averages so far, over all processes, as a line of metrics; reading them waits for the device.

        Raises UserError if the loss is not finite, or if no image could be read.
        """
        loss, wrong, images = self.job.distributed.sums([*self._check_loss(), self.epoch.totals.seen])
        if not images:
            size = self.job.recipe.batch_size
            raise UserError(f"{self.job.run.folder}: no batch of {size} has two readable images; check its data.")
        loss, wrong = loss / images, wrong / images
        return {"step": self.progress.step, "lr": self.lr, "train_loss": loss, "train_error": 100 * wrong}

    def end_epoch(self, line: dict[str, float]) -> None:
        """Count the epoch as done, write its line of metrics, and keep its weights if they are the best."""
        progress = self.progress
        decides = line.get("validation_error", line["train_error"])
        after_evaluation(self.job.recipe, progress.step, decides, self.schedule)
        self.test_error = line["test_error"]
        self.metrics.write(line)
        progress.epoch += 1
        progress.position = 0
        self.epoch.totals = EpochTotals()
        self.epoch.sums.zero_()
        error = line.get("validation_error", line["test_error"])
        progress.waited += 1
        if error < progress.best_error:
            progress.best_error, progress.waited = error, 0
            if self.job.distributed.is_main:
                with disk_errors(self.job.run.folder), self.stepper.evaluated() as net:
                    save_best(self.job.run.folder, net, self.metadata)

    def checkpoint(self) -> None:
        """Write a checkpoint. Raises UserError for a full disk, and for a loss or weights that are not finite."""
        folder, device, distributed = self.job.run.folder, self.job.device, self.job.distributed
        progress, totals = self.progress, self.epoch.totals
        totals.loss, totals.wrong = self._check_loss()
        self.check_weights()
        now = time.perf_counter()
        progress.seconds, self.saved.counted = progress.seconds + now - self.saved.counted, now
        progress.metrics_bytes = self.metrics.length
        of_processes: list[tuple[EpochTotals, RngState]] = []
        if progress.position:
            of_processes = distributed.gather_to_main((totals, rng_states(device)))
        with disk_errors(folder):
            self.metrics.sync()
            if distributed.is_main:
                state = Checkpoint(progress, self.schedule, [t for t, _ in of_processes], [r for _, r in of_processes])
                save_checkpoint(folder, self.stepper, self.metadata, state)
        self.saved.step, self.saved.at = progress.step, time.monotonic()

    @property
    def _unsaved(self) -> bool:
        return self.progress.step > self.saved.step

    def _checkpoint_due(self) -> bool:
        """Whether a checkpoint is due after the next step; the result of the run does not depend on it."""
        if self.job.checkpoint_steps is not None:
            return (self.progress.step + 1) % self.job.checkpoint_steps == 0
        return time.monotonic() - self.saved.at > CHECKPOINT_SECONDS

    @contextlib.contextmanager
    def interruptible(self, *, evaluating: bool = False) -> Iterator[None]:
        """A context for steps, or an evaluation, that saves the work done before a stop or a lack of memory if it can.

        Raises UserError for too little memory, and Stopped with the saved step.
        """
        distributed = self.job.distributed
        try:
            yield
        except Stopped as stopped:
            if self._unsaved:
                self.checkpoint()
            distributed.wait()  # until the first one has saved: when one process ends, torchrun ends the others
            stopped.step = self.progress.step
            raise
        except Exception as error:
            if isinstance(error, UserError) or not (words := out_of_memory(error)):
                raise
            distributed.alone = not evaluating
            # A failed step may have changed batch norm's statistics; an evaluation changes nothing.
            if evaluating and distributed.world_size == 1 and self._unsaved:
                self.checkpoint()
            raise self._no_memory(words, evaluating=evaluating) from error

    def _check_loss(self) -> tuple[float, float]:
        """The epoch's summed loss and wrong images, which waits for the device. Raises UserError if not finite."""
        loss, wrong, steps = self.epoch.sums.tolist()
        if not math.isfinite(loss):
            raise self._not_finite("loss is", self.epoch.first_step + int(steps) + 1)
        return loss, wrong

    def check_weights(self) -> None:
        """Raise UserError if the last step left weights that are not finite: the loss shows that only in the next."""
        if not torch.stack([w.isfinite().all() for w in self.stepper.net.parameters()]).all():  # waits only once
            raise self._not_finite("weights are", self.progress.step)

    def _no_memory(self, words: str, *, evaluating: bool) -> UserError:
        """The error that says what did not fit, what is kept, and what to do; `words` are those of `out_of_memory`."""
        recipe, run = self.job.recipe, self.job.run
        if evaluating:
            where, ways = f"in the evaluation after step {self.progress.step}", []
        else:
            where = f"in step {self.progress.step + 1}"
            # Each part of a batch has at least two images.
            ways = [f"--accumulate {2 * recipe.accumulate}"] if recipe.batch_size >= 4 * recipe.accumulate else []
            ways += [] if recipe.checkpoint_activations else ["--checkpoint-activations"]
            ways += ["a smaller --batch-size"] if recipe.batch_size > 2 else []
        ways.append("a smaller --net" if run.data.shape else "a smaller --image-size or --net")
        return UserError(
            f"{run.folder}: out of memory {where}: {words}; {self._kept()}. To use less memory: {', '.join(ways)}."
        )

    def _not_finite(self, what: str, step: int) -> UserError:
        """The error that says what happened, the likely causes, and what is kept."""
        return UserError(
            f"{self.job.run.folder}: the {what} no longer finite at step {step} (lr {self.lr:g}); {self._kept()}. "
            "Likely causes, in this order: the learning rate is too high (lower lr or lengthen the warm-up); the "
            "signals grow from layer to layer (deep without batch norm); images or labels are damaged."
        )

    def _kept(self) -> str:
        return f"the checkpoint of step {self.saved.step} is kept" if self.saved.step else "there was no checkpoint yet"


def _resume(run: Run, stepper: Stepper, distributed: Distributed) -> Checkpoint:
    """The run's last checkpoint, loaded into the stepper; the main process reads it for all of them."""

    def read() -> tuple[Checkpoint, dict[str, Tensor]]:
        checkpoint = load_checkpoint(run.folder, stepper) or Checkpoint(TrainingProgress(), ScheduleState())
        return checkpoint, {name: t.cpu() for name, t in stepper.state().items()}

    checkpoint, state = distributed.broadcast_from_main(read)
    if not distributed.is_main:
        stepper.restore(state)
    return checkpoint


def _steps(job: Job, images: int, progress: TrainingProgress) -> int:
    """The number of steps in an epoch. Raises UserError if the run has begun with another one.

    A last batch that is too small for the processes joins the one before it; the schedule would change its length.
    """
    began, now = (
        len(batch_ends(images, job.recipe.batch_size, 2 * n)) for n in (job.began, job.distributed.world_size)
    )
    if progress.step and began != now:
        raise UserError(
            f"{job.run.folder}: began with {counted(job.began, 'process', 'processes')}, with which an epoch has "
            f"{began} steps; with {job.distributed.world_size} it has {now}. Resume it with as many as it began with."
        )
    return now


def _own_part(checkpoint: Checkpoint, distributed: Distributed) -> tuple[EpochTotals, RngState]:
    """This process's part of the epoch to resume. If another number of them began it, the main one gets all sums."""
    began, now = len(checkpoint.totals), distributed.world_size
    if began == now:
        return checkpoint.totals[distributed.rank], checkpoint.rng_states[distributed.rank]
    if not began or not distributed.is_main:
        return EpochTotals(), {}
    _log.warning(
        f"the run resumes from step {checkpoint.progress.step}, which was saved by {began} processes; now there "
        f"are {now}, so its result is not bit-identical to that of a run with either number."
    )
    columns = zip(*(astuple(totals) for totals in checkpoint.totals), strict=True)
    return EpochTotals(*map(sum, columns)), {}
