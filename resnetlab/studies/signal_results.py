"""The measurements of the study `signal` by network, its figure and its tables."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from resnetlab.studies.figures.figure import Figure, Panel, Series, Table
from resnetlab.studies.frame.claims import Row, judged_row
from resnetlab.studies.frame.evidence import Evidence
from resnetlab.studies.frame.measurement import Measurement
from resnetlab.studies.frame.statistics import Verdict
from resnetlab.studies.frame.text import Both, Words

KINDS = {"plain": Both("plain", "平直"), "resnet": Both("residual", "残差")}
INITS = {"gaussian": "gaussian", "xavier": "Xavier", "he_fan_out": "He"}
NORMS = {"none": Both("no BN", "无 BN"), "batch": Both("BN", "有 BN")}
YANG = math.sqrt(math.pi / (math.pi - 1))  # growth of the gradient's norm per layer with BN (Yang et al. 2019)


class Net(NamedTuple):
    """A network that is measured."""

    kind: str
    init: str
    norm: str
    depth: int

    @classmethod
    def of(cls, measurement: Measurement) -> Net:
        """The network of a measurement."""
        s = measurement.settings
        return cls(s["kind"], s["init"], s["norm"], s["depth"])


@dataclass(frozen=True)
class Group:
    """The answers of one measurement's function, and what failed of it, by network."""

    found: dict[Net, list[dict[str, Any]]]
    failed: dict[Net, list[Measurement]]

    @classmethod
    def of(cls, evidence: Evidence, function: str) -> Group:
        """What there is of that function."""

        def mine(m: Measurement) -> bool:
            return m.function.endswith(f":{function}")

        lost = [m for m in evidence.failed if isinstance(m, Measurement) and mine(m)]
        made = [m for m in evidence.measured if mine(m.measurement)]
        nets = {Net.of(m): None for m in (*(m.measurement for m in made), *lost)}
        return cls(
            {net: [m.values for m in made if Net.of(m.measurement) == net] for net in nets},
            {net: [m for m in lost if Net.of(m) == net] for net in nets},
        )

    @property
    def depths(self) -> list[int]:
        """All that were planned."""
        return sorted({net.depth for net in self.found})

    def row(self, claim: Words, paper: Words, nets: list[Net], measure: Callable[[], tuple[Words, Verdict]]) -> Row:
        """The row of a claim that needs these networks."""
        return judged_row(claim, paper, [self.found[n] for n in nets], [self.failed[n] for n in nets], measure)

    def logs(self, net: Net, key: str) -> list[float]:
        """The logarithm of a growth per layer, seed by seed."""
        return [math.log(values[key]) for values in self.found[net]]


def mean(values: list[float]) -> float:
    """The geometric mean."""
    return statistics.geometric_mean(values)


def growth(group: Group, net: Net, key: str) -> float:
    """The geometric mean over seeds of a growth per layer."""
    return mean([values[key] for values in group.found[net]])


def factors(group: Group, net: Net) -> Both:
    """What a layer multiplies signal and gradient by, in words."""
    signal, gradient = (growth(group, net, key) for key in ("signal_growth", "gradient_growth"))
    return Both(
        f"per layer, signal times {signal:.3f}, gradient times {gradient:.3f}",
        f"每层信号乘以 {signal:.3f}，梯度乘以 {gradient:.3f}",
    )


def figures(group: Group) -> list[Figure]:
    """Signal and gradient of the deepest nets unit by unit, beside theory."""
    depth = group.depths[-1]
    panels = [
        _panel(group, depth, "plain", "none", "signal", Both("Plain, no BN: signal", "平直网络，无 BN：信号")),
        _panel(group, depth, "plain", "none", "gradient", Both("Plain, no BN: gradient", "平直网络，无 BN：梯度")),
        _panel(group, depth, "resnet", "none", "signal", Both("Residual, no BN: signal", "残差网络，无 BN：信号")),
        _panel(group, depth, "resnet", "none", "gradient", Both("Residual, no BN: gradient", "残差网络，无 BN：梯度")),
        _panel(group, depth, "plain", "batch", "gradient", Both("Plain, BN: gradient", "平直网络，有 BN：梯度")),
        _panel(group, depth, "resnet", "batch", "gradient", Both("Residual, BN: gradient", "残差网络，有 BN：梯度")),
    ]
    caption = Both(
        f"Root mean square of each unit's y, and norm of the loss's gradient with respect to it, in nets of {depth} "
        "layers before training; geometric means over seeds, bars from the lowest to the highest. Dashed: He's "
        "recursion; for residual nets without BN, 2 per unit in the variance; with BN, Yang's 1.21 per layer.",
        f"训练之前 {depth} 层网络中每个单元 y 的均方根，以及损失对它的梯度范数；各随机种子的几何平均，误差线为最低到"
        "最高。"
        "虚线：He 的递推式；无 BN 的残差网络为每单元方差乘以 2；有 BN 时为 Yang 的每层 1.21 倍。",
    )
    panels = [panel for panel in panels if panel.series]
    return [Figure("signals", caption, panels)] if panels else []


