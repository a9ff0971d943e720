"""The figure of the learning-rate finder: the loss by the rate, and the suggested rate."""

from __future__ import annotations

import math

from resnetlab.studies.figures.figure import Figure, Panel, Series
from resnetlab.training.find_lr import LrTest

HEADROOM = 1.5  # the highest loss that is shown, times that of the first steps: what diverges leaves the picture


def lr_test_figure(found: LrTest, network: str) -> Figure:
    """The loss of each batch as a dot, its means over neighbours as a line, and a mark at the suggestion."""
    rates, losses = list(found.rates), [loss for loss in found.losses if math.isfinite(loss)]
    smoothed = list(found.smoothed)
    series = [
        _series("loss of a batch", 2, rates[: len(losses)], losses, marks=True),
        _series("mean of neighbours", 0, rates[: len(smoothed)], smoothed),
    ]
    if (rate := found.suggestion) is not None:
        nearest = min(range(len(smoothed)), key=lambda i: abs(math.log(rates[i] / rate)))
        series.append(_series(f"suggested: {rate:g}", 1, [rate], [smoothed[nearest]], marks=True))
    high = HEADROOM * smoothed[0] if smoothed else 1.0
    low = 0.9 * min(smoothed, default=0.0)
    panel = Panel(network or "network", "learning rate", "loss", series, (low, max(high, low + 1e-6)), x_log=True)
    return Figure("find-lr", "Loss of a training batch while the learning rate grows from step to step.", [panel])


def _series(label: str, colour: int, x: list[float], y: list[float], *, marks: bool = False) -> Series:
    return Series(label, False, colour, x, y, y, y, marks)
