"""What the study `shattered` shows: autocorrelations, correlations beside the theorems', and the tables of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from resnetlab.measuring.fully_connected import VARIANTS, predicted_correlation
from resnetlab.studies.figures.figure import Figure, Panel, Series, Table, table
from resnetlab.studies.figures.series import along, over_seeds
from resnetlab.studies.frame.evidence import Group, Groups
from resnetlab.studies.frame.measurement import Measured
from resnetlab.studies.frame.networks import KINDS, Net
from resnetlab.studies.frame.text import Catalogue, Words

TEXT = Catalogue.of(__name__)
NAMES = {  # of the variants, in the order of figures and tables; the overview shows the first
    "plain BN": TEXT("variants.plain_bn"),
    "plain": TEXT("variants.plain"),
    "plain centred": TEXT("variants.plain_centred"),
    "resnet": TEXT("variants.residual"),
    "resnet BN": TEXT("variants.residual_bn"),
    "resnet BN 0.1": TEXT("variants.residual_bn_small"),
}
_THEOREMS = {  # a panel of each, and the variants in it
    "figures.theorems.first": ("plain BN", "plain centred", "plain"),
    "figures.theorems.second": ("resnet",),
    "figures.theorems.third": ("resnet BN", "resnet BN 0.1"),
}
_WITH_CURVE = ("plain BN", "resnet", "resnet BN", "resnet BN 0.1")  # all plain nets have one curve


def depths(nets: Groups[str]) -> list[int]:
    """The depths of the fully connected nets, shallowest first, as the first finished measurement has them."""
    return next((values["depths"] for net in nets.values() for values in net.values), [])


def at(net: Group[str], depth: int) -> Group[str]:
    """What was measured of a fully connected net at one of its depths."""

    def there(values: dict[str, Any]) -> dict[str, Any]:
        i = values["depths"].index(depth)
        return {name: by_depth[i] for name, by_depth in values.items()}

    return replace(net, done=[replace(one, values=there(one.values)) for one in net.done if isinstance(one, Measured)])


def found(net: Group[Any], name: str) -> list[Any]:
    """What was measured under a name, seed by seed; None where the gradients have vanished."""
    return [values[name] for values in net.values]


def mean(values: Sequence[float | None]) -> float | None:
    """The mean of the values that are not None; None if there are none."""
    there = [v for v in values if v is not None]
    return statistics.fmean(there) if there else None


def cell(values: Sequence[float | None], digits: int = 2) -> str:
    """The mean as text, or a dash."""
    value = mean(values)
    return "–" if value is None else f"{value:.{digits}f}"


def at_lag(lag: int, curves: Sequence[list[float] | None], digits: int = 2) -> str:
    """The mean autocorrelation at a lag, as text."""
    return cell([None if curve is None else curve[lag] for curve in curves], digits)


def figures(
    on_line: Groups[str],
    at_pairs: Groups[str],
    of_noise: Group[str],
    of_images: Groups[Net],
    trained: Groups[Net],
) -> list[Figure]:
    """Balduzzi's Figure 2 with the variants that it leaves out, the theorems, and convolutional nets."""
    drawn = (_line(on_line, of_noise), _theorems(at_pairs), _pixels(of_images, trained))
    return [figure for figure in drawn if figure.panels]


def _line(on_line: Groups[str], of_noise: Group[str]) -> Figure:
    shown = {
        name: [_acf(f"L = {L}", i, found(at(on_line[variant], L), "acf")) for i, L in enumerate(depths(on_line))]
        for variant, name in NAMES.items()
    }
    shown[TEXT("figures.autocorrelation.noise")] = [
        _acf(kind, i, found(of_noise, kind)) for i, kind in enumerate(("brown", "white"))
    ]
    panels = [
        panel
        for name, series in shown.items()
        for panel in _panel(name, "lag (grid points)", "autocorrelation", series, y_limits=(-0.3, 1.0))
    ]
    return Figure("autocorrelation", TEXT("figures.autocorrelation.caption"), panels)


def _theorems(at_pairs: Groups[str]) -> Figure:
    panels: list[Panel] = []
    for title, variants in _THEOREMS.items():
        series: list[Series] = []
        for colour, variant in enumerate(variants):
            by_depth = [(L, found(at(at_pairs[variant], L), "correlation")) for L in depths(at_pairs)]
            measured = along(f"{variant} measured", colour, by_depth, marks=True)
            if not measured.x:
                continue
            series.append(measured)
            if variant in _WITH_CURVE:
                series.append(_curve(f"{variant} theory", colour, variant, depths(at_pairs)[-1]))
            if variant == "resnet BN":
                name = "BN takes the mean away theory"
                series.append(_curve(name, 2, variant, depths(at_pairs)[-1], centred=True))
        panels += _panel(TEXT(title), "L", "correlation", series, y_limits=(0.0, 1.0), x_log=True)
    return Figure("theorems", TEXT("figures.theorems.caption"), panels)


