"""What the study `lesion` measures: errors of a net without some of its units, and the gradient along its paths."""

from __future__ import annotations

import random
from typing import Any

from resnetlab.errors import UserError
from resnetlab.measuring.lesion import (
    error_of,
    errors_without_each,
    random_deletion,
    random_swaps,
    same_sized,
)
from resnetlab.measuring.paths import Unrolled
from resnetlab.studies.frame.measurement import MeasurementContext
from resnetlab.studies.frame.networks import checked_batch

BATCH = 100
STEPS = 6  # how many numbers of deleted units, and of swaps, are tried


def measure(subject: MeasurementContext) -> dict[str, Any]:
    """Errors in %: intact, without each unit, with several random ones deleted, after random swaps."""
    net, s = subject.net, subject.settings
    if all(len(stage) < 2 for stage in same_sized(net)):
        raise UserError("no stage has two units that keep their maps' size: lesions need a deeper network.")
    x, labels = checked_batch(subject)
    every = list(zip(x.split(BATCH), labels.split(BATCH), strict=True))
    fewer = list(zip(x[: s["fewer"]].split(BATCH), labels[: s["fewer"]].split(BATCH), strict=True))
    movable = [i for stage in same_sized(net) for i in stage]
    draw = random.Random(subject.seed)
    deleted, swapped = [], []
    for step in range(STEPS + 1):
        count = round(step * len(movable) / STEPS)
        chosen = [random_deletion(net, count, draw) for _ in range(s["draws"] if 0 < count < len(movable) else 1)]
        deleted.append({"count": count, "errors": [error_of(net, fewer, deleted=units) for units in chosen]})
    for count in (0, *(2**step for step in range(STEPS))):
        orders = [random_swaps(net, count, draw) for _ in range(s["draws"] if count else 1)]
        errors = [error_of(net, fewer, order) for order in orders]
        swapped.append({"count": count, "taus": kendall_taus(orders), "errors": errors})
    return {
        "same_size": [i in movable for i, _ in enumerate(net.units())],
        "intact": error_of(net, every),
        "without": errors_without_each(net, every),
        "deleted": deleted,
        "swapped": swapped,
    }


def kendall_taus(orders: list[list[int]]) -> list[float]:
    """Kendall's rank correlation of each order with the one that was trained: 1 unchanged, −1 reversed."""
    from scipy.stats import kendalltau  # takes a second to import

    return [float(kendalltau(range(len(order)), order).statistic) for order in orders]


def paths(subject: MeasurementContext) -> dict[str, Any]:
    """The mean norm of the images' gradient along random paths, by their length from 0."""
    unrolled = Unrolled(subject.net, *checked_batch(subject))
    return {"norms": unrolled.norm_by_length(subject.settings["draws"], subject.seed)}
