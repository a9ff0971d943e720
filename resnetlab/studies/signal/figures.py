"""What the study `signal` shows: signals and gradients beside theory, and the tables of growth and of first steps."""

from __future__ import annotations

import math
import statistics
from typing import Any, NamedTuple

from resnetlab.studies.figures.figure import Figure, Panel, Series, Table, table
from resnetlab.studies.figures.series import over_seeds
from resnetlab.studies.frame.evidence import Group, Groups
from resnetlab.studies.frame.measurement import Measurement
from resnetlab.studies.frame.text import Catalogue, Words

TEXT = Catalogue.of(__name__)
INITS = {"gaussian": "gaussian", "xavier": "Xavier", "he_fan_out": "He"}
YANG = math.sqrt(math.pi / (math.pi - 1))  # growth of the gradient's norm per layer with BN (Yang et al. 2019)
_PANELS = (  # of networks of a kind and norm, what is drawn
    ("plain", "none", "signal"),
    ("plain", "none", "gradient"),
    ("resnet", "none", "signal"),
    ("resnet", "none", "gradient"),
    ("plain", "batch", "gradient"),
    ("resnet", "batch", "gradient"),
)


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

    def __str__(self) -> str:
        return f"{self.kind}-{self.depth} ({INITS[self.init]}{', BN' if self.norm == 'batch' else ''})"


def growth(net: Group[Net], key: str) -> float:
    """The geometric mean over seeds of a growth per layer."""
    return statistics.geometric_mean(values[key] for values in net.values)


def started(values: dict[str, Any]) -> bool:
    """Whether a network has started to learn."""
    return values["step"] is not None


def figure(nets: Groups[Net], depth: int) -> Figure | None:
    """Signal and gradient of the deepest nets unit by unit, beside theory; none if nothing was measured."""
    panels = [_panel(nets, depth, *shown) for shown in _PANELS]
    panels = [panel for panel in panels if panel.series]
    return Figure("signals", TEXT("figures.signals.caption", depth=depth), panels) if panels else None


def _panel(nets: Groups[Net], depth: int, kind: str, norm: str, what: str) -> Panel:
    series: list[Series] = []
    for colour, (init, name) in enumerate(INITS.items()):
        net = nets[Net(kind, init, norm, depth)]
        if not net.done:
            continue
        seeds = [values[what] for values in net.values]
        units = range(1, len(seeds[0]) + 1)
        mean = statistics.geometric_mean
        series.append(over_seeds(f"{name} measured", colour, units, seeds, marks=True, mean=mean))
        if curve := _theory(net, [mean(unit) for unit in zip(*seeds, strict=True)], what):
            series.append(over_seeds(f"{name} theory", colour, units, [curve], dashed=True))
    label = "root mean square" if what == "signal" else "gradient norm"
    return Panel(TEXT(f"figures.signals.{kind}_{norm}_{what}"), "unit", label, series, y_log=True)


def _theory(net: Group[Net], measured: list[float], what: str) -> list[float]:
    """The predicted curve, drawn through the first measured signal or the last gradient; empty without a prediction."""
    kind, init, norm, _ = net.key
    units = len(measured)
    if "predicted" in net.values[0]:
        by_unit = zip(*(values["predicted"][what] for values in net.values), strict=True)
        return [statistics.geometric_mean(unit) for unit in by_unit]
    if (kind, norm, init, what) == ("resnet", "none", "he_fan_out", "signal"):
        return [measured[0] * math.sqrt(2) ** i for i in range(units)]
    if (kind, norm, what) == ("plain", "batch", "gradient"):
        return [measured[-1] * YANG ** (2 * (units - 1 - i)) for i in range(units)]
    return []


def tables(signals: Groups[Net], starts: Groups[Net]) -> list[Table]:
    """The growth per layer of every network, and for those that were trained, when they started to learn."""
    growths: list[list[Words]] = [
        [*_named(net.key), *_cells(net, "signal_growth"), *_cells(net, "gradient_growth"), str(len(net.done))]
        for net in signals.values()
    ]
    first: list[list[Words]] = [
        [
            *_named(net.key),
            f"{sum(map(started, net.values))}/{len(net.done)}",
            ", ".join(f"{v['rate']:g}: {v['step']}" for v in net.values if started(v)) or "–",
        ]
        for net in starts.values()
    ]
    return [table(TEXT, "growths", growths), table(TEXT, "starts", first)]


def _named(net: Net) -> list[Words]:
    return [f"{net.kind}-{net.depth}", INITS[net.init], TEXT(f"norms.{net.norm}")]


def _cells(net: Group[Net], key: str) -> list[Words]:
    """A growth as it was measured and as theory predicts it."""
    theory = [values["predicted"][key] for values in net.values if "predicted" in values]
    expected = f"{statistics.geometric_mean(theory):.3f}" if theory else "–"
    if (net.key.kind, net.key.norm, key) == ("plain", "batch", "gradient_growth"):
        expected = f"{YANG:.3f}"
    return [f"{growth(net, key):.3f}" if net.done else "–", expected]
