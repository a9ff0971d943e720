"""One sitting at a run: what the loop holds between a start or resumption and the end or interruption."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from resnetlab.data.files import Files
from resnetlab.data.images import Images
from resnetlab.data.loading import Augmentation, Loader, batch_ends, measure
from resnetlab.data.normalisation import NORMALISATIONS, Normalisation, imagenet
from resnetlab.data.seeds import seed_of
from resnetlab.data.streaming import Unreadables
from resnetlab.errors import UserError
from resnetlab.nets.net import ResNet
from resnetlab.nets.vgg import VGG
from resnetlab.nets.zoo import build
from resnetlab.training.checkpoint import Card, Checkpoint, Progress, load_checkpoint, save_checkpoint
from resnetlab.training.distributed import Ranks, check_share, wrapped
from resnetlab.training.metrics import Metrics, NoMetrics
from resnetlab.training.recipe import Recipe
from resnetlab.training.run import Run, disk_errors, migrate
from resnetlab.training.schedule import ScheduleState, learning_rate
from resnetlab.training.signals import Stop
from resnetlab.training.step import Stepper, make_optimiser

CHECKPOINT_SECONDS = 600  # between checkpoints within an epoch, unless they are asked for by steps


@dataclass
class Sitting:
    """What the loop works with."""

    run: Run
    device: str
    net: ResNet | VGG
    stepper: Stepper
    card: Card
    train: Images | Files
    validation: Images | Files
    test: Images | Files
    loader: Loader
    progress: Progress
    schedule: ScheduleState
    random: dict[str, Tensor]  # to go on with within an epoch
    sums: Tensor  # float64: loss and wrong images of the epoch so far, steps since `first` with a finite loss
    metrics: Metrics | NoMetrics
    ranks: Ranks
    steps: int  # in all
    checkpoint_steps: int | None
    stop: Stop
    saved_step: int  # of the checkpoint; 0 is none
    saved_at: float  # when, by time.monotonic()
    clock: float  # up to when `progress.seconds` counts, by time.perf_counter()
    test_error: float | None  # %, after the last whole epoch
    lr: float = 0.0  # of the last step
    # Since this sitting took up the epoch:
    first: int = 0  # the step at which it did
    began: float = 0.0  # when, by time.perf_counter()
    seen: int = 0  # images


def sit_down(run: Run, device: str, workers: int, checkpoint_steps: int | None, stop: Stop, ranks: Ranks) -> Sitting:
    """Build what the run needs, and put its last checkpoint into it if there is one."""
    recipe = run.recipe
    train_images, validation = run.data.hold_out(recipe.validation_images)
    check_share(ranks, recipe.batch_size, len(train_images))
    normalise = ranks.from_first(lambda: normalisation_of(run, workers=workers))
    net = build(run.spec, seed=recipe.seed).to(device)
    if recipe.channels_last:
        for parameter in net.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    stepper = Stepper(net, make_optimiser(net, recipe), recipe, device)
    found = _taken_up(run, stepper, ranks)
    progress = found.progress
    # What several processes train is wrapped once its weights are those of the checkpoint.
    stepper.trained = wrapped(net, ranks, sync_bn=recipe.sync_bn)
    metrics = Metrics(run.folder, progress.metrics_bytes, progress.epoch) if ranks.first else NoMetrics()
    if ranks.first:
        migrate(run.folder)
    return Sitting(
        run=run,
        device=device,
        net=net,
        stepper=stepper,
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
            rank=ranks.rank,
            ranks=ranks.ranks,
            unreadables=Unreadables(recipe.unreadable == "skip", recipe.unreadable_limit),
        ),
        progress=progress,
        schedule=found.schedule,
        random=found.random,
        sums=torch.zeros(3, dtype=torch.float64, device=device),
        metrics=metrics,
        ranks=ranks,
        steps=total_steps(recipe, len(batch_ends(len(train_images), recipe.batch_size, 2 * ranks.ranks))),
        checkpoint_steps=checkpoint_steps,
        stop=stop,
        saved_step=progress.step,
        saved_at=time.monotonic(),
        clock=time.perf_counter(),
        test_error=metrics.last_epoch["test_error"] if metrics.last_epoch else None,
    )


def _taken_up(run: Run, stepper: Stepper, ranks: Ranks) -> Checkpoint:
    """Where the run stands, its last checkpoint put into the stepper; the first process reads it for all of them."""

    def read() -> tuple[Checkpoint, dict[str, Tensor]]:
        found = load_checkpoint(run.folder, stepper) or Checkpoint(Progress(), ScheduleState())
        return found, {name: t.cpu() for name, t in stepper.state().items()}

    found, state = ranks.from_first(read)
    if not ranks.first:
        stepper.restore(state)
        found.progress.loss = found.progress.wrong = 0.0  # the first process has the sums
        found.progress.seen = found.progress.unreadable = 0
    return found


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


def total_steps(recipe: Recipe, per_epoch: int) -> int:
    """Steps of a whole run."""
    if recipe.iterations is not None:
        return recipe.iterations
    assert recipe.epochs is not None
    return max(1, round(recipe.epochs * per_epoch))


def begin_epoch(s: Sitting) -> None:
    """Start an epoch or, from a checkpoint within it, take it up again."""
    recipe, progress = s.run.recipe, s.progress
    torch.manual_seed(seed_of(s.ranks.purpose("dropout and the like"), recipe.seed, progress.epoch))
    if progress.position and s.ranks.first:
        torch.set_rng_state(s.random["cpu"])
        if "cuda" in s.random and s.device.startswith("cuda"):
            torch.cuda.set_rng_state(s.random["cuda"], s.device)
    s.loader.unreadables.count = progress.unreadable
    s.sums = torch.tensor([progress.loss, progress.wrong, 0], dtype=torch.float64, device=s.device)
    s.lr = learning_rate(recipe, max(0, progress.step - 1), s.steps, s.schedule)  # if no step of it is left
    s.first, s.began, s.seen = progress.step, time.perf_counter(), 0


def end_epoch(s: Sitting) -> None:
    """Count the epoch as done."""
    p = s.progress
    p.epoch += 1
    p.position = p.seen = p.unreadable = 0
    p.loss = p.wrong = 0.0
    s.sums.zero_()


def due(s: Sitting) -> bool:
    """Whether a checkpoint within an epoch is to be written now; the outcome does not depend on it.

    With several processes there is none, since it would lack the random states and sums of the others.
    """
    if s.ranks.ranks > 1:
        return False
    if s.checkpoint_steps is not None:
        return s.progress.step % s.checkpoint_steps == 0
    return time.monotonic() - s.saved_at > CHECKPOINT_SECONDS


def checkpoint(s: Sitting) -> None:
    """Write the checkpoint of where the run stands. Raises UserError for a full disk, and as the checks below do."""
    p = s.progress
    p.loss, p.wrong = check_loss(s)
    check_weights(s)
    now = time.perf_counter()
    p.seconds, s.clock = p.seconds + now - s.clock, now
    p.metrics_bytes = s.metrics.length
    random = {"cpu": torch.get_rng_state()}
    if s.device.startswith("cuda"):
        random["cuda"] = torch.cuda.get_rng_state(s.device)
    with disk_errors(s.run.folder):
        s.metrics.sync()
        if s.ranks.first:
            save_checkpoint(s.run.folder, s.stepper, s.card, Checkpoint(p, s.schedule, random))
    s.saved_step, s.saved_at = p.step, time.monotonic()


def check_loss(s: Sitting) -> tuple[float, float]:
    """The epoch's summed loss and wrong images, which waits for the device. Raises UserError if it is not finite."""
    loss, wrong, steps = s.sums.tolist()
    if not math.isfinite(loss):
        raise _not_finite(s, "loss is", s.first + int(steps) + 1)
    return loss, wrong


def check_weights(s: Sitting) -> None:
    """Raise UserError for weights that the last step has spoiled: the loss shows it only at the next one."""
    if not all(bool(w.isfinite().all()) for w in s.net.parameters()):
        raise _not_finite(s, "weights are", s.progress.step)


def _not_finite(s: Sitting, what: str, step: int) -> UserError:
    """The line that says what happened, why most likely, and what is kept."""
    kept = f"the checkpoint of step {s.saved_step} is kept" if s.saved_step else "there was no checkpoint yet"
    return UserError(
        f"{s.run.folder}: the {what} no longer finite at step {step} (lr {s.lr:g}); {kept}. Likeliest causes, in this "
        "order: too high a learning rate (lower lr or lengthen the warm-up); a net whose signals grow from layer to "
        "layer (deep without batch norm); damaged images or labels."
    )
