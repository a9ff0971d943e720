"""The study `shattered`: its measurements run, and its rule can find against it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resnetlab.measuring.fully_connected import VARIANTS, predicted_correlation
from resnetlab.studies.frame.evidence import Evidence
from resnetlab.studies.frame.measurement import Measured, Measurement, measure_or_cached
from resnetlab.studies.frame.networks import Net, net_named, net_of
from resnetlab.studies.frame.scales import SCALES
from resnetlab.studies.frame.statistics import CONTRADICTED, DIRECTION, NOT_JUDGED, REPRODUCED
from resnetlab.studies.frame.study import StudyResult, study
from resnetlab.studies.frame.text import both
from resnetlab.studies.shattered import STUDY
from resnetlab.training.recipes import recipe

Lag1 = dict[str, float | None]  # by variant
PLANNED = {scale: STUDY.plan(scale, None if scale == "quick" else "cifar10:x", ()).measurements for scale in SCALES}
PAPERS: Lag1 = {
    "plain": 0.9,
    "plain centred": 0.02,
    "plain BN": 0.0,
    "resnet": 0.9,
    "resnet BN": 0.7,
    "resnet BN 0.1": 0.95,
}
OTHER: Lag1 = PAPERS | {"plain": 0.0, "plain centred": 0.5, "plain BN": 0.9, "resnet BN": 0.95, "resnet BN 0.1": 0.5}


def papers_pixels(kind: str, depth: int) -> tuple[float, float]:
    """Autocorrelation at lag 1, and relative rank."""
    return (0.6, 0.3) if kind == "resnet" else (0.5 - depth / 1000, 0.8)


def answer(
    m: Measurement,
    lag_1: Lag1,
    pixels: Callable[[str, int], tuple[float, float]],
    spread: float,
    correlation: float = 0.1,
) -> dict[str, Any]:
    s, shift = m.settings, spread * (m.seed % 3 - 1)

    def curve(value: float | None) -> list[float] | None:
        return None if value is None else [1.0, value + shift, *[value / 2] * 4]

    name = m.function.rpartition(":")[2]
    if name == "noise":
        return {"brown": curve(0.96), "white": curve(0.0)}
    if name.startswith("pixels"):
        net = net_of(m) if m.run else Net({"resnet": "residual"}.get(s["kind"], s["kind"]), s["depth"])
        acf, rank = pixels("resnet" if net.kind == "residual" else "plain", net.depth)
        noise = {"images": curve(0.6), "white": curve(0.0), "image_rank": 0.1}
        return noise | {"acf": curve(acf), "rank": rank + shift}
    many = len(s["depths"])
    common = {"depths": s["depths"], "coactive": [0.25 if "BN" in s["variant"] else 0.45] * many}
    if name == "pairs":
        return common | {"correlation": [correlation + shift] * many}
    deepest, towards = lag_1[s["variant"]], -0.2 if (lag_1["plain BN"] or 0) > 0.5 else 0.2  # layer by layer
    steps = range(many - 1, -1, -1)
    acf = [curve(None if deepest is None else deepest + towards * i) for i in steps]
    return common | {"acf": acf, "norm": [1.0] * many}


def judged(
    lag_1: Lag1 | None = None,
    pixels: Callable[[str, int], tuple[float, float]] = papers_pixels,
    *,
    spread: float = 0.01,
    seeds: int = 99,
    correlation: float = 0.1,
    lost: Callable[[Measurement], bool] = lambda m: False,
) -> StudyResult:
    """The finding if the measurements had these answers."""
    planned = [m for m in PLANNED["quick"] if m.seed < seeds]
    made = [
        Measured(m, answer(m, lag_1 or PAPERS, pixels, spread, correlation), 1.0, {}) for m in planned if not lost(m)
    ]
    return STUDY.judge(Evidence("quick", measured=made, failed=[m for m in planned if lost(m)]))


def verdicts(finding: StudyResult) -> list[str]:
    return [row.verdict for row in finding.rows]


def test_data_as_in_the_paper_reproduce_it() -> None:
    assert verdicts(judged()) == [REPRODUCED] * 10


def test_contrary_data_refute_every_claim() -> None:
    def contrary(kind: str, depth: int) -> tuple[float, float]:
        return (0.1, 0.8) if kind == "resnet" else (0.2 + depth / 1000, 0.3)

    assert verdicts(judged(OTHER, contrary)) == [CONTRADICTED] * 10


def test_seeds_that_scatter_give_a_direction_only() -> None:
    finding = judged(PAPERS | {"plain centred": 0.09}, spread=0.6)
    assert verdicts(finding)[2] == DIRECTION
    assert DIRECTION in verdicts(finding)[6:]


def test_one_seed_gives_a_direction_only() -> None:
    assert set(verdicts(judged(seeds=1))) == {DIRECTION}


@pytest.mark.parametrize(("lags", "found"), [((5,), CONTRADICTED), ((1,), CONTRADICTED), ((2, 3, 4), REPRODUCED)])
def test_what_is_alike_between_neighbours_alone_is_no_noise(lags: tuple[int, ...], found: str) -> None:
    """Brown noise is smooth, but not every smooth function is brown: lag 5 tells them apart."""
    planned = [m for m in PLANNED["quick"] if m.function.endswith((":grid", ":noise"))]
    made = []
    for m in planned:
        values = answer(m, PAPERS, papers_pixels, 0.01)
        if m.settings.get("variant") == "resnet BN 0.1":
            values = values | {"acf": [[0.0 if i in lags else r for i, r in enumerate(acf)] for acf in values["acf"]]}
        made.append(Measured(m, values, 1.0, {}))
    pixels = [m for m in PLANNED["quick"] if m not in planned]
    finding = STUDY.judge(Evidence("quick", measured=made, failed=pixels))
    assert verdicts(finding)[3] == found


def test_a_vanished_gradient_is_not_called_shattered() -> None:
    finding = judged(PAPERS | {"plain BN": None})
    assert [i for i, verdict in enumerate(verdicts(finding)) if verdict == NOT_JUDGED] == [0, 1, 4]
    assert "vanished" in both(finding.rows[1].measured).en


def test_one_depth_at_which_plain_is_above_refutes_the_order_of_convolutional_nets() -> None:
    def crossing(kind: str, depth: int) -> tuple[float, float]:
        acf, rank = papers_pixels(kind, depth)
        return (0.1 if kind == "resnet" and depth == 20 else acf), rank

    assert verdicts(judged(pixels=crossing))[6::2] == [CONTRADICTED, CONTRADICTED], "before and after training"
    assert "20: 0.480 plain, 0.100 residual" in str(judged(pixels=crossing).rows[8].measured)


@pytest.mark.parametrize(("depth", "found"), [(2, REPRODUCED), (4, CONTRADICTED)])
def test_nets_without_a_unit_are_not_compared(depth: int, found: str) -> None:
    """Of 2 layers they have no shortcut, and are equal; from 4 layers on they have one."""

    def below(kind: str, at: int) -> tuple[float, float]:
        acf, rank = papers_pixels(kind, at)
        return (0.1 if kind == "resnet" and at == depth else acf), rank

    assert verdicts(judged(pixels=below))[6] == found


def test_a_claim_that_lacks_a_measurement_is_not_judged() -> None:
    finding = judged(
        lost=lambda m: m.settings.get("variant") == "resnet BN" and m.function.endswith(":grid") and not m.seed
    )
    assert [i for i, verdict in enumerate(verdicts(finding)) if verdict == NOT_JUDGED] == [4]


def test_no_measurement_at_all_is_no_verdict() -> None:
    finding = judged(lost=lambda m: True)
    assert set(verdicts(finding)) == {NOT_JUDGED}
    assert finding.figures == []


def test_the_words_say_where_the_theorems_assumption_fails() -> None:
    words = both(judged().words).en
    assert "does not hold in: plain (0.45, L = 50), plain centred (0.45, L = 50)" in words
    assert "plain BN (" not in words


@pytest.mark.parametrize("centred", [True, False])
def test_the_words_say_which_derivation_is_nearer_to_what_was_measured(centred: bool) -> None:
    predicted = predicted_correlation(VARIANTS["resnet BN"], 50, centred=centred)
    words = both(judged(correlation=predicted).words).en
    assert ("which is nearer" in words) == centred
    assert ("which is farther away" in words) != centred


def test_the_figures_hold_every_network() -> None:
    acf, theorems, pixels = judged().figures
    assert [len(panel.series) for panel in acf.panels] == [5] * 6 + [2]
    assert [len(panel.series) for panel in theorems.panels] == [4, 2, 5]
    assert all(s.marks is not s.dashed for panel in theorems.panels for s in panel.series)
    assert [len(panel.series) for panel in pixels.panels] == [4, 2, 2, 2]
    assert pixels.panels[1].series[0].x == [2, 4, 8, 20, 56, 110]
    assert pixels.panels[2].series[0].x == [4, 8, 20, 56], "after training"


@pytest.mark.parametrize("scale", SCALES)
def test_every_measurement_is_planned_once(scale: str) -> None:
    asked = [(m.function, str(m.settings), m.run, m.seed) for m in PLANNED[scale]]
    assert len(asked) == len(set(asked))


def test_what_is_measured(tmp_path: Path) -> None:
    def values(function: str, data: str | None = None, **settings: Any) -> dict[str, Any]:
        measurement = Measurement(f"resnetlab.studies.shattered.measure:{function}", settings, data=data)
        return measure_or_cached(measurement, tmp_path).values

    found = values("grid", variant="plain BN", depths=[2, 4], lags=3)
    assert [len(acf) for acf in found["acf"]] == [4, 4]
    assert found["acf"][0][1] > 0.5
    assert values("pairs", variant="plain BN", depths=[2])["correlation"][0] == pytest.approx(0.5, abs=0.1)
    assert values("noise", lags=1)["brown"][1] > 0.8
    found = values("pixels", "digits", kind="resnet", depth=8, images=32, lags=2)
    assert found["images"][1] > 0.3
    assert 0 < found["rank"] < 1.5
    two, again = (values("pixels", "digits", kind=kind, depth=2, images=32, lags=2) for kind in ("plain", "resnet"))
    assert two == again, "no unit, no shortcut"
    assert two["acf"] != values("pixels", "digits", kind="resnet", depth=4, images=32, lags=2)["acf"]


def test_trained_networks_are_those_of_degradation_and_shallower_ones() -> None:
    recipes = STUDY.plan("quick", None, ()).recipes
    shared = set(study("degradation").plan("quick", None, ()).recipes)
    assert {net_named(r.net).depth for r in recipes if r not in shared} == {4}
    assert {r.override(net=recipe("digits").net, seed=0) for r in recipes} == {recipe("digits")}
    assert set(STUDY.plan("cifar", "cifar10:x", ()).recipes) <= set(
        study("degradation").plan("cifar", "cifar10:x", ()).recipes
    )
