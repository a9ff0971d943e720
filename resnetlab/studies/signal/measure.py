"""What the study `signal` measures: signals and gradients before training, and whether the first steps learn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from resnetlab.errors import UserError
from resnetlab.measuring.signal import backward_growth, growth, layers_per_unit, predicted, signals
from resnetlab.measuring.starting import first_steps
from resnetlab.nets.net import ResNet
from resnetlab.studies.frame.measurement import MeasurementContext


def at_start(subject: MeasurementContext) -> dict[str, Any]:
    """Signals and gradients by unit, their growth per layer, and what He's recursion says of them."""
    net = _net(subject)
    x, labels = subject.batch(subject.settings["images"], "train")
    found = signals(net, x, labels)
    stages, layers = [s.stage for s in found], layers_per_unit(net)

    def measured(signal: Sequence[float], gradient: Sequence[float]) -> dict[str, Any]:
        forward, backward = growth(signal, stages, layers), backward_growth(gradient, stages, layers)
        if forward is None or backward is None:
            raise UserError(
                f"{net.spec.name}: a signal is 0 or infinite in double precision, or its stages have one unit."
            )
        return {
            "signal": list(signal),
            "gradient": list(gradient),
            "signal_growth": forward,
            "gradient_growth": backward,
            "first_stage": growth(signal[: stages.count(1)], [1] * stages.count(1), layers),
        }

    values = measured([math.sqrt(s.mean_square) for s in found], [s.gradient for s in found])
    if net.spec.is_plain and net.spec.norm == "none":
        theory = predicted(net, x)
        last = found[-1].gradient
        values["predicted"] = measured(
            [math.sqrt(square) for square in theory.mean_square], [last * g for g in theory.gradient]
        )
    return values


def start(subject: MeasurementContext) -> dict[str, Any]:
    """Whether the network starts to learn at one of the rates; those after the first that does are not tried."""
    net, s = _net(subject), subject.settings
    x, labels = subject.batch(s["pool"], "train")
    tries: list[dict[str, Any]] = []
    for rate in s["rates"]:
        tried = first_steps(
            net, x, labels, rate, batch=s["batch"], window=s["window"], steps=s["steps"], seed=subject.seed
        )
        tries.append(asdict(tried))
        if tried.step is not None:
            break
    return {"step": tries[-1]["step"], "rate": tries[-1]["rate"], "tries": tries}


def _net(subject: MeasurementContext) -> ResNet:
    s = subject.settings
    return subject.built(f"cifar_{s['kind']}{s['depth']}(init={s['init']}, norm={s['norm']})")
