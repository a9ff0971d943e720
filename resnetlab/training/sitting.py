"""One sitting at a run: what the loop holds between a start or resumption and the end or interruption."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass, fields

import torch
from torch import Tensor

from resnetlab.data.files import Files
from resnetlab.data.images import Images
from resnetlab.data.loading import Augmentation, Loader, batch_ends
from resnetlab.data.normalisation import Normalisation, imagenet
from resnetlab.data.seeds import seed_of
from resnetlab.data.statistics import NORMALISATIONS, measure
from resnetlab.data.streaming import Unreadables
from resnetlab.errors import UserError
from resnetlab.nets.net import ResNet
from resnetlab.nets.vgg import VGG
from resnetlab.nets.zoo import build
from resnetlab.storage import disk_errors
from resnetlab.training.checkpoint import Checkpoint, Progress, Random, Share, load_checkpoint, save_checkpoint
from resnetlab.training.distributed import Ranks, check_share, wrapped
from resnetlab.training.metrics import Metrics, NoMetrics
from resnetlab.training.parts import freeze
from resnetlab.training.recipe import Recipe
from resnetlab.training.run import Run, migrate
from resnetlab.training.schedule import ScheduleState, learning_rate
from resnetlab.training.signals import Stop
from resnetlab.training.step import Stepper, make_optimiser
from resnetlab.weights.metadata import ModelMetadata

CHECKPOINT_SECONDS = 600  # between checkpoints within an epoch, unless they are asked for by steps
_log = logging.getLogger(__name__)


@dataclass
class Sitting:
    """What the loop works with."""

    run: Run
    recipe: Recipe  # the run's, with what `auto` came to where it started
    device: str
    net: ResNet | VGG
    stepper: Stepper
    card: ModelMetadata
    train: Images | Files
    validation: Images | Files
    test: Images | Files
    loader: Loader
    progress: Progress
    schedule: ScheduleState
    share: Share  # of the epoch that is under way
    random: Random  # to go on with within it
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


def sit_down(
    run: Run, recipe: Recipe, device: str, workers: int, checkpoint_steps: int | None, stop: Stop, ranks: Ranks
) -> Sitting:
    """Build what the run needs, and put its last checkpoint into it if there is one."""
    train_images, validation = run.data.hold_out(recipe.validation_images)
    check_share(ranks, recipe.batch_size, len(train_images))
    normalise = ranks.from_first(lambda: normalisation_of(run, workers=workers))
    net = first_network(run, recipe, device)
    stepper = Stepper(net, make_optimiser(net, recipe), recipe, device)
    found = _taken_up(run, stepper, ranks)
    progress = found.progress
    share, random = _own_share(found, ranks)
    # What several processes train is wrapped once its weights are those of the checkpoint.
    stepper.trained = wrapped(net, ranks, sync_bn=recipe.sync_bn)
    metrics = Metrics(run.folder, progress.metrics_bytes, progress.epoch) if ranks.first else NoMetrics()
    if ranks.first:
        migrate(run.folder)
    return Sitting(
        run=run,
        recipe=recipe,
        device=device,
        net=net,
        stepper=stepper,
        card=ModelMetadata(run.spec, run.data.classes, normalise, run.recipe.to_dict()),
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
        share=share,
        random=random,
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


def first_network(run: Run, recipe: Recipe, device: str) -> ResNet | VGG:
    """The network as the run begins with it: its first weights, its frozen parts, its memory layout."""
    net = build(run.spec, seed=recipe.seed)
    if run.start:
        run.start.put_into(net)
    freeze(net, recipe.freeze)
    net = net.to(device)
    if recipe.channels_last:
        for parameter in net.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return net


def _taken_up(run: Run, stepper: Stepper, ranks: Ranks) -> Checkpoint:
    """Where the run stands, its last checkpoint put into the stepper; the first process reads it for all of them."""

    def read() -> tuple[Checkpoint, dict[str, Tensor]]:
        found = load_checkpoint(run.folder, stepper) or Checkpoint(Progress(), ScheduleState())
        return found, {name: t.cpu() for name, t in stepper.state().items()}

    found, state = ranks.from_first(read)
    if not ranks.first:
        stepper.restore(state)
    return found


def _own_share(found: Checkpoint, ranks: Ranks) -> tuple[Share, Random]:
    """What this process takes up of the epoch. If another number of them began it, the first one has all sums."""
    if len(found.shares) == ranks.ranks:
        return found.shares[ranks.rank], found.random[ranks.rank]
    if not found.shares or not ranks.first:
        return Share(), {}
    _log.warning(
        f"the run resumes from step {found.progress.step}, which was saved by {len(found.shares)} processes; now there "
        f"are {ranks.ranks}, so its result is not bit-identical to that of a run with either number."
    )
    columns = zip(*(astuple(share) for share in found.shares), strict=True)
    return Share(*map(sum, columns)), {}


def _placed(images: Images | Files, device: str) -> Images | Files:
    """Images on the device, where they stay; files as they are."""
    return images.to(device) if isinstance(images, Images) else images


def normalisation_of(
    run: Run, *, workers: int = 0, progress: Callable[[int, int], object] = lambda *_: None
) -> Normalisation:
    """What a run's images are normalised by, which may have to be measured; see `data.statistics.measure`."""
    if run.recipe.normalise == "imagenet":
        return imagenet(run.spec.in_channels)
    if run.recipe.normalise == "source":
        assert run.start is not None
        assert run.start.normalisation is not None  # else the recipe has another one
        return run.start.normalisation
    images, _ = run.data.hold_out(run.recipe.validation_images)
    found = measure(images, run.spec.input_size, workers=workers, progress=progress)
    return NORMALISATIONS[run.recipe.normalise](found)


