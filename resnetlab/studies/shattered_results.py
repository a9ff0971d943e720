"""The measurements of the study `shattered`, its figures and its tables."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from resnetlab.measuring.fully_connected import VARIANTS, predicted_correlation
from resnetlab.studies.figures.figure import Figure, Panel, Series, Table
from resnetlab.studies.frame.evidence import Evidence
from resnetlab.studies.frame.measurement import Measurement
from resnetlab.studies.frame.text import Both, Words

Key = tuple[str, int]  # of a fully connected net (variant, 0), of a convolutional one (kind, depth)
NOISE: Key = ("noise", 0)

NAMES: dict[str, Words] = {  # in the order of figures and tables; the overview shows the first
    "plain BN": Both("plain, BN", "平直，BN"),
    "plain": Both("plain, not centred", "平直，未中心化"),
    "plain centred": Both("plain, mean-centred", "平直，均值中心化"),
    "resnet": Both("residual, no BN, β = 1", "残差，无 BN，β = 1"),
    "resnet BN": Both("residual, BN, β = 1", "残差，BN，β = 1"),
    "resnet BN 0.1": Both("residual, BN, β = 0.1", "残差，BN，β = 0.1"),
}
KINDS = {"plain": "plain", "resnet": "residual"}


@dataclass(frozen=True)
class Group:
    """The answers of one measurement's function, seed by seed, and what failed of it, by network."""

    found: dict[Key, list[dict[str, Any]]]
    failed: dict[Key, list[Measurement]]

    @classmethod
    def of(cls, evidence: Evidence, function: str) -> Group:
        """What there is of that function."""

        def mine(m: Measurement) -> bool:
            return m.function.endswith(f":{function}")

        lost = [m for m in evidence.failed if isinstance(m, Measurement) and mine(m)]
        made = [m for m in evidence.measured if mine(m.measurement)]
        keys = {_key(m): None for m in (*(m.measurement for m in made), *lost)}
        return cls(
            {key: [m.values for m in made if _key(m.measurement) == key] for key in keys},
            {key: [m for m in lost if _key(m) == key] for key in keys},
        )

    @property
    def depths(self) -> list[int]:
        """Of convolutional nets: all that were planned. Of fully connected ones: those of the first that finished."""
        seeds = [values for group in self.found.values() for values in group]
        return sorted({depth for _, depth in self.found if depth}) or (seeds[0]["depths"] if seeds else [])

    def at(self, variant: str, depth: int, name: str) -> list[Any]:
        """A value of a fully connected net at one depth, seed by seed."""
        return [v[name][v["depths"].index(depth)] for v in self.found.get((variant, 0), [])]


def _key(m: Measurement) -> Key:
    s = m.settings
    return s.get("variant") or s.get("kind", "noise"), s.get("depth", 0)


def mean(values: Sequence[float | None]) -> float | None:
    """The mean of those that are there."""
    there = [v for v in values if v is not None]
    return statistics.fmean(there) if there else None


def cell(values: Sequence[float | None], digits: int = 2) -> str:
    """The mean as text, or a dash."""
    found = mean(values)
    return "–" if found is None else f"{found + 0.0:.{digits}f}"


def _series(label: str, colour: int, x: Sequence[float], columns: Sequence[Sequence[float | None]]) -> Series | None:
    """A line over seeds: `columns` holds the seeds' values at each x. None without a value."""
    kept = [(a, there) for a, column in zip(x, columns, strict=True) if (there := [v for v in column if v is not None])]
    if not kept:
        return None
    return Series(
        label,
        False,
        colour,
        [float(a) for a, _ in kept],
        [statistics.fmean(there) for _, there in kept],
        [min(there) for _, there in kept],
        [max(there) for _, there in kept],
    )


def _acf_series(label: str, colour: int, curves: Sequence[list[float] | None]) -> Series | None:
    there = [curve for curve in curves if curve is not None]
    columns = list(zip(*there, strict=True))
    return _series(label, colour, range(len(columns)), columns)


def _panel(title: Words, x: str, y: str, series: Sequence[Series | None], **how: Any) -> list[Panel]:
    there = [s for s in series if s is not None]
    return [Panel(title, x, y, there, **how)] if there else []


