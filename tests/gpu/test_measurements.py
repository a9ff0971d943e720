"""Measurements of studies on a GPU: in which precision they are taken, and which are taken again there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from stand_in_gpu import StandIn

from resnetlab.measuring.cost import interleaved, network_costs, training_step
from resnetlab.measuring.pixel_gradients import pixel_gradients
from resnetlab.measuring.signal import signals
from resnetlab.measuring.starting import first_steps
from resnetlab.nets.zoo import build, spec
from resnetlab.studies.frame import assignment
from resnetlab.studies.frame.assignment import Workplace
from resnetlab.studies.frame.measurement import Measurement, MeasurementContext, measure_or_cached
from resnetlab.studies.shattered import measure

NOISE = Measurement("resnetlab.studies.shattered.measure:noise", {"lags": 1})


def test_only_times_are_taken_in_tf32(tmp_path: Path, gpu: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def noted(context: MeasurementContext) -> dict[str, Any]:
        flags = torch.backends.cudnn
        seen.append((flags.enabled, flags.deterministic, torch._C._get_cudnn_allow_tf32()))
        return {}

    monkeypatch.setattr(measure, "noise", noted)
    before = torch._C._get_cudnn_allow_tf32()
    for alone in (False, True):
        measure_or_cached(replace(NOISE, alone=alone, seed=alone), tmp_path, "cuda")
    assert seen == [(True, True, False), (True, True, True)]
    assert torch._C._get_cudnn_allow_tf32() == before


@pytest.mark.parametrize(("alone", "times"), [(True, 2), (False, 1)])
def test_times_are_taken_again_on_another_device(
    alone: bool, times: int, tmp_path: Path, gpu: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []

    def noted(context: MeasurementContext) -> dict[str, Any]:
        taken.append(context.device)
        return {}

    monkeypatch.setattr(measure, "noise", noted)
    for device in ("cpu", "cuda", "cpu", "cuda"):
        measure_or_cached(replace(NOISE, alone=alone), tmp_path, device)
    assert taken == ["cpu", "cuda"][:times]


def test_a_gpu_is_waited_for_before_each_look_at_the_clock(gpu: StandIn) -> None:
    def call() -> None:
        gpu.waits["call"] += 1

    gpu.waits.clear()
    interleaved([call, call], rounds=3, device="cuda")
    assert gpu.waits["synchronize"] == 2 * 2 * 3


def test_what_networks_cost_is_measured_on_the_gpu(gpu: StandIn) -> None:
    (cost,) = network_costs([spec("cifar_resnet8")], batch=2, rounds=1, training=True, device="cuda")
    assert cost.peak_bytes == 2**24 - 2**20
    assert len(cost.seconds) == 1


@pytest.mark.parametrize("measured", ["training step", "pixel gradients", "signals", "first steps"])
def test_what_dropout_draws_on_a_gpu_is_not_drawn_from_the_callers_state(measured: str, gpu: StandIn) -> None:
    net = build("cifar_resnet8(mix=DropoutShortcut(0.5))", seed=0).to("cuda")
    x, labels = torch.rand(4, 3, 32, 32).to("cuda"), torch.arange(4).to("cuda")
    calls: dict[str, Callable[[], object]] = {
        "training step": lambda: training_step(net, x)(),
        "pixel gradients": lambda: pixel_gradients(net, x, labels),
        "signals": lambda: signals(net, x, labels),
        "first steps": lambda: first_steps(net, x, labels, 0.01, batch=2, window=1, steps=2, seed=0).losses,
    }
    before, on_cpu = torch.cuda.get_rng_state(), torch.get_rng_state()
    calls[measured]()
    assert torch.equal(torch.cuda.get_rng_state(), before)
    assert torch.equal(torch.get_rng_state(), on_cpu)
    if measured == "first steps":
        losses = calls[measured]()
        torch.cuda.manual_seed(1)
        assert calls[measured]() == losses


@pytest.mark.parametrize(
    ("asked", "ray", "has_one", "measures"),
    [
        ("cuda", None, True, "cuda"),
        ("cuda", "local", True, "cuda"),
        ("cuda", "local", False, "cpu"),  # the cluster's other machines have GPUs
        ("auto", "local", True, "cpu"),
        ("cpu", "local", True, "cpu"),
    ],
)
def test_with_ray_the_machine_of_the_command_measures_on_what_it_has(
    asked: str, ray: str | None, has_one: bool, measures: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: has_one)
    monkeypatch.setattr("torch.ones", lambda *_, **__: None)
    monkeypatch.setattr(assignment, "budget", lambda recipes, runs, device: device)
    assert Workplace(tmp_path, asked, ray=ray).budget([]) == measures