def _panel(group: Group, depth: int, kind: str, norm: str, what: str, title: Words) -> Panel:
    series: list[Series] = []
    for colour, (init, name) in enumerate(INITS.items()):
        seeds = group.found.get(Net(kind, init, norm, depth), [])
        if not seeds:
            continue
        by_unit = list(zip(*(values[what] for values in seeds), strict=True))
        x = [float(i) for i in range(1, len(by_unit) + 1)]
        middle = [mean(list(unit)) for unit in by_unit]
        low, high = [min(unit) for unit in by_unit], [max(unit) for unit in by_unit]
        series.append(Series(f"{name} measured", False, colour, x, middle, low, high, marks=True))
        curve = _theory(seeds, middle, what, kind, norm, init)
        if curve:
            series.append(Series(f"{name} theory", True, colour, x, curve, curve, curve))
    label = "root mean square" if what == "signal" else "gradient norm"
    return Panel(title, "unit", label, series, y_log=True)


def _theory(
    seeds: list[dict[str, Any]], middle: list[float], what: str, kind: str, norm: str, init: str
) -> list[float]:
    """The curve of theory, through the first measured signal or the last gradient; empty if there is none."""
    units = len(middle)
    if "predicted" in seeds[0]:
        return [mean(list(unit)) for unit in zip(*(values["predicted"][what] for values in seeds), strict=True)]
    if kind == "resnet" and norm == "none" and init == "he_fan_out":
        steps = [math.sqrt(2) ** i for i in range(units)]
        return [middle[0] * s for s in steps] if what == "signal" else []
    if kind == "plain" and norm == "batch" and what == "gradient":
        return [middle[-1] * YANG ** (2 * (units - 1 - i)) for i in range(units)]
    return []


def tables(signals: Group, starts: Group) -> list[Table]:
    """Growth per layer of every network, and when those that were trained started."""

    def cells(net: Net) -> list[Words]:
        seeds = signals.found[net]
        words: list[Words] = [f"{net.kind}-{net.depth}", INITS[net.init], NORMS[net.norm]]
        for key in ("signal_growth", "gradient_growth"):
            words.append(f"{growth(signals, net, key):.3f}" if seeds else "–")
            theory = [values["predicted"][key] for values in seeds if "predicted" in values]
            plain_bn = net.kind == "plain" and net.norm == "batch"
            words.append(
                f"{mean(theory):.3f}" if theory else f"{YANG:.3f}" if plain_bn and key == "gradient_growth" else "–"
            )
        return [*words, str(len(seeds))]

    header = (Both("network", "网络"), Both("initialisation", "初始化"), "BN")
    growths = Table(
        Both(
            "Growth per layer of the signal (forward) and of the gradient's norm (backward), within stages.",
            "同一阶段内信号（前向）与梯度范数（反向）的每层增长率。",
        ),
        (
            *header,
            *(Both("signal", "信号"), Both("theory", "理论"), Both("gradient", "梯度"), Both("theory", "理论")),
            Both("seeds", "种子数"),
        ),
        [cells(net) for net in sorted(signals.found)],
    )
    first = Table(
        Both(
            "The first steps: how many seeds started, and at the rate at which they did, after how many steps.",
            "最初的训练步：有多少随机种子起步，以及在起步的学习率下用了多少步。",
        ),
        (*header, Both("started", "起步"), Both("rate: steps", "学习率：步数")),
        [
            [
                *(f"{net.kind}-{net.depth}", INITS[net.init], NORMS[net.norm]),
                f"{sum(v['step'] is not None for v in seeds)}/{len(seeds)}",
                ", ".join(f"{v['rate']:g}: {v['step']}" for v in seeds if v["step"] is not None) or "–",
            ]
            for net, seeds in sorted(starts.found.items())
        ],
    )
    return [growths, first]