def total_steps(recipe: Recipe, per_epoch: int) -> int:
    """Steps of a whole run."""
    if recipe.iterations is not None:
        return recipe.iterations
    assert recipe.epochs is not None
    return max(1, recipe.least_iterations, round(recipe.epochs * per_epoch))


def unfinished(s: Sitting) -> bool:
    """Whether there is an epoch to train, or only to evaluate: after the last step, or what stops the run before."""
    p, patience = s.progress, s.recipe.stop_after
    stopped = 0 < patience <= p.waited
    return p.position > 0 or (p.step < s.steps and not stopped)


def begin_epoch(s: Sitting) -> None:
    """Start an epoch or, from a checkpoint within it, take it up again."""
    recipe, progress = s.recipe, s.progress
    words = "dropout and the like" + (f" from {progress.position}" if progress.position else "")
    torch.manual_seed(seed_of(s.ranks.purpose(words), recipe.seed, progress.epoch))
    if progress.position and s.random:
        torch.set_rng_state(s.random["cpu"])
        if "cuda" in s.random and s.device.startswith("cuda"):
            torch.cuda.set_rng_state(s.random["cuda"], s.device)
    s.loader.unreadables.count = s.share.unreadable
    s.sums = torch.tensor([s.share.loss, s.share.wrong, 0], dtype=torch.float64, device=s.device)
    s.lr = learning_rate(recipe, max(0, progress.step - 1), s.steps, s.schedule)  # if no step of it is left
    s.first, s.began, s.seen = progress.step, time.perf_counter(), 0


def end_epoch(s: Sitting) -> None:
    """Count the epoch as done."""
    s.progress.epoch += 1
    s.progress.position = 0
    s.share = Share()
    s.sums.zero_()


def due(s: Sitting) -> bool:
    """Whether a checkpoint is to be written after the step that comes; the outcome does not depend on it."""
    if s.checkpoint_steps is not None:
        return (s.progress.step + 1) % s.checkpoint_steps == 0
    return time.monotonic() - s.saved_at > CHECKPOINT_SECONDS


def checkpoint(s: Sitting) -> None:
    """Write the checkpoint of where the run stands. Raises UserError for a full disk, and as the checks below do."""
    p = s.progress
    s.share.loss, s.share.wrong = check_loss(s)
    check_weights(s)
    now = time.perf_counter()
    p.seconds, s.clock = p.seconds + now - s.clock, now
    p.metrics_bytes = s.metrics.length
    every: list[tuple[Share, Random]] = []
    if p.position:
        random = {"cpu": torch.get_rng_state()}
        if s.device.startswith("cuda"):
            random["cuda"] = torch.cuda.get_rng_state(s.device)
        every = s.ranks.at_first((s.share, random))
    with disk_errors(s.run.folder):
        s.metrics.sync()
        if s.ranks.first:
            found = Checkpoint(p, s.schedule, [share for share, _ in every], [random for _, random in every])
            save_checkpoint(s.run.folder, s.stepper, s.card, found)
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


def no_memory(s: Sitting, words: str, *, stepping: bool) -> UserError:
    """The line for too little memory: what did not fit, what is kept, and what to do. `words`: `out_of_memory`'s."""
    recipe = s.recipe
    if stepping:
        where = f"in step {s.progress.step + 1}"
        # Parts of a batch have two images at least; units are recomputed or not.
        ways = [f"--accumulate {2 * recipe.accumulate}"] if recipe.batch_size >= 4 * recipe.accumulate else []
        ways += [] if recipe.checkpoint_activations else ["--checkpoint-activations"]
        ways += ["a smaller --batch-size"] if recipe.batch_size > 2 else []
    else:
        where, ways = f"in the evaluation after step {s.progress.step}", []
    ways.append("a smaller --net" if s.run.data.shape else "a smaller --image-size or --net")
    return UserError(
        f"{s.run.folder}: out of memory {where}: {words}; {_kept(s)}. To use less memory: {', '.join(ways)}."
    )


def _kept(s: Sitting) -> str:
    return f"the checkpoint of step {s.saved_step} is kept" if s.saved_step else "there was no checkpoint yet"


def _not_finite(s: Sitting, what: str, step: int) -> UserError:
    """The line that says what happened, why most likely, and what is kept."""
    return UserError(
        f"{s.run.folder}: the {what} no longer finite at step {step} (lr {s.lr:g}); {_kept(s)}. Likely causes, in "
        "this order: the learning rate is too high (lower lr or lengthen the warm-up); the signals grow from layer "
        "to layer (deep without batch norm); images or labels are damaged."
    )
