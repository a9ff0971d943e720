"""Trained networks to measure: the runs of `degradation`, or networks of others; what was measured of them, by net."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from resnetlab.errors import UserError
from resnetlab.nets.spec import NetSpec
from resnetlab.nets.zoo import spec
from resnetlab.studies.measurement import Measurement, Subject, Weights
from resnetlab.studies.scales import base, for_depth
from resnetlab.studies.statistics import Difference
from resnetlab.studies.study import NOT_TESTED, WEIGHTS, Evidence, Row, Series, judged_row
from resnetlab.studies.words import Both, Words
from resnetlab.training.recipe import Recipe

DEPTHS = {"quick": (20, 56), "cifar": (20, 56), "paper": (20, 56, 110)}
SEEDS = {"quick": 3, "cifar": 3, "paper": 5}
KINDS = {"plain": "plain", "residual": "resnet"}  # and how the zoo calls them
CLASSES, CHANNELS = 10, 3  # of CIFAR-10
IMAGES: dict[str, Both] = {
    "quick": Both(
        "The nets are the runs of degradation on the digits, three seeds; all is measured on the 360 test images.",
        "所测网络是 degradation 在手写数字上的训练结果，三个随机种子；全部测量用 360 张测试图像。",
    ),
    "cifar": Both(
        "The nets are the runs of degradation, 10 epochs on CIFAR-10, three seeds.",
        "所测网络是 degradation 在 CIFAR-10 上训练 10 轮的结果，三个随机种子。",
    ),
    "paper": Both(
        "The nets are the runs of degradation by the published recipe, five seeds.",
        "所测网络是 degradation 按论文原方案训练的结果，五个随机种子。",
    ),
    WEIGHTS: Both(
        "Networks that others trained. Files of one kind and depth count as seeds of one network; where there is one "
        "file, no interval can be given, and a claim is a direction at best.",
        "他人训练的网络。种类与深度相同的文件视为同一网络的不同种子；只有一个文件时无法给出区间，"
        "论断至多为“仅方向一致”。",
    ),
}
EXPECTED: dict[str, Both] = {
    "quick": Both("about 2 minutes on 2 cores, with the training", "双核约 2 分钟，含训练"),
    "cifar": Both("a night on 2 cores, with the training", "双核一夜，含训练"),
    "paper": Both("two to three days on one GPU, with the training", "单块 GPU 两到三天，含训练"),
    WEIGHTS: Both("some minutes on 2 cores", "双核数分钟"),
}


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
            net = _net(one.net)
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


def net_of(measurement: Measurement) -> Net:
    """The kind and depth of the network that is measured."""
    if measurement.run:
        return _net(measurement.run.net)
    assert measurement.weights is not None
    return _net(measurement.weights.net)


def _net(name: str) -> Net:
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
        depth = _net(one.net).depth
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

    def row(self, claim: Words, paper: Words, nets: Sequence[Net], measure: Callable[[], tuple[Words, str]]) -> Row:
        """The row of a claim about these networks; not tested if there are none of the kind."""
        if not nets:
            return Row(claim, paper, Both("no such networks were measured", "未测量此类网络"), NOT_TESTED)
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


def interval(d: Difference, decimals: int = 2) -> Both:
    """A difference with its interval, or with the remark that one seed has none."""
    mean, low, high = (
        f"{round(v, decimals) + 0.0:+.{decimals}f}" if math.isfinite(v) else "" for v in (d.mean, d.low, d.high)
    )  # adding zero turns -0.0 into +0.0
    if not low:
        return Both(f"{mean} (one seed: no interval)", f"{mean}（仅一个种子：无区间）")
    return Both(f"{mean} [{low}, {high}]", f"{mean} [{low}, {high}]")


def spread(values: Sequence[float], decimals: int = 2) -> str:
    """Mean ± standard deviation as text, or the one value."""
    mean = f"{statistics.fmean(values):.{decimals}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{decimals}f}"


def curve(
    label: str, colour: int, x: Sequence[float], seeds: Sequence[Sequence[float]], marks: bool = False, digits: int = 5
) -> Series:
    """A line of the mean over seeds, with the lowest and highest; each seed has a value for each x."""
    by_x = list(zip(*seeds, strict=True))
    return Series(
        label=label,
        dashed=False,
        colour=colour,
        x=[float(v) for v in x],
        mean=[_rounded(statistics.fmean(values), digits) for values in by_x],
        low=[_rounded(min(values), digits) for values in by_x],
        high=[_rounded(max(values), digits) for values in by_x],
        marks=marks,
    )


def _rounded(value: float, digits: int) -> float:
    """To so many significant digits, for a record that is no longer than what it says."""
    return float(f"{value:.{digits}g}")
