"""The study `signal`: its plan, its claims, and what it says of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from resnetlab.studies.figures.figure import Figure
from resnetlab.studies.frame.claims import Claim, claim, counted, less, more, no_more, rows
from resnetlab.studies.frame.evidence import Evidence, Group, Groups, Metric, measured_by, together
from resnetlab.studies.frame.measurement import Measurement, Weights, named
from resnetlab.studies.frame.scales import base
from resnetlab.studies.frame.study import Plan, StudyResult, planned, stated
from resnetlab.studies.frame.text import Catalogue, Words
from resnetlab.studies.signal.figures import INITS, YANG, Net, figure, growth, started, tables
from resnetlab.studies.signal.measure import at_start, start

TEXT = Catalogue.of(__name__)
AT_START, START = named(at_start), named(start)
VANISHING = 0.5  # a factor per layer below which a signal vanishes: 20 layers leave a millionth
KEPT = 0.1  # what has to be left of signal and gradient over all units, if they have not vanished
TOLERANCE = 0.1  # relative error of a predicted factor per layer
RATES = (0.1, 0.03)


@dataclass(frozen=True)
class Scale:
    """What is measured, and how the first steps go."""

    depths: tuple[int, ...]
    start_depths: tuple[int, ...]  # that are also trained for some steps
    seeds: int
    images: int  # of the batch on which signals are measured
    pool: int  # images that the first steps draw from
    batch: int
    window: int  # steps whose mean loss says whether it has started
    steps: int


SCALES = {
    "quick": Scale((20, 32, 56), (20,), 3, images=64, pool=1437, batch=64, window=23, steps=345),
    "cifar": Scale((20, 56, 110), (20, 56), 3, images=64, pool=10_000, batch=128, window=50, steps=400),
    "paper": Scale((20, 32, 44, 56, 110), (20, 56, 110), 5, images=128, pool=50_000, batch=128, window=100, steps=2000),
}


def plan(scale: str, data: str | None, weights: tuple[Weights, ...] = ()) -> Plan:
    """Signals and first steps of plain and residual nets with every initialisation, with and without batch norm."""
    s, images = SCALES[scale], base(scale, data).data
    first = {"pool": s.pool, "batch": s.batch, "window": s.window, "steps": s.steps, "rates": list(RATES)}
    asked: list[tuple[str, int, dict[str, Any]]] = [(AT_START, depth, {"images": s.images}) for depth in s.depths]
    asked += [(START, depth, first) for depth in s.start_depths]
    measurements = [
        Measurement(
            function,
            {"kind": kind, "depth": depth, "init": init, "norm": norm, **settings},
            data=images,
            seed=seed,
        )
        for seed in range(s.seeds)
        for function, depth, settings in asked
        for kind in ("plain", "resnet")
        for init in INITS
        for norm in ("none", "batch")
    ]
    return planned(TEXT, scale, measurements=measurements)


def judge(evidence: Evidence) -> StudyResult:
    """Judge the signals and gradients of the deepest nets, and which of the trained nets have started to learn."""
    signals, starts = (measured_by(evidence, function, Net.of) for function in (AT_START, START))
    deepest = max(net.depth for net in signals)
    figures: list[Figure] = [drawn] if (drawn := figure(signals, deepest)) else []
    found = rows(TEXT, [*claims(signals, deepest), *start_claims(starts)])
    return StudyResult(found, figures, tables(signals, starts), TEXT("words"), _answer(signals, starts))


def claims(nets: Groups[Net], depth: int) -> Iterator[Claim]:
    """What initialisation and batch norm do to signals and gradients of the deepest nets."""
    bare = [nets[Net("plain", init, "none", depth)] for init in INITS]
    small, xavier, he = bare
    with_bn = [nets[Net("plain", init, "batch", depth)] for init in INITS]
    he_bn = with_bn[-1]
    residual, residual_bn = (nets[Net("resnet", "he_fan_out", norm, depth)] for norm in ("none", "batch"))
    gradient, signal = _log("gradient_growth"), _log("signal_growth")
    layers = {"depth": depth}
    all_bare = together("plain", bare)
    yield claim(
        "vanishes",
        [less(_log_of_larger, small, than=math.log(VANISHING))],
        values={**layers, "vanishing": VANISHING},
        cell=lambda: _factors(small),
    )
    yield claim(
        "recursion",
        [no_more(_largest_error, all_bare, than=0.0, by=TOLERANCE)],
        needs=bare,
        values=layers,
        cell=lambda: {"error": 100 * all_bare.mean(_largest_error)},
    )
    yield claim(
        "he_above_xavier",
        [more(gradient, he, than=xavier)],
        values=layers,
        cell=lambda: {**_factors(xavier, "xavier_"), **_factors(he, "he_")},
    )
    yield claim(
        "multiplies",
        [more(signal, residual, than=residual_bn)],
        values=layers,
        cell=lambda: {
            "bare": growth(residual, "signal_growth") ** 4,
            "first": growth(residual, "first_stage") ** 4,
            "bn": growth(residual_bn, "signal_growth") ** 4,
        },
    )
    yield claim(
        "bn_keeps",
        [more(_log_of_rest, net, than=math.log(KEPT)) for net in with_bn],
        values={**layers, "kept": KEPT},
        cell=lambda: {"rest": [f"{net} {math.exp(net.mean(_log_of_rest)):.2g}" for net in with_bn]},
    )
    yield claim(
        "explodes", [more(gradient, he_bn, than=0.0)], values={**layers, "yang": YANG}, cell=lambda: _factors(he_bn)
    )
    yield claim(
        "tamed",
        [more(gradient, he_bn, than=residual_bn)],
        values=layers,
        cell=lambda: {**_factors(he_bn, "plain_"), **_factors(residual_bn, "residual_")},
    )


def start_claims(nets: Groups[Net]) -> Iterator[Claim]:
    """Which plain nets start to learn, and which do not."""
    for depth in sorted({net.depth for net in nets}):
        bare = {init: nets[Net("plain", init, "none", depth)] for init in INITS}
        with_bn = [nets[Net("plain", init, "batch", depth)] for init in INITS]
        layers = {"depth": depth}
        yield claim("gaussian_fails", [counted(started, bare["gaussian"], all_of=False)], values=layers)
        yield claim("he_starts", [counted(started, bare["he_fan_out"], all_of=True)], values=layers)
        yield claim("bn_starts", [counted(started, *with_bn, all_of=True)], values=layers)


def _log(key: str) -> Metric:
    return lambda values: math.log(values[key])


def _log_of_larger(values: dict[str, Any]) -> float:
    """The logarithm of the larger of both growths."""
    return max(math.log(values[key]) for key in ("signal_growth", "gradient_growth"))


def _log_of_rest(values: dict[str, Any]) -> float:
    """The logarithm of what all units leave of the signal on its way forward, or of the gradient on its way back."""
    signal, gradient = values["signal"], values["gradient"]
    return math.log(min(signal[-1] / signal[0], gradient[0] / gradient[-1]))


def _largest_error(values: dict[str, Any]) -> float:
    """The largest relative error of the growths predicted for the networks of one seed."""
    keys = ("signal_growth", "gradient_growth")
    return max(abs(net["predicted"][key] / net[key] - 1) for net in values["parts"] for key in keys)


def _factors(net: Group[Net], which: str = "") -> dict[str, float]:
    """For a text: what a layer multiplies signal and gradient by."""
    return {f"{which}{what}": growth(net, f"{what}_growth") for what in ("signal", "gradient")}


def _answer(signals: Groups[Net], starts: Groups[Net]) -> Words:
    deep, shallow = max(net.depth for net in signals), min(net.depth for net in starts)
    nets = {init: signals[Net("plain", init, "none", deep)] for init in INITS}
    normed = signals[Net("plain", "he_fan_out", "batch", deep)]
    if not all(net.done for net in (*nets.values(), normed)):
        return TEXT("answer.open")

    def counts(norm: str) -> list[str]:
        seeds = {name: starts[Net("plain", init, norm, shallow)].values for init, name in INITS.items()}
        return [f"{name} {sum(map(started, values))}/{len(values)}" for name, values in seeds.items()]

    return TEXT(
        "answer.measured",
        deep=deep,
        shallow=shallow,
        gaussian=growth(nets["gaussian"], "gradient_growth"),
        xavier=growth(nets["xavier"], "gradient_growth"),
        he=growth(nets["he_fan_out"], "gradient_growth"),
        bn=growth(normed, "gradient_growth"),
        without=counts("none"),
        with_bn=counts("batch"),
    )


STUDY = stated(TEXT, plan=plan, judge=judge)
