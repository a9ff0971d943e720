"""What the study `identity` measures: constructed networks, how they train on, and stacks fitted to x → x."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as tf
from torch import nn

from resnetlab.data.images import Images
from resnetlab.data.loading import Loader, batch_ends
from resnetlab.errors import UserError
from resnetlab.measuring.accuracy import accuracy
from resnetlab.measuring.construction import deepened, deviation
from resnetlab.nets.net import ResNet
from resnetlab.nets.spec import NetSpec, StageSpec
from resnetlab.nets.zoo import build
from resnetlab.studies.frame.measurement import MeasurementContext
from resnetlab.training.schedule import ScheduleState, learning_rate, total_steps
from resnetlab.training.step import make_stepper

TEST_IMAGES, STATISTICS_IMAGES = 1000, 2000  # compared; from which batch norm's statistics are taken
WIDTH, SIDE, BATCH = 8, 4, 32  # of the tensors that stacks are fitted to: channels, pixels, examples a step
CLIP = 1.0  # norm of the gradient: the first losses of a deep residual stack are large
LAST = 20  # steps over which the final loss is averaged


def construct(subject: MeasurementContext) -> dict[str, Any]:
    """Settings `units`: of the deeper net, per stage. How far its scores are from the shallow net's.

    "exact": built as exactly as its kind allows; "calibrated": a plain net's batch norms with statistics of the data.
    """
    net, units = subject.net, _units(subject)
    x, _ = subject.batch(TEST_IMAGES)
    images, _ = subject.batch(STATISTICS_IMAGES, "train")
    exact = deviation(net, deepened(net, units, seed=subject.seed), x)
    calibrated = deviation(net, deepened(net, units, seed=subject.seed, images=images), x)
    return {
        name: {"largest": d.largest, "scores": d.scores, "changed": d.changed, "images": d.images}
        for name, d in (("exact", exact), ("calibrated", calibrated))
    }


def train_on(subject: MeasurementContext) -> dict[str, Any]:
    """Settings `units` and `epochs`: train the constructed net by the shallow one's recipe, so many epochs of it.

    The errors of the training batches by epoch, and of the test images at the end, in %. A plain net's batch norms
    are calibrated, so that it starts about where the shallow net ended also in training.
    """
    assert subject.recipe is not None
    assert subject.normalisation is not None
    recipe = subject.recipe.override(epochs=min(subject.settings["epochs"], subject.recipe.epochs or math.inf))
    data, device = subject.data, subject.device
    if not isinstance(data.train, Images) or not isinstance(data.test, Images):
        raise UserError("this measurement trains on images in memory: digits or cifar10:DIR.")
    train, test = data.train.to(device), data.test.to(device)
    images, _ = subject.batch(STATISTICS_IMAGES, "train")
    net = deepened(subject.net, _units(subject), seed=subject.seed, images=images)
    stepper = make_stepper(net, recipe, device)
    stepper.train()
    normalise = subject.normalisation.to(device)
    loader = Loader(normalise, len(data.classes), augmentation=recipe.augmentation, device=device)
    steps, step = total_steps(recipe, len(batch_ends(len(train), recipe.batch_size, 2))), 0
    errors: list[float] = []
    while step < steps:
        wrong, seen = torch.zeros((), device=device), 0
        for batch in loader.training(train, recipe.batch_size, recipe.seed, len(errors)):
            if step == steps:
                break
            lr = learning_rate(recipe, step, steps, ScheduleState())
            wrong += stepper(batch._replace(x=stepper.laid_out(batch.x)), lr).wrong
            seen, step = seen + len(batch.labels), step + 1
        errors.append(100 * float(wrong) / seen)
    return {"train_errors": errors, "test_error": accuracy(net, loader.evaluation(test, 500)).error}


def fit(subject: MeasurementContext) -> dict[str, Any]:
    """Settings `mix`, `units`, `steps`, `rates`: fit a stack of units to x → x; its final loss, with the best rate.

    A rate at which the loss is not finite in the end is the best only if there is no other.
    """
    s = subject.settings
    losses = [_fitted(s["mix"], s["units"], s["steps"], rate, subject.seed) for rate in s["rates"]]
    first, last = min(losses, key=lambda pair: pair[1] if math.isfinite(pair[1]) else math.inf)
    return {"first": first, "last": last, "rate": s["rates"][losses.index((first, last))]}


def _fitted(mix: str, units: int, steps: int, rate: float, seed: int) -> tuple[float, float]:
    """Loss at the start and at the end: mean of (stack(x) − x)² / variance of x, so that a constant has 1.

    The stack is of the zoo's basic units, initialised and with batch norm as in every network, in training mode; x is
    what a ReLU gives of standard normal numbers, N C H W, drawn anew each step. SGD with momentum 0.9, a rate that
    falls to 0 in a line, and a gradient that is clipped.
    """
    spec = NetSpec(stages=(StageSpec(units, WIDTH),), stem_width=WIDTH, mix=mix)  # type: ignore[arg-type]  # its text
    net = build(spec, seed=seed)
    assert isinstance(net, ResNet)
    (stack,) = net.stages()
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.SGD(stack.parameters(), lr=rate, momentum=0.9)
    losses = []
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = rate * (1 - step / steps)
        x = torch.randn(BATCH, WIDTH, SIDE, SIDE, generator=generator).relu()
        loss = tf.mse_loss(stack(x), x) / x.var()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(stack.parameters(), CLIP)
        optimiser.step()
        losses.append(loss.detach())
    return float(losses[0]), float(torch.stack(losses[-LAST:]).mean())


def _units(subject: MeasurementContext) -> list[int]:
    return [subject.settings["units"]] * len(subject.net.spec.stages)