def figures(grid: Group, pairs: Group, noise: Group, pixels: Group) -> list[Figure]:
    """Balduzzi's Figure 2 with the variants that it leaves out, the theorems, and convolutional nets."""
    return [figure for figure in (_acf(grid, noise), _theorems(pairs), _pixels(pixels)) if figure.panels]


def _acf(grid: Group, noise: Group) -> Figure:
    panels: list[Panel] = []
    for variant in NAMES:
        series = [_acf_series(f"L = {L}", i, grid.at(variant, L, "acf")) for i, L in enumerate(grid.depths)]
        panels += _panel(NAMES[variant], "lag (grid points)", "autocorrelation", series, y_limits=(-0.3, 1.0))
    seeds = noise.found.get(NOISE, [])
    series = [_acf_series(name, i, [v[name] for v in seeds]) for i, name in enumerate(("brown", "white"))]
    panels += _panel(Both("noise", "噪声"), "lag (grid points)", "autocorrelation", series, y_limits=(-0.3, 1.0))
    caption = Both(
        "Autocorrelation of df/dx along 256 points of a line, for random fully connected nets of L layers or blocks; "
        "mean over seeds, bands from the lowest to the highest (as Balduzzi 2017, Figure 2).",
        "L 层（或 L 块）随机全连接网络的 df/dx 沿直线上 256 个点的自相关；取各随机种子的均值，色带为最低到最高"
        "（对应 Balduzzi 2017，图 2）。",
    )
    return Figure("autocorrelation", caption, panels)


_THEOREMS: tuple[tuple[Words, tuple[str, ...]], ...] = (
    (Both("Theorem 1: plain", "定理 1：平直"), ("plain BN", "plain centred", "plain")),
    (Both("Theorem 2: residual, no BN", "定理 2：残差，无 BN"), ("resnet",)),
    (Both("Theorem 3: residual, BN", "定理 3：残差，BN"), ("resnet BN", "resnet BN 0.1")),
)


def _theorems(pairs: Group) -> Figure:
    panels: list[Panel] = []
    depths = pairs.depths
    fine = [float(d) for d in range(1, max(depths, default=1) + 1)]
    for title, variants in _THEOREMS:
        series: list[Series | None] = []
        for colour, variant in enumerate(variants):
            measured = _series(
                f"{variant} measured", colour, depths, [pairs.at(variant, L, "correlation") for L in depths]
            )
            if measured is None:
                continue
            series.append(Series(**{**vars(measured), "marks": True}))
            if variant in ("plain BN", "resnet", "resnet BN", "resnet BN 0.1"):
                curve = [predicted_correlation(VARIANTS[variant], int(d)) for d in fine]
                series.append(Series(f"{variant} theory", True, colour, fine, curve, curve, curve))
            if variant == "resnet BN":
                curve = [predicted_correlation(VARIANTS[variant], int(d), centred=True) for d in fine]
                series.append(Series("BN takes the mean away theory", True, 2, fine, curve, curve, curve))
        panels += _panel(title, "L", "correlation", series, y_limits=(0.0, 1.0), x_log=True)
    caption = Both(
        "Correlation of gradients at pairs of independent points, and the theorems' curves (dashed). The third curve "
        "of "
        "the last panel counts that BN takes the mean away before it divides.",
        "独立点对处梯度的相关，以及各定理的曲线（虚线）。最后一幅中的第三条曲线计入 BN 在相除之前先减去均值。",
    )
    return Figure("theorems", caption, panels)


def _pixels(pixels: Group) -> Figure:
    depths = pixels.depths
    if not depths:
        return Figure("pixels", "", [])
    deepest: list[Series | None] = []
    for i, (kind, word) in enumerate(KINDS.items()):
        deepest.append(
            _acf_series(f"{word}-{depths[-1]}", i, [v["acf"] for v in pixels.found.get((kind, depths[-1]), [])])
        )
    some = [v for group in pixels.found.values() for v in group]
    deepest.append(_acf_series("images", 2, [v["images"] for v in some]))
    deepest.append(_acf_series("white noise", 3, [v["white"] for v in some]))

    def by_depth(name: str, lag: int | None = None) -> list[Series | None]:
        def column(kind: str, depth: int) -> list[float | None]:
            found = [v[name] for v in pixels.found.get((kind, depth), [])]
            return [v if lag is None or v is None else v[lag] for v in found]

        return [
            _series(word, i, depths, [column(kind, d) for d in depths]) for i, (kind, word) in enumerate(KINDS.items())
        ]

    panels = [
        *_panel(Both("Deepest nets", "最深的网络"), "lag (pixels)", "autocorrelation", deepest),
        *_panel(Both("Neighbouring pixels", "相邻像素"), "layers", "autocorrelation at lag 1", by_depth("acf", 1)),
        *_panel(Both("Effective rank", "有效秩"), "layers", "rank / that of white noise", by_depth("rank")),
    ]
    caption = Both(
        "The gradient of the loss with respect to the pixels, before training: its autocorrelation over the image, and "
        "the effective rank of a batch's gradients; mean over seeds, bands from the lowest to the highest.",
        "训练之前损失对像素的梯度：其在图像上的自相关，以及一个批次梯度的有效秩；取各随机种子的均值，色带为最低到最"
        "高。",
    )
    return Figure("pixels", caption, panels)


