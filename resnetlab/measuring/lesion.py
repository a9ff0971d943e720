"""Lesions: what becomes of a trained network's error if units are deleted or change places (Veit 2016, section 4)."""

from __future__ import annotations

import random
from collections.abc import Container, Iterable, Sequence

import torch
from torch import Tensor

from resnetlab.errors import UserError, shown
from resnetlab.measuring.units import (
    Batch,
    check_units,
    count_wrong,
    evaluating,
    keeps_size,
    labelled,
    units_of,
    without_branch,
)
from resnetlab.nets.net import ResidualUnit, ResNet


@torch.no_grad()
def errors_without_each(net: ResNet, batches: Iterable[Batch]) -> list[float | None]:
    """Top-1 error in % with one unit deleted, for each unit in order.

    A unit with a shortcut keeps it (F = 0). A plain unit is left out whole; None for one that changes sizes, which
    can't be. The network is left as it was.
    """
    units = [unit for _, unit in units_of(net)]
    removable = [not (net.spec.is_plain and not keeps_size(unit)) for unit in units]
    wrong, images = [0] * len(units), 0
    with evaluating(net):
        for x, labels in labelled(batches, net):
            images += len(labels)
            features = net.stem(x)
            for i, unit in enumerate(units):
                if removable[i]:
                    wrong[i] += _wrong(net, without_branch(unit, features), units[i + 1 :], labels)
                features = unit(features)
    return [100 * w / images if can else None for w, can in zip(wrong, removable, strict=True)]


@torch.no_grad()
def error_of(
    net: ResNet, batches: Iterable[Batch], order: Sequence[int] | None = None, deleted: Iterable[int] = ()
) -> float:
    """Top-1 error in % with the units in another order, by their numbers from 0, and some deleted.

    The network is left as it was. Units that change places must take and give maps of one size.
    """
    every = [unit for _, unit in units_of(net)]
    order, deleted = list(range(len(every)) if order is None else order), list(deleted)
    if sorted(order) != list(range(len(every))):
        raise UserError(f"order={shown(order)} must name each of the {len(every)} units once, from 0.")
    if others := [i for i in deleted if i not in order]:
        raise UserError(f"deleted={shown(others)}: the units are numbered from 0 to {len(every) - 1}.")
    gone, units = {every[i] for i in deleted}, [every[i] for i in order]
    sizes = [[(unit.in_channels, unit.out_channels, unit.stride) for unit in some] for some in (every, units)]
    if moved := [i for place, i in enumerate(order) if sizes[0][place] != sizes[1][place]]:
        raise UserError(f"order: unit {moved[0]} can't take its place, where maps have another size; see same_sized.")
    wrong = images = 0
    with evaluating(net):
        for x, labels in labelled(batches, net):
            wrong += _wrong(net, net.stem(x), units, labels, gone)
            images += len(labels)
    return 100 * wrong / images


def _wrong(
    net: ResNet,
    features: Tensor,
    units: Iterable[ResidualUnit],
    labels: Tensor,
    deleted: Container[ResidualUnit] = (),
) -> int:
    for unit in units:
        features = without_branch(unit, features) if unit in deleted else unit(features)
    return count_wrong(net.head(features), labels)


def same_sized(net: ResNet) -> list[list[int]]:
    """The numbers, from 0, of the units of each stage that keep their maps' size: these can change places."""
    check_units(net)
    found, first = [], 0
    for stage in net.stages():
        units = [i for i, unit in enumerate(stage, first) if isinstance(unit, ResidualUnit) and keeps_size(unit)]
        found.append(units)
        first += len(stage)
    return found


def random_deletion(net: ResNet, count: int, draw: random.Random) -> list[int]:
    """`count` of the units that keep their size, by their numbers from 0."""
    units = [i for stage in same_sized(net) for i in stage]
    if not 0 <= count <= len(units):
        raise UserError(f"count={shown(count)}: {len(units)} units keep their size.")
    return draw.sample(units, count)


def random_swaps(net: ResNet, count: int, draw: random.Random) -> list[int]:
    """The units' numbers after `count` random pairs of them, each within one stage, have changed places in turn."""
    order = list(range(len(units_of(net))))
    stages = [stage for stage in same_sized(net) if len(stage) > 1]
    if count and not stages:
        raise ValueError("no stage has two units that can be swapped")
    pairs = [(a, b) for stage in stages for i, a in enumerate(stage) for b in stage[i + 1 :]]
    for _ in range(count):
        a, b = draw.choice(pairs)
        order[a], order[b] = order[b], order[a]
    return order
