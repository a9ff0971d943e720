"""Trained networks to measure: the runs of `degradation`, or networks of others; what was measured of them, by net."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from resnetlab.errors import UserError
from resnetlab.nets.spec import NetSpec
from resnetlab.nets.zoo import spec
from resnetlab.studies.frame.claims import Row, judged_row
from resnetlab.studies.frame.evidence import Evidence, Groups, measured_by
from resnetlab.studies.frame.measurement import Measurement, Subject, Weights
from resnetlab.studies.frame.scales import SCALES, WEIGHTS, base, for_depth
from resnetlab.studies.frame.statistics import NOT_TESTED, Verdict
from resnetlab.studies.frame.study import Plan
from resnetlab.studies.frame.text import SHARED, Catalogue, Words, joined
from resnetlab.training.recipe import Recipe

DEPTHS = {"quick": (20, 56), "cifar": (20, 56), "paper": (20, 56, 110)}
SEEDS = {"quick": 3, "cifar": 3, "paper": 5}
KINDS = {"plain": "plain", "residual": "resnet"}  # and how the zoo calls them
CLASSES, CHANNELS = 10, 3  # of CIFAR-10
IMAGES = {scale: SHARED(f"networks.{scale}") for scale in (*SCALES, WEIGHTS)}
EXPECTED = {scale: SHARED(f"expected.{scale}") for scale in (*SCALES, WEIGHTS)}


@dataclass(frozen=True, order=True)
class Net:
    """A kind of network, "plain" or "residual", of some depth."""

    kind: str
    depth: int

    def __str__(self) -> str:
        return f"{self.kind}-{self.depth}"


def networks(scale: str, data: str | None, weights: tuple[Weights, ...]) -> tuple[list[Recipe], list[Measurement]]:
    """The trainings of a scale, or none where weights are given; and for each network a measurement to fill in.

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
    recipes = [
        for_depth(recipe.override(net=f"cifar_{name}{depth}", seed=seed), depth)
        for seed in range(SEEDS[scale])
        for depth in DEPTHS[scale]
        for name in KINDS.values()
    ]
    return recipes, [Measurement("", run=r, seed=r.seed) for r in recipes]


@dataclass(frozen=True)
class Asked:
    """What a study measures of trained networks: a function, its settings, and of which kinds."""

    function: str
    settings: dict[str, Any]
    kinds: tuple[str, ...] = tuple(KINDS)


def measuring(
    text: Catalogue, scale: str, data: str | None, weights: tuple[Weights, ...], *asked: Asked, **values: Any
) -> Plan:
    """The plan of a study that measures the runs of degradation, or networks of others.

    Its note is what is known of these, and then the study's own "scales.SCALE.note" (or "note"), with `values`.
    Raises UserError as `networks` does.
    """
    recipes, blank = networks(scale, data, weights)
    measurements = [
        replace(m, function=one.function, settings=one.settings)
        for one in asked
        for m in blank
        if net_of(m).kind in one.kinds
    ]
    key = f"scales.{scale}.note"
    note = joined([SHARED(f"networks.{scale}"), text(key if key in text else "note", **values)])
    needed = tuple(r for r in recipes if any(m.run == r for m in measurements))
    return Plan(needed, SHARED(f"expected.{scale}"), note, tuple(measurements))


def net_of(measurement: Measurement) -> Net:
    """The kind and depth of the network that is measured."""
    if measurement.run:
        return net_named(measurement.run.net)
    assert measurement.weights is not None
    return net_named(measurement.weights.net)


def net_named(name: str) -> Net:
    """The kind and depth of a network of the zoo. Raises UserError for one that has no units, or isn't CIFAR-10's."""
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
    """Nets of one depth are compared unit by unit. Raises UserError where their units differ in number or kind."""
    seen: dict[int, str] = {}
    for one in weights:
        depth = net_named(one.net).depth
        other = seen.setdefault(depth, one.net)
        if len({(s.stages, s.branch) for s in (spec(one.net), spec(other)) if isinstance(s, NetSpec)}) > 1:
            raise UserError(f"{one.net} and {other}: {depth} layers each, but of other units; measure one at a time.")


def checked_batch(subject: Subject) -> tuple[Tensor, Tensor]:
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
    """What `function` measured, by network: plain ones first, shallow ones first of each kind."""
    return measured_by(evidence, function, net_of)


@dataclass(frozen=True)
class Taken:
    """What a function measured of each network, a value per seed, and what of it failed."""

    values: dict[Net, list[dict[str, Any]]]
    failed: dict[Net, list[Measurement]]

    def nets(self, kind: str) -> list[Net]:
        """The networks of a kind, shallow ones first, whether their measurements failed or not."""
        return sorted(net for net in self.values if net.kind == kind)

    def done(self, kind: str) -> list[Net]:
        """Those of a kind of which at least one seed was measured."""
        return [net for net in self.nets(kind) if self.values[net]]

    def pairs(self) -> list[tuple[Net, Net]]:
        """Plain and residual networks of one depth, shallow ones first."""
        return [(net, twin) for net in self.nets("plain") for twin in self.nets("residual") if net.depth == twin.depth]

    def whole(self, *nets: Net) -> bool:
        """Whether all of these were measured, and nothing of them failed."""
        return all(self.values.get(net) and not self.failed.get(net) for net in nets)

    def row(self, claim: Words, paper: Words, nets: Sequence[Net], measure: Callable[[], tuple[Words, Verdict]]) -> Row:
        """The row of a claim about these networks; not tested if there are none of the kind."""
        if not nets:
            return Row(claim, paper, SHARED("absent"), NOT_TESTED)
        return judged_row(claim, paper, [self.values[n] for n in nets], [self.failed[n] for n in nets], measure)


def taken(evidence: Evidence, function: str) -> Taken:
    """What `function` measured, by network."""
    done = [m for m in evidence.measured if m.measurement.function == function]
    lost = [m for m in evidence.failed if isinstance(m, Measurement) and m.function == function]
    values: dict[Net, list[dict[str, Any]]] = {net_of(m): [] for m in (*(d.measurement for d in done), *lost)}
    failed: dict[Net, list[Measurement]] = {net: [] for net in values}
    for d in done:
        values[net_of(d.measurement)].append(d.values)
    for m in lost:
        failed[net_of(m)].append(m)
    return Taken(values, failed)
