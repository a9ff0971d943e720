"""What the study `carry` measures: the gates of a trained network at its start and end, and epoch by epoch."""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from resnetlab.measuring.gates import carries
from resnetlab.nets.net import ResNet
from resnetlab.nets.zoo import build
from resnetlab.studies.frame.measurement import MeasurementContext
from resnetlab.training.loop import train
from resnetlab.training.run import make_run
from resnetlab.weights.load import load

IMAGES = 64


def start_and_end(subject: MeasurementContext) -> dict[str, Any]:
    """The carry of each unit, in the network as it was initialised and as it ended; on test images.

    At the start batch norm takes the batch's statistics, since it has no others yet.
    """
    x, _ = subject.batch(IMAGES)
    start = carries(_fresh(subject), x, by_batch=True)
    return {"start": [asdict(c) for c in start], "end": [asdict(c) for c in carries(subject.net, x)]}


def by_epoch(subject: MeasurementContext) -> dict[str, Any]:
    """Train the run again, from its seed, and look at the gates after every epoch; the first values are the start's.

    "mean" is the mean carry over units, "left" what is left at the last unit of what enters the first.
    """
    assert subject.recipe is not None
    x, _ = subject.batch(IMAGES)
    found = [_summary(_fresh(subject), x, by_batch=True)]
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(subject.recipe, Path(folder), subject.data)
        for status in train(run, device=subject.device):
            if status.epochs_done == len(found):
                net = load(run.folder)
                assert isinstance(net, ResNet)
                found.append(_summary(net.to(subject.device), x))
    return {"mean": [mean for mean, _ in found], "left": [left for _, left in found]}


def _fresh(subject: MeasurementContext) -> ResNet:
    """The network as its run began with it."""
    assert subject.recipe is not None
    net = build(subject.net.spec, seed=subject.recipe.seed)
    assert isinstance(net, ResNet)
    return net.to(subject.device)


def _summary(net: ResNet, x: Tensor, by_batch: bool = False) -> tuple[float, float]:
    found = carries(net, x, by_batch=by_batch)
    return statistics.fmean(c.mean for c in found), found[0].left
