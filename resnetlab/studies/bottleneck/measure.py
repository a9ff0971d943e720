"""What the study `bottleneck` measures: the units that it compares, counted and timed."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

from resnetlab.measuring.cost import interleaved_under_load, training_step, unit_cost
from resnetlab.nets.net import ResNet
from resnetlab.nets.spec import NetSpec, StageSpec
from resnetlab.nets.zoo import build
from resnetlab.studies.frame.costs import Costs
from resnetlab.studies.frame.measurement import MeasurementContext

MAP = 56  # pixels: the maps of Figure 5 are those of conv2_x


def _stage(channels: int, width: int, **changes: Any) -> NetSpec:
    return NetSpec(stages=(StageSpec(1, width),), stem_width=channels, input_size=MAP, **changes)


# The units that are compared, each as a network whose stage is made of it.
UNITS: dict[str, NetSpec] = {
    "pair-256": _stage(256, 256),
    "pair-64": _stage(64, 64),
    "bottleneck": _stage(256, 64, branch="bottleneck"),
    "with projection": _stage(256, 64, branch="bottleneck", shortcut="C"),
}


def measure_units(subject: MeasurementContext) -> Costs:
    """Exact counts of each unit, and seconds of its training step (the input's gradient too), taken in turn."""
    steps = []
    for spec in UNITS.values():
        net = build(spec, seed=subject.seed)
        assert isinstance(net, ResNet)
        *_, (_, unit) = net.units()
        generator = torch.Generator().manual_seed(subject.seed)
        x = torch.randn(subject.settings["batch"], unit.in_channels, MAP, MAP, generator=generator)
        steps.append(training_step(unit.to(subject.device), x.to(subject.device).requires_grad_()))
    taken, load = interleaved_under_load(steps, subject.settings["rounds"], subject.device)
    return {
        name: asdict(unit_cost(spec)) | {"seconds": seconds, "load": asdict(load)}
        for (name, spec), seconds in zip(UNITS.items(), taken, strict=True)
    }