def tables(grid: Group, pairs: Group, pixels: Group) -> list[Table]:
    """Autocorrelations and shared units; correlations beside the theorems'; convolutional nets."""
    return [_grid_table(grid), _pairs_table(pairs), _pixels_table(pixels)]


def _grid_table(grid: Group) -> Table:
    def entry(variant: str, L: int) -> str:
        curves = grid.at(variant, L, "acf")
        at = [cell([c and c[lag] for c in curves]) for lag in (1, 5)]
        return " / ".join([*at, cell(grid.at(variant, L, "coactive"))])

    return Table(
        Both(
            "Fully connected nets: autocorrelation at lag 1 / at lag 5 / share of the last layer's units that are "
            "active "
            "at both of two points.",
            "全连接网络：滞后 1 的自相关 / 滞后 5 的自相关 / 最后一层中在两点上同时激活的单元比例。",
        ),
        (Both("network", "网络"), *(f"L = {L}" for L in grid.depths)),
        [
            [NAMES[variant], *(entry(variant, L) for L in grid.depths)]
            for variant in NAMES
            if (variant, 0) in grid.found
        ],
    )


def _pairs_table(pairs: Group) -> Table:
    def entry(variant: str, L: int) -> str:
        theory = predicted_correlation(VARIANTS[variant], L)
        measured, shared = pairs.at(variant, L, "correlation"), pairs.at(variant, L, "coactive")
        return f"{cell(measured, 3)} ({theory:.3f}) {cell(shared)}"

    return Table(
        Both(
            "Correlation of gradients at independent points (by theorem), and the share of the last layer's units that "
            "pairs have in common, which the theorems take to be 0.25.",
            "独立点处梯度的相关（括号内为定理值），以及点对在最后一层共有的激活单元比例，定理假设其为 0.25。",
        ),
        (Both("network", "网络"), *(f"L = {L}" for L in pairs.depths)),
        [
            [NAMES[variant], *(entry(variant, L) for L in pairs.depths)]
            for variant in NAMES
            if (variant, 0) in pairs.found
        ],
    )


def _pixels_table(pixels: Group) -> Table:
    rows: list[list[Words]] = []
    for (kind, depth), seeds in sorted(pixels.found.items(), key=lambda item: (item[0][1], item[0][0])):
        at = [cell([v["acf"] and v["acf"][lag] for v in seeds], 3) for lag in (1, 2)]
        rows.append([f"{KINDS[kind]}-{depth}", *at, cell([v["rank"] for v in seeds]), str(len(seeds))])
    seeds = [v for group in pixels.found.values() for v in group]
    for name, words in (("images", Both("the images", "图像本身")), ("white", Both("white noise", "白噪声"))):
        at = [cell([v[name] and v[name][lag] for v in seeds], 3) for lag in (1, 2)]
        rows.append([words, *at, cell([v["image_rank"] for v in seeds]) if name == "images" else "1", "–"])
    return Table(
        Both(
            "Convolutional nets: autocorrelation of the pixels' gradients at lags 1 and 2, and the effective rank of "
            "a batch's gradients in parts of that of white noise.",
            "卷积网络：像素梯度在滞后 1 和 2 处的自相关，以及一个批次梯度的有效秩与白噪声之比。",
        ),
        (
            *(Both("network", "网络"), Both("lag 1", "滞后 1"), Both("lag 2", "滞后 2")),
            *(Both("relative rank", "相对秩"), Both("seeds", "种子数")),
        ),
        rows,
    )
