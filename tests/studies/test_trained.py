"""Trained networks to measure: the runs are degradation's own, and weights of others stand in for them."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from resnetlab import build
from resnetlab.data.open import open_data
from resnetlab.data.statistics import measure
from resnetlab.errors import UserError
from resnetlab.studies.figures.series import over_seeds
from resnetlab.studies.frame.evidence import Evidence
from resnetlab.studies.frame.measurement import Measurement, MeasurementContext, Weights
from resnetlab.studies.frame.networks import Net, checked_batch, measured_networks, net_named, net_of, networks
from resnetlab.studies.frame.scales import WEIGHTS
from resnetlab.studies.frame.statistics import NOT_JUDGED, NOT_TESTED, REPRODUCED, Sample
from resnetlab.studies.frame.study import study

STUDIES = ("responses", "lesion", "boosting", "sensitivity")
FILE = Path("x.pt")


def subject_of(name: str, settings: dict[str, Any]) -> MeasurementContext:
    """An untrained network, given the digits."""
    data = open_data("digits")
    net = build(name, in_channels=data.train.pixels.shape[1])
    return MeasurementContext(settings, 0, "cpu", None, net.eval(), data, measure(data.train, 0).channel_mean_std())


@pytest.mark.parametrize("name", STUDIES)
@pytest.mark.parametrize("scale", ["quick", "cifar", "paper"])
def test_no_study_trains_a_run_of_its_own(name: str, scale: str) -> None:
    plan = study(name).plan(scale, None, ())
    assert set(plan.recipes) <= set(study("degradation").plan(scale, None, ()).recipes)
    assert {m.run for m in plan.measurements} == set(plan.recipes)
    assert len({(m.function, m.run) for m in plan.measurements}) == len(plan.measurements)
    assert {r.seed for r in plan.recipes} >= {0, 1, 2}
    assert study(name).takes_weights
    kinds = {net_of(m).kind for m in plan.measurements}
    assert kinds == ({"residual"} if name == "boosting" else {"plain", "residual"}), "a plain net can't be read out"


def test_networks_of_one_depth_need_the_same_units() -> None:
    files = tuple(Weights(net, FILE) for net in ("cifar_plain20", "cifar_resnet20(stages=[(9, 16)])"))
    with pytest.raises(UserError, match="20 layers each, but different units"):
        networks(WEIGHTS, "cifar10:x", files)


@pytest.mark.parametrize("field", ["in_channels=1", "num_classes=100"])
def test_networks_of_other_data_than_cifar10_are_refused(field: str) -> None:
    with pytest.raises(UserError, match="give a network of CIFAR-10's 10 and 3"):
        net_named(f"cifar_resnet20({field})")


@pytest.mark.parametrize("name", STUDIES)
def test_weights_are_measured_in_place_of_runs(name: str) -> None:
    files = tuple(Weights(net, FILE) for net in ("cifar_plain20", "cifar_resnet20", "cifar_resnet20"))
    plan = study(name).plan(WEIGHTS, "cifar10:x", files)
    assert not plan.recipes
    assert {m.weights for m in plan.measurements} <= set(files)
    assert {m.data for m in plan.measurements} == {"cifar10:x"}
    assert {m.seed for m in plan.measurements if net_of(m) == Net("residual", 20)} == {0, 1}, "its files are its seeds"


@pytest.mark.parametrize("name", STUDIES)
def test_with_nothing_to_measure_nothing_is_said(name: str) -> None:
    finding = study(name).judge(Evidence(WEIGHTS))
    assert {row.verdict for row in finding.rows} <= {NOT_TESTED, REPRODUCED}, "arithmetic needs no network"
    assert sum(row.verdict == REPRODUCED for row in finding.rows) <= 1
    assert not finding.figures
    assert "left open" in str(finding.answer)


@pytest.mark.parametrize("name", STUDIES)
def test_where_everything_failed_nothing_is_judged(name: str) -> None:
    plan = study(name).plan("quick", None, ())
    finding = study(name).judge(Evidence("quick", failed=[*plan.recipes, *plan.measurements]))
    assert NOT_JUDGED in {row.verdict for row in finding.rows}
    assert not finding.figures
    assert all(row[-1] == "0" for table in finding.tables for row in table.rows)


@pytest.mark.parametrize(
    ("nets", "words"),
    [
        (["vgg16"], "has no units"),
        (["cifar_resnet20(num_classes=100)"], "100 classes"),
        (["cifar_resnet20(in_channels=1)"], "1 channels"),
        (["cifar_resnet20", "cifar_resnet20(branch='bottleneck')"], "but different units"),
    ],
)
def test_networks_that_can_not_be_measured_are_refused(nets: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        networks(WEIGHTS, "cifar10:x", tuple(Weights(net, FILE) for net in nets))


def test_data_of_another_kind_are_refused() -> None:
    with pytest.raises(UserError, match="cifar10"):
        networks(WEIGHTS, "digits", (Weights("cifar_resnet20", FILE),))


def test_kind_and_depth_tell_networks_apart() -> None:
    names = ("cifar_plain20", "cifar_preresnet20", "cifar_resnet20(shortcut='B', num_classes=10)")
    nets = [net_of(Measurement("", weights=Weights(name, FILE))) for name in names]
    assert nets == [Net("plain", 20), Net("residual", 20), Net("residual", 20)]
    assert str(nets[0]) == "plain-20"


def test_a_failed_measurement_counts_against_its_network() -> None:
    _, blank = networks("quick", None, ())
    lost = [replace(m, function="a") for m in blank if net_of(m) == Net("plain", 56)]
    nets = measured_networks(Evidence("quick", failed=[*lost, replace(lost[0], function="another")]), "a")
    assert list(nets) == [Net("plain", 56)]
    net = nets[Net("plain", 56)]
    assert (net.done, len(net.failed), net.whole) == ([], len(lost), False)


def test_a_network_that_knows_nothing_is_refused() -> None:
    subject = subject_of("cifar_resnet8", {"images": 4})
    net = subject.net
    assert len(checked_batch(subject)[0]) == 4
    with torch.no_grad():
        net.fc.weight.zero_()
    with pytest.raises(UserError, match="same scores"):
        checked_batch(subject)
    with torch.no_grad():
        net.fc.bias.fill_(float("nan"))
    with pytest.raises(UserError, match="not finite"):
        checked_batch(subject)


def test_small_helpers() -> None:
    assert (f"{Sample([1.0]):.2f}", f"{Sample([1.0, 3.0]):.1f}") == ("1.00", "2.0 ± 1.4")
    line = over_seeds("a", 0, [1, 2], [[1.0, 5.0], [3.0, 5.0]])
    assert (line.x, line.mean, line.low, line.high) == ([1, 2], [2, 5], [1, 5], [3, 5])


@pytest.mark.parametrize(
    ("function", "settings"),
    [
        ("responses.measure:measure", {"images": 20}),
        ("lesion.measure:measure", {"images": 20, "fewer": 10, "draws": 2}),
        ("lesion.measure:paths", {"images": 5, "draws": 1}),
        ("boosting.measure:measure", {"images": 20}),
        ("sensitivity.measure:measure", {"images": 20, "change": 0.01}),
    ],
)
def test_what_is_measured_can_be_kept_as_json(function: str, settings: dict[str, Any]) -> None:
    module, _, name = function.partition(":")
    measured = getattr(importlib.import_module(f"resnetlab.studies.{module}"), name)(
        subject_of("cifar_resnet20", settings)
    )
    assert json.loads(json.dumps(measured, allow_nan=False)) == measured


@pytest.mark.parametrize(
    ("function", "net", "words"),
    [
        ("lesion.measure", "cifar_resnet8", "deeper network"),
        ("boosting.measure", "cifar_resnet20(zero_gamma=True)", "F is zero"),
        ("boosting.measure", "cifar_resnet8(stages=((1, 32, 2), (1, 64, 2)))", "no unit keeps its maps' size"),
        ("sensitivity.measure", "cifar_resnet20(zero_gamma=True)", "F is zero"),
    ],
)
def test_where_nothing_can_be_measured_it_is_said(function: str, net: str, words: str) -> None:
    settings = {"images": 4, "fewer": 4, "draws": 1, "change": 0.01}
    with pytest.raises(UserError, match=words):
        importlib.import_module(f"resnetlab.studies.{function}").measure(subject_of(net, settings))
