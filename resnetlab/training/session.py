"""A session of training: what it holds of a run between a start or resumption and the end or an interruption.

`loop.train` opens one, and goes through its epochs and their batches:

    session = TrainingSession.open(job)     the network, its data, and the last checkpoint if there is one
    for epoch in session.epochs():
        for batch, save in session.batches():
            session.step(batch)             the rate, the step itself (step.py), and what is counted of it
        session.end_epoch(line)             its line of metrics, the best weights
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
from resnetlab.errors import UserError, out_of_memory
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
    """What is trained, and how on this machine."""

    run: Run
    recipe: Recipe  # the run's, with what `auto` came to where it started
    device: str
    workers: int  # processes that decode images of files ahead
    checkpoint_steps: int | None  # between checkpoints within an epoch; None: CHECKPOINT_SECONDS
    stop: Stop
    distributed: Distributed


@dataclass
class EpochState:
    """The epoch that is under way, as far as this process has trained it."""

    totals: EpochTotals
    rng_state: RngState  # to resume with within it
    # float64, or float32 on an Apple GPU: loss and wrong images so far, and steps since `first_step` with a finite loss
    sums: Tensor
    # Since the epoch was begun, or taken up again from a checkpoint:
    first_step: int = 0  # the step at which it did
    started: float = 0.0  # when, by time.perf_counter()
    seen: int = 0  # images


@dataclass
class SavedState:
    """The last checkpoint."""

    step: int  # 0 is none
    at: float = field(default_factory=time.monotonic)  # when it was written
    counted: float = field(default_factory=time.perf_counter)  # up to when `TrainingProgress.seconds` counts


@dataclass
class TrainingSession:
    """The work at a run: what it is and trains on, what trains it, and where it stands."""

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
    test_error: float | None  # %, after the last whole epoch
    lr: float = 0.0  # of the last step

    @classmethod
    def open(cls, job: Job) -> TrainingSession:
        """Build what the run needs, and resume from its last checkpoint if there is one.

        Raises UserError for a damaged checkpoint, and for what the network, the data or the machine does not allow.
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
        totals, rng_state = _own_part(checkpoint, distributed)
        # What several processes train is wrapped once its weights are those of the checkpoint.
        stepper.trained = wrapped(net, distributed, sync_bn=recipe.sync_bn)
        metrics = Metrics(run.folder, progress.metrics_bytes, progress.epoch) if distributed.is_main else NoMetrics()
        if distributed.is_main:
            migrate(run.folder)
        per_epoch = len(batch_ends(len(data.train), recipe.batch_size, 2 * distributed.world_size))
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
        """Whether there is no epoch to train, nor one to evaluate: after the last step or what ends a run before."""
        progress, patience = self.progress, self.job.recipe.stop_after
        stopped_early = 0 < patience <= progress.waited
        return progress.position == 0 and (progress.step >= self.total_steps or stopped_early)

    def epochs(self) -> Iterator[int]:
        """Begin one epoch after another, or resume one within it; yields the number of whole ones before it."""
        while not self.finished:
            self._begin_epoch()
            yield self.progress.epoch

    def _begin_epoch(self) -> None:
        job, progress, epoch = self.job, self.progress, self.epoch
        purpose = "dropout and the like" + (f" from {progress.position}" if progress.position else "")
        torch.manual_seed(seed_of(job.distributed.purpose(purpose), job.recipe.seed, progress.epoch))
        if progress.position and epoch.rng_state:
            torch.set_rng_state(epoch.rng_state["cpu"])
            if "cuda" in epoch.rng_state and job.device.startswith("cuda"):
                torch.cuda.set_rng_state(epoch.rng_state["cuda"], job.device)
            if "mps" in epoch.rng_state and job.device == "mps":
                torch.mps.set_rng_state(epoch.rng_state["mps"])
        self.loader.unreadables.count = epoch.totals.unreadable
        sums = [epoch.totals.loss, epoch.totals.wrong, 0]
        epoch.sums = torch.tensor(sums, dtype=widest_float(job.device), device=job.device)
        # If no step of the epoch is left:
        self.lr = learning_rate(job.recipe, max(0, progress.step - 1), self.total_steps, self.schedule)
        epoch.first_step, epoch.started, epoch.seen = progress.step, time.perf_counter(), 0

    def batches(self) -> Generator[tuple[Batch, bool], None, None]:
        """Yield what is left of the epoch's batches, and with each whether a checkpoint is due after its step.

        Each has to be trained on before the next. Raises Stopped between two of them.
        """
        recipe, progress, distributed = self.job.recipe, self.progress, self.job.distributed
        own = self.loader.training(
            self.data.train, recipe.batch_size, recipe.seed, progress.epoch, start=progress.position
        )
        batches = distributed.in_step(distributed.until_stopped(own, self.job.stop), self._checkpoint_due)
        self.stepper.train()
        with contextlib.closing(own):  # which ends its workers
            while progress.step < self.total_steps:
                batch = next(batches, None)
                if batch is None:
                    return
                yield batch

    def step(self, batch: Batch) -> None:
        """Take one step, and count it. Raises UserError for a loss that is not finite, on a GPU not at once."""
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
        """The means of the epoch so far, over all processes, as a line of metrics; reading them waits for the device.

        Raises UserError unless the loss is finite, and where no image could be read.
        """
        loss, wrong, images = self.job.distributed.sums([*self._check_loss(), self.epoch.totals.seen])
        if not images:
            size = self.job.recipe.batch_size
            raise UserError(f"{self.job.run.folder}: no batch of {size} has two readable images; check its data.")
        loss, wrong = loss / images, wrong / images
        return {"step": self.progress.step, "lr": self.lr, "train_loss": loss, "train_error": 100 * wrong}

    def end_epoch(self, line: dict[str, float]) -> None:
        """Count the epoch as done, whose line of metrics is given, and keep its weights if they are the best."""
        progress = self.progress
        after_evaluation(self.job.recipe, line.get("validation_error", line["train_error"]), self.schedule)
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
        """Write the checkpoint of where the run stands. Raises UserError for a full disk, and as the checks below."""
        folder, device, distributed = self.job.run.folder, self.job.device, self.job.distributed
        progress, totals = self.progress, self.epoch.totals
        totals.loss, totals.wrong = self._check_loss()
        self.check_weights()
        now = time.perf_counter()
        progress.seconds, self.saved.counted = progress.seconds + now - self.saved.counted, now
        progress.metrics_bytes = self.metrics.length
        of_processes: list[tuple[EpochTotals, RngState]] = []
        if progress.position:
            rng_state = {"cpu": torch.get_rng_state()}
            if device.startswith("cuda"):
                rng_state["cuda"] = torch.cuda.get_rng_state(device)
            if device == "mps":
                rng_state["mps"] = torch.mps.get_rng_state()
            of_processes = distributed.gather_to_main((totals, rng_state))
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
        """Whether a checkpoint is to be written after the step that comes; the outcome does not depend on it."""
        if self.job.checkpoint_steps is not None:
            return (self.progress.step + 1) % self.job.checkpoint_steps == 0
        return time.monotonic() - self.saved.at > CHECKPOINT_SECONDS

    @contextlib.contextmanager
    def interruptible(self, *, evaluating: bool = False) -> Iterator[None]:
        """Around steps, or an evaluation: what was done before a stop or a lack of memory is saved where it can be.

        Raises UserError for too little memory, and Stopped with the step that is saved.
        """
        distributed = self.job.distributed
        try:
            yield
        except Stopped as stopped:
            if self._unsaved:
                self.checkpoint()
            distributed.wait()  # for the first one to save: when one has ended, torchrun ends the others
            stopped.step = self.progress.step
            raise
        except Exception as error:
            if isinstance(error, UserError) or not (words := out_of_memory(error)):
                raise
            # A step that failed has changed batch norm's statistics; an evaluation changes nothing.
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
        """Raise UserError for weights that the last step has spoiled: the loss shows it only at the next one."""
        if not all(bool(w.isfinite().all()) for w in self.stepper.net.parameters()):
            raise self._not_finite("weights are", self.progress.step)

    def _no_memory(self, words: str, *, evaluating: bool) -> UserError:
        """The line that says what did not fit, what is kept, and what to do. `words`: `out_of_memory`'s."""
        recipe, run = self.job.recipe, self.job.run
        if evaluating:
            where, ways = f"in the evaluation after step {self.progress.step}", []
        else:
            where = f"in step {self.progress.step + 1}"
            # Parts of a batch have two images at least; units are recomputed or not.
            ways = [f"--accumulate {2 * recipe.accumulate}"] if recipe.batch_size >= 4 * recipe.accumulate else []
            ways += [] if recipe.checkpoint_activations else ["--checkpoint-activations"]
            ways += ["a smaller --batch-size"] if recipe.batch_size > 2 else []
        ways.append("a smaller --net" if run.data.shape else "a smaller --image-size or --net")
        return UserError(
            f"{run.folder}: out of memory {where}: {words}; {self._kept()}. To use less memory: {', '.join(ways)}."
        )

    def _not_finite(self, what: str, step: int) -> UserError:
        """The line that says what happened, why most likely, and what is kept."""
        return UserError(
            f"{self.job.run.folder}: the {what} no longer finite at step {step} (lr {self.lr:g}); {self._kept()}. "
            "Likely causes, in this order: the learning rate is too high (lower lr or lengthen the warm-up); the "
            "signals grow from layer to layer (deep without batch norm); images or labels are damaged."
        )

    def _kept(self) -> str:
        return f"the checkpoint of step {self.saved.step} is kept" if self.saved.step else "there was no checkpoint yet"


def _resume(run: Run, stepper: Stepper, distributed: Distributed) -> Checkpoint:
    """Where the run stands, its last checkpoint put into the stepper; the main process reads it for all of them."""

    def read() -> tuple[Checkpoint, dict[str, Tensor]]:
        checkpoint = load_checkpoint(run.folder, stepper) or Checkpoint(TrainingProgress(), ScheduleState())
        return checkpoint, {name: t.cpu() for name, t in stepper.state().items()}

    checkpoint, state = distributed.broadcast_from_main(read)
    if not distributed.is_main:
        stepper.restore(state)
    return checkpoint


def _own_part(checkpoint: Checkpoint, distributed: Distributed) -> tuple[EpochTotals, RngState]:
    """What this process resumes of the epoch. If another number of them began it, the main one has all sums."""
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
