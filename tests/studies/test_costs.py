"""What the studies of cost share: tables and figures follow the numbers."""

from __future__ import annotations

from typing import Any

import pytest

from resnetlab.nets.zoo import spec
from resnetlab.studies.frame.costs import base_name, cost_table, measure_networks, quartiles, time_panel, times
from resnetlab.studies.frame.measurement import MeasurementContext


def cost(adds: float, seconds: list[float], **more: Any) -> dict[str, Any]:
    return {"multiply_adds": adds * 1e6, "seconds": seconds, **more}


def test_networks_are_measured_by_the_names_they_are_asked_for() -> None:
    names = ["cifar_resnet8", "cifar_resnet8(shortcut=C)"]
    settings = {"nets": names, "batch": 2, "rounds": 2, "training": False}
    found = measure_networks(MeasurementContext(settings, 0, "cpu", None, None, None, None))
    assert list(found) == names
    assert base_name(found) == "cifar_resnet8"
    assert found[names[1]]["depth"] == spec(names[1]).depth
    assert len(found[names[0]]["seconds"]) == 2


def test_a_table_has_the_columns_that_were_measured() -> None:
    costs = {"net": cost(1234.5, [0.1, 0.3, 0.2], parameters=10**6, peak_bytes=None)}
    table = cost_table("caption", costs, "network")
    assert [str(h) for h in table.header] == ["network", "parameters", "multiply-adds (M)", "time (ms)"]
    assert list(table.rows[0]) == ["net", "1,000,000", "1,234.5", "200.0"]
    on_gpu = {"net": cost(1, [0.1], peak_bytes=2**21)}
    assert "peak on the GPU (MiB)" in [str(h) for h in cost_table("caption", on_gpu, "network").header]


def test_times_in_proportion_lie_on_the_line() -> None:
    costs = {"small": cost(10, [0.01] * 7), "large": cost(300, [0.3] * 7)}
    panel = time_panel("title", costs, "small")
    line, *marks = panel.series
    slope = line.mean[0] / line.x[0]
    assert all(m.mean[0] == pytest.approx(slope * m.x[0], rel=1e-4) for m in marks)
    assert panel.x_log
    assert not time_panel("title", {"a": cost(10, [0.1] * 6), "b": cost(11, [0.1] * 6)}, "a").x_log


def test_bars_hold_the_middle_half_of_the_rounds() -> None:
    assert quartiles(cost(1, [0.001 * i for i in range(1, 10)])) == pytest.approx((3, 7))


def test_a_ratio_is_of_one_to_the_other() -> None:
    costs = {"a": cost(1, [0.3] * 6), "b": cost(1, [0.1] * 6)}
    assert times(costs, "a", "b").median == pytest.approx(3)