def _pixels(nets: Groups[Net], trained: Groups[Net]) -> Figure:
    deepest = [net for kind in KINDS for net in nets.of(kind)[-1:]]
    curves = {str(net): found(net, "acf") for net in deepest}
    curves["images"] = [curve for net in nets.values() for curve in found(net, "images")]
    curves["white noise"] = [curve for net in nets.values() for curve in found(net, "white")]
    acf = [_acf(label, i, seeds) for i, (label, seeds) in enumerate(curves.items())]
    neighbours: list[Series] = []
    after: list[Series] = []
    ranks: list[Series] = []
    for i, kind in enumerate(KINDS):
        for lines, some in ((neighbours, nets), (after, trained)):
            by_depth = [(net.key.depth, [curve and curve[1] for curve in found(net, "acf")]) for net in some.of(kind)]
            lines.append(along(kind, i, by_depth))
        ranks.append(along(kind, i, [(net.key.depth, found(net, "rank")) for net in nets.of(kind)]))
    panels = [
        *_panel(TEXT("figures.pixels.deepest"), "lag (pixels)", "autocorrelation", acf),
        *_panel(TEXT("figures.pixels.neighbours"), "layers", "autocorrelation at lag 1", neighbours),
        *_panel(TEXT("figures.pixels.after"), "layers", "autocorrelation at lag 1", after),
        *_panel(TEXT("figures.pixels.rank"), "layers", "rank / that of white noise", ranks),
    ]
    return Figure("pixels", TEXT("figures.pixels.caption"), panels)


def _panel(title: Words, x: str, y: str, series: Sequence[Series], **how: Any) -> list[Panel]:
    """A panel of the lines that have points; an empty list if none has."""
    there = [line for line in series if line.x]
    return [Panel(title, x, y, there, **how)] if there else []


def _acf(label: str, colour: int, curves: Sequence[list[float] | None]) -> Series:
    """The autocorrelation by lag, over the seeds whose gradients have not vanished."""
    there = [curve for curve in curves if curve is not None]
    return over_seeds(label, colour, range(len(there[0])) if there else (), there)


def _curve(label: str, colour: int, variant: str, deepest: int, *, centred: bool = False) -> Series:
    """A theorem's correlation at every depth."""
    x = range(1, deepest + 1)
    return over_seeds(
        label, colour, x, [[predicted_correlation(VARIANTS[variant], L, centred=centred) for L in x]], dashed=True
    )


def tables(on_line: Groups[str], at_pairs: Groups[str], of_images: Groups[Net], trained: Groups[Net]) -> list[Table]:
    """Autocorrelations and shared units; correlations beside the theorems'; convolutional nets."""

    def line(net: Group[str], L: int) -> str:
        acf = found(at(net, L), "acf")
        return " / ".join([at_lag(1, acf), at_lag(5, acf), cell(found(at(net, L), "coactive"))])

    def pair(net: Group[str], L: int) -> str:
        theory = predicted_correlation(VARIANTS[net.key], L)
        return f"{cell(found(at(net, L), 'correlation'), 3)} ({theory:.3f}) {cell(found(at(net, L), 'coactive'))}"

    return [
        _with_depths(table(TEXT, "line", _cells(on_line, line)), on_line),
        _with_depths(table(TEXT, "pairs", _cells(at_pairs, pair)), at_pairs),
        table(TEXT, "pixels", _pixel_cells(of_images, trained)),
    ]


def _cells(nets: Groups[str], entry: Callable[[Group[str], int], str]) -> list[list[Words]]:
    """A row for each variant, with an entry for each depth."""
    there = [(name, nets[variant]) for variant, name in NAMES.items() if variant in nets]
    return [[name, *(entry(net, L) for L in depths(nets))] for name, net in there]


def _with_depths(made: Table, nets: Groups[str]) -> Table:
    """The table with the depths in its header."""
    return replace(made, header=[*made.header, *(f"L = {L}" for L in depths(nets))])


def _pixel_cells(nets: Groups[Net], trained: Groups[Net]) -> list[list[Words]]:
    cells: list[list[Words]] = []
    for key, some in (("tables.pixels.untrained", nets), ("tables.pixels.trained", trained)):
        for net in sorted(some.values(), key=lambda net: (net.key.depth, net.key.kind)):
            acf = [at_lag(lag, found(net, "acf"), 3) for lag in (1, 2)]
            cells.append([TEXT(key, net=net), *acf, cell(found(net, "rank")), str(len(net.done))])
    images, white, ranks = (
        [one for net in nets.values() for one in found(net, name)] for name in ("images", "white", "image_rank")
    )
    cells.append([TEXT("tables.pixels.images"), at_lag(1, images, 3), at_lag(2, images, 3), cell(ranks), "–"])
    cells.append([TEXT("tables.pixels.white"), at_lag(1, white, 3), at_lag(2, white, 3), "1", "–"])
    return cells
