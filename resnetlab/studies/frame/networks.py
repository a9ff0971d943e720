"""Trained networks to measure: the runs of `degradation`, or others' networks; and their measurements, by network."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from resnetlab.errors import UserError
from resnetlab.nets.spec import NetSpec
from resnetlab.nets.zoo import spec
from resnetlab.studies.frame.evidence import Evidence, Groups, measured_by
from resnetlab.studies.frame.measurement import Measurement, MeasurementContext, Weights
from resnetlab.studies.frame.scales import CIFAR_EPOCHS, WEIGHTS, base, for_depth
from resnetlab.studies.frame.study import Plan, expected
from resnetlab.studies.frame.text import SHARED, Catalogue, joined
from resnetlab.training.recipe import Recipe

DEPTHS = {"quick": (20, 56), "cifar": (20, 56), "paper": (20, 56, 110)}
SEEDS = {"quick": 3, "cifar": 3, "paper": 5}
KINDS = {"plain": "plain", "residual": "resnet"}  # and their names in the zoo
CLASSES, CHANNELS = 10, 3  # of CIFAR-10


@dataclass(frozen=True, order=True)
class Net:
    """A kind of network, "plain" or "residual", of some depth."""

    kind: str
    depth: int

    def __str__(self) -> str:
        return f"{self.kind}-{self.depth}"


def of_both_kinds(recipe: Recipe, depths: Iterable[int], seeds: int) -> list[Recipe]:
    """The trainings of plain and residual nets of these depths, one seed after another."""
    return [
        for_depth(recipe.override(net=f"cifar_{name}{depth}", seed=seed), depth)
        for seed in range(seeds)
        for depth in depths
        for name in KINDS.values()
    ]


def networks(scale: str, data: str | None, weights: tuple[Weights, ...]) -> tuple[list[Recipe], list[Measurement]]:
    """The trainings of a scale, or none if weights are given; and for each network a blank measurement to fill in.

    Raises UserError for data that the scale doesn't take, and for a network that can't be measured on CIFAR-10.
    """
    recipe = base(scale, data)
    if scale == WEIGHTS:
        _check_alike(weights)
        seeds: dict[Net, int] = {}
        blank = []
        for one in weights:
            net = net_named(one.net)
            seeds[net] = seeds.get(net, -1) + 1
            blank.append(Measurement("", weights=one, data=recipe.data, seed=seeds[net]))
        return [], blank
    recipes = of_both_kinds(recipe, DEPTHS[scale], SEEDS[scale])
    return recipes, [Measurement("", run=r, seed=r.seed) for r in recipes]


@dataclass(frozen=True)
class Asked:
    """What a study measures of trained networks: a function, its settings, and the kinds of network."""

    function: str
    settings: dict[str, Any]
    kinds: tuple[str, ...] = tuple(KINDS)


def measuring(
    text: Catalogue, scale: str, data: str | None, weights: tuple[Weights, ...], *asked: Asked, **values: Any
) -> Plan:
    """The plan of a study that measures the runs of degradation, or others' networks.

    Its note is the one about these networks, followed by the study's own "scales.SCALE.note" (or "note"), with
    `values`. Raises UserError as `networks` does.
    """
    recipes, blank = networks(scale, data, weights)
    measurements = [
        replace(m, function=one.function, settings=one.settings)
        for one in asked
        for m in blank
        if net_of(m).kind in one.kinds
    ]
    key = f"scales.{scale}.note"
    of_networks = SHARED(f"networks.{scale}", epochs=CIFAR_EPOCHS)
    note = joined([of_networks, text(key if key in text else "note", **values)])
    needed = tuple(r for r in recipes if any(m.run == r for m in measurements))
    takes = expected(SHARED, f"expected.{scale}", needed) if needed else SHARED("expected.weights")
    return Plan(needed, takes, note, tuple(measurements))


def net_of(measurement: Measurement) -> Net:
    """The kind and depth of the network that is measured."""
    if measurement.run:
        return net_named(measurement.run.net)
    assert measurement.weights is not None
    return net_named(measurement.weights.net)


def net_named(name: str) -> Net:
    """The kind and depth of a network of the zoo. Raises UserError if it has no units, or doesn't fit CIFAR-10."""
    found = spec(name)
    if not isinstance(found, NetSpec):
        raise UserError(f"{name}: has no units; this study measures residual networks, and plain ones like them.")
    if (found.num_classes, found.in_channels) != (CLASSES, CHANNELS):
        raise UserError(
            f"{name}: has {found.num_classes} classes and takes {found.in_channels} channels; give a network of "
            f"CIFAR-10's {CLASSES} and {CHANNELS}."
        )
    return Net("plain" if found.is_plain else "residual", found.depth)


def _check_alike(weights: tuple[Weights, ...]) -> None:
    """Raise UserError if networks of one depth, which are compared unit by unit, differ in number or kind of units."""
    seen: dict[int, str] = {}
    for one in weights:
        depth = net_named(one.net).depth
        other = seen.setdefault(depth, one.net)
        if len({(s.stages, s.branch) for s in (spec(one.net), spec(other)) if isinstance(s, NetSpec)}) > 1:
            raise UserError(f"{one.net} and {other}: {depth} layers each, but different units; measure one at a time.")


def checked_batch(subject: MeasurementContext) -> tuple[Tensor, Tensor]:
    """The first test images, as many as the measurement's settings say: x N C H W, labels N.

    Raises UserError for a network whose scores are not finite, or are the same for every image.
    """
    x, labels = subject.batch(subject.settings["images"])
    with torch.no_grad():
        scores = subject.net(x[:100])
    if not scores.isfinite().all():
        raise UserError("the network's scores are not finite: it has diverged, or its weights are damaged.")
    if (scores == scores[0]).all():
        raise UserError("the network gives every image the same scores: there is nothing to measure in it.")
    return x, labels


def measured_networks(evidence: Evidence, function: str) -> Groups[Net]:
    """The measurements of `function`, by network: plain ones first, and of each kind shallow ones first."""
    return measured_by(evidence, function, net_of)
