"""Draws a study's figure: its panels for a page, or the whole as an SVG file; one picture for light and dark."""

from __future__ import annotations

import contextlib
import math
import re
import textwrap
import warnings
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.etree import ElementTree

from resnetlab.studies.figures import labels
from resnetlab.studies.figures.figure import Figure, Panel, Series
from resnetlab.studies.figures.svg import (
    DARK,
    IN_LANGUAGE,
    LIGHT,
    SANS,
    STAND_INS,
    declarations,
    readers_language,
    to_file,
    to_svg,
)
from resnetlab.studies.frame.text import LANGUAGES, Both, Words, both

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure as Canvas
    from matplotlib.text import Text
    from matplotlib.ticker import Locator

_COLOURS = sum(name.startswith("c") for name in LIGHT)

_WIDTH, _HEIGHT, _SIZE = 390.0, 275.0, 11.5  # of a panel and its letters, in the picture's units
_TITLE = 26.0  # height of a standalone panel's title
_LINE = 1.25 * _SIZE
_FEW, _LEAST_APART = 6, 0.1  # ticks at the points themselves: at most how many, and how much of the axis between them
_LABEL_GAP, _LABEL_CHARS = 18.0, 16


class Area(NamedTuple):
    """A rectangle of the picture; the origin is at the lower left."""

    left: float
    bottom: float
    width: float
    height: float


def styles(figure: Figure) -> dict[bool, str]:
    """What dashed (True) and solid (False) lines mean, e.g. training and test: the words their labels end with.

    Empty if the figure has only one kind of line, or the labels of a kind do not agree.
    """
    ends: dict[bool, set[str]] = {True: set(), False: set()}
    for panel in figure.panels:
        for series in panel.series:
            ends[series.dashed].add(series.label.rpartition(" ")[2])
    agreed = {dashed: next(iter(words)) for dashed, words in ends.items() if len(words) == 1}
    return agreed if len(set(agreed.values())) == 2 else {}


def line_name(series: Series, meaning: dict[bool, str]) -> str:
    """A line's label without what its dashes already say: "plain-20" for "plain-20 test"."""
    return series.label.removesuffix(meaning.get(series.dashed, "")).strip() or series.label


def colour_of(series: Series, figure: Figure) -> str:
    """Name of a line's CSS variable; a figure of few colours takes them from the whole range."""
    highest = max(s.colour for p in figure.panels for s in p.series)
    return f"c{round(series.colour * (_COLOURS - 1) / max(highest, 1))}"


def draw_panel(figure: Figure, panel: Panel, prefix: str) -> str:
    """One panel as an SVG element for a page that defines the variables; ids begin with `prefix`.

    Words stand in it in both languages, of which the page shows one; `data-label-zh` names it in Chinese. `data-box`
    (left, top, right, bottom of the axes) and `data-x` (their limits) let a script find an x.
    """
    with _canvas(_WIDTH, _HEIGHT) as canvas:
        axes = canvas.add_axes((0, 0, 1, 1))
        box = _plot(axes, figure, panel, Area(0, 0, _WIDTH, _HEIGHT))
        limits, y_limits = axes.get_xlim(), axes.get_ylim()
        root = to_svg(canvas, prefix)
    del root.attrib["width"], root.attrib["height"]
    root.set("role", "img")
    name = labels.panel(panel.title, panel.x_label, panel.y_label)
    root.set("aria-label", name.en)
    root.set("data-label-zh", name.zh)
    top, bottom = _HEIGHT - box.bottom - box.height, _HEIGHT - box.bottom
    root.set("data-box", f"{box.left:.1f} {top:.1f} {box.left + box.width:.1f} {bottom:.1f}")
    root.set("data-x", " ".join(f"{along(x, panel):g}" for x in limits))
    root.set("data-y", " ".join(f"{math.log10(y) if panel.y_log else y:g}" for y in y_limits))
    return ElementTree.tostring(root, encoding="unicode")


def along(x: float, panel: Panel) -> float:
    """Where an x lies along its axis, in the axis' own measure."""
    return math.log10(x) if panel.x_log else x


def draw(figure: Figure, prefix: str) -> str:
    """The whole figure as an SVG file of its own, which follows the reader's light or dark scheme and language."""
    with _whole(figure) as canvas:
        root = readers_language(to_svg(canvas, prefix))
        width, height = canvas.get_size_inches() * 72
    root.set("xmlns", "http://www.w3.org/2000/svg")
    root.attrib |= {"width": f"{width:g}", "height": f"{height:g}", "role": "img", "aria-label": str(figure.caption)}
    dark = f"@media (prefers-color-scheme: dark) {{ svg {{ {declarations(DARK)} }} }}"
    style = ElementTree.Element("style")
    style.text = f"svg {{ --sans: {SANS}; {declarations(LIGHT)} }} {dark}"
    paper = ElementTree.Element("rect", width="100%", height="100%", style="fill: var(--paper)")
    root[:0] = [style, paper]
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def draw_file(figure: Figure, kind: str, metadata: dict[str, str]) -> bytes:
    """The whole figure as a "png" or "pdf" file with that metadata, in the light scheme."""
    with _whole(figure) as canvas:
        return to_file(canvas, kind, metadata)


@contextlib.contextmanager
def _whole(figure: Figure) -> Iterator[Canvas]:
    """A canvas with all panels of the figure, their titles, and the key to dashed and solid lines."""
    meaning = styles(figure)
    columns = min(2, len(figure.panels))
    rows = math.ceil(len(figure.panels) / columns)
    key, margin, gap = (_TITLE if meaning else 0.0), 16.0, 24.0
    width = 2 * margin + columns * _WIDTH + (columns - 1) * gap
    height = 2 * margin + key + rows * (_TITLE + _HEIGHT) + (rows - 1) * gap
    with _canvas(width, height) as canvas:
        if meaning:
            _key(canvas, meaning, width - margin, height - margin - key / 2)
        for i, panel in enumerate(figure.panels):
            left = margin + (i % columns) * (_WIDTH + gap)
            top = height - margin - key - (i // columns) * (_TITLE + _HEIGHT + gap)
            _text(canvas, left, top - _TITLE / 2, panel.title, weight="bold", fontsize=1.15 * _SIZE)
            _plot(canvas.add_axes((0, 0, 1, 1)), figure, panel, Area(left, top - _TITLE - _HEIGHT, _WIDTH, _HEIGHT))
        yield canvas


@contextlib.contextmanager
def _canvas(width: float, height: float) -> Iterator[Canvas]:
    from matplotlib import style  # half a second
    from matplotlib.figure import Figure as Canvas

    settings = {
        "svg.fonttype": "none",  # letters stay letters
        "svg.hashsalt": "resnetlab",  # the same ids each time
        "font.family": ["DejaVu Sans"],  # comes with matplotlib, and is wider than what pages are shown in
        "font.size": _SIZE,
        "text.parse_math": False,
        "text.color": STAND_INS["ink"],
        "xtick.labelcolor": STAND_INS["muted"],
        "ytick.labelcolor": STAND_INS["muted"],
    }
    with style.context(["default", settings]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+")  # letters that this font lacks are the reader's font's to show
        canvas = Canvas(figsize=(width / 72, height / 72), dpi=72)
        canvas.patch.set_visible(False)
        yield canvas


def _plot(axes: Axes, figure: Figure, panel: Panel, area: Area) -> Area:
    """Draw a panel into an area of the picture; return where its axes lie."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xscale("log" if panel.x_log else "linear")
    axes.set_yscale("log" if panel.y_log else "linear")
    for series in panel.series:
        colour = STAND_INS[colour_of(series, figure)]
        mean, low_end, high_end = ([_shown(y, panel) for y in ys] for ys in (series.mean, series.low, series.high))
        if series.marks:
            spans = [(x, y) for x, *ends in zip(series.x, low_end, high_end, strict=True) for y in (*ends, math.nan)]
            axes.plot(*zip(*spans, strict=True), color=colour, linewidth=1)
            axes.plot(series.x, mean, color=colour, marker="o", markersize=4.5, linestyle="none")
            continue
        if series.low != series.high:
            axes.fill_between(series.x, low_end, high_end, color=colour, alpha=0.14, linewidth=0)
        dashes: dict[str, Any] = {"dashes": (4, 2.2), "linewidth": 1.3} if series.dashed else {"linewidth": 1.9}
        alone = "o" if len(series.x) == 1 else None  # no line to see
        axes.plot(series.x, mean, color=colour, solid_capstyle="round", marker=alone, markersize=4.5, **dashes)
    xs = [x for series in panel.series for x in series.x]
    marks = any(series.marks or len(series.x) == 1 for series in panel.series)
    axes.set_xlim(_widened(axes.xaxis, min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1, by=0.02 * marks))
    axes.set_ylim(_widened(axes.yaxis, *(panel.y_limits or axes.get_ylim()), by=0.015))
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=STAND_INS["grid"], linewidth=0.8)
    axes.patch.set_visible(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(left=False, bottom=False, pad=5)
    axes.minorticks_off()
    for axis, is_log in ((axes.xaxis, panel.x_log), (axes.yaxis, panel.y_log)):
        if is_log:
            axis.set_major_locator(_ticks(*axis.get_view_interval()))
            axis.set_major_formatter(lambda value, _: tick(value))
    if not panel.y_log:
        axes.yaxis.set_major_locator(MaxNLocator(6))
    if not panel.x_log:
        axes.xaxis.set_major_locator(_few(xs) or MaxNLocator(7, integer=all(x == round(x) for x in xs)))
    box = _place(axes, figure, area)
    canvas = axes.get_figure(root=True)
    assert canvas is not None
    muted = STAND_INS["muted"]
    y_label, x_label = labels.axis(panel.y_label), labels.axis(panel.x_label)
    _text(canvas, area.left, area.bottom + area.height - _LINE / 2, y_label, color=muted)
    _text(canvas, box.left + box.width / 2, area.bottom + _LINE / 2, x_label, color=muted, ha="center")
    _label_lines(axes, figure, panel, box)
    return box


def _widened(axis: Axis, low: float, high: float, by: float) -> tuple[float, float]:
    """Limits with a share of their length added at both ends, so that lines and marks there are drawn whole."""
    first, last = axis.get_transform().transform((low, high))
    edges = (first - by * (last - first), last + by * (last - first))
    low, high = axis.get_transform().inverted().transform(edges)
    return float(low), float(high)


def _few(xs: list[float]) -> Locator | None:
    """Ticks at the xs themselves, if there are but a few, well apart: depths that were trained."""
    from matplotlib.ticker import FixedLocator

    places = sorted(set(xs))
    apart = min((b - a for a, b in pairwise(places)), default=0.0)
    few = 1 < len(places) <= _FEW and apart >= _LEAST_APART * (places[-1] - places[0])
    return FixedLocator(places) if few else None


def _ticks(low: float, high: float) -> Locator:
    """Ticks of a logarithmic axis, two at least: powers of ten, and what lies between where these are too few."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    for between in ((1.0,), (1.0, 2.0, 5.0), tuple(float(n) for n in range(1, 10))):
        locator = LogLocator(subs=between)
        if sum(low <= value <= high for value in locator.tick_values(low, high)) > 1:
            return locator
    return MaxNLocator(4)


def tick(value: float) -> str:
    """A tick of a logarithmic axis: 0.01, 10, and powers of ten beyond a thousand as 10⁴ (math is not parsed)."""
    power = round(math.log10(value)) if value > 0 else 0
    if abs(power) <= 3 or not math.isclose(value, 10.0**power):
        return f"{value:g}"
    return "10" + str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _shown(y: float, panel: Panel) -> float:
    """A value as its axis can show it: a logarithmic one has no place for what is not positive."""
    return math.nan if panel.y_log and y <= 0 else y


def _place(axes: Axes, figure: Figure, area: Area) -> Area:
    """Leave room for the ticks' labels on the left and the lines' names on the right; set and return the box."""
    canvas = axes.get_figure(root=True)
    assert canvas is not None
    canvas.draw_without_rendering()
    ticks = max((label.get_window_extent().width for label in axes.get_yticklabels()), default=0.0)
    names = {_wrapped(series, figure) for other in figure.panels for series in other.series}
    widest = max(_width(canvas, name) for name in names)
    left, right = ticks + 8, _LABEL_GAP + widest + 6
    bottom, top = 2.9 * _LINE, 1.7 * _LINE
    box = Area(area.left + left, area.bottom + bottom, area.width - left - right, area.height - bottom - top)
    width, height = canvas.get_size_inches() * 72
    axes.set_position((box.left / width, box.bottom / height, box.width / width, box.height / height))
    return box


def _wrapped(series: Series, figure: Figure) -> Both:
    """A line's name in both languages, in lines that are not too long; what a sign joins stays together."""
    name = labels.line(line_name(series, styles(figure)))
    lines = (textwrap.wrap(re.sub(r" ([=+]) ", "\u00a0\\1\u00a0", text), _LABEL_CHARS) for text in (name.en, name.zh))
    return Both(*map("\n".join, lines))


def _width(canvas: Canvas, words: Words) -> float:
    """How wide words are in the wider of the languages; Chinese letters are as wide as they are high."""
    texts = _text(canvas, 0, 0, words)
    widths = [text.get_window_extent().width for text in texts]
    for text in texts:
        text.remove()
    longest = max(both(words).zh.split("\n"), key=len)
    return max(*widths, _SIZE * sum(1.0 if letter > "\u2e80" else 0.62 for letter in longest))


def _label_lines(axes: Axes, figure: Figure, panel: Panel, box: Area) -> None:
    """Name each line at its right end; dashed and solid lines of one name share it."""
    from matplotlib.lines import Line2D

    canvas = axes.get_figure(root=True)
    assert canvas is not None
    named: dict[Both, Series] = {}
    for series in sorted(panel.series, key=lambda s: s.dashed):  # the solid line's end counts
        named.setdefault(_wrapped(series, figure), series)
    low, high = axes.get_ylim()
    ends = {}
    for name, series in named.items():
        x, y = _end(series)
        ends[name] = axes.transData.transform((x, min(max(y, low), high)))
    names = sorted(named, key=lambda name: (round(2 * ends[name][1] / _LINE), named[name].colour))
    heights = [_LINE * (1 + max(name.en.count("\n"), name.zh.count("\n"))) for name in names]
    places = _apart([ends[n][1] for n in names], heights, box.bottom - _LINE / 2, box.bottom + box.height + _LINE / 2)
    right, (width, height) = box.left + box.width, canvas.get_size_inches() * 72
    for name, y in zip(names, places, strict=True):
        (end_x, end_y), colour = ends[name], STAND_INS[colour_of(named[name], figure)]
        xs, ys = [end_x, right + 3, right + _LABEL_GAP - 7, right + _LABEL_GAP - 3], [end_y, end_y, y, y]
        leader = Line2D([x / width for x in xs], [y / height for y in ys], color=colour, linewidth=1)
        if end_x < right - 1:  # so that it is not taken for more of a line that ends early
            leader.set_linestyle("dotted")
        canvas.add_artist(leader)
        _text(canvas, right + _LABEL_GAP, y, name)


def _end(series: Series) -> tuple[float, float]:
    """The last point that is a number; a line without one is above all."""
    points = [(x, y) for x, y in zip(series.x, series.mean, strict=True) if math.isfinite(y)]
    return points[-1] if points else (series.x[-1], math.inf)


def _apart(wanted: list[float], heights: list[float], low: float, high: float) -> list[float]:
    """Centres for labels that rise in this order: near the wanted ones, without overlap, inside low and high."""
    blocks: list[tuple[float, float, list[int]]] = []  # centre, height, members
    for i, (centre, height) in enumerate(zip(wanted, heights, strict=True)):
        members = [i]
        centre = min(max(centre, low + height / 2), high - height / 2)
        while blocks and blocks[-1][0] + blocks[-1][1] / 2 > centre - height / 2:
            _, below, others = blocks.pop()
            members, height = others + members, height + below
            centre = sum(wanted[m] for m in members) / len(members)
            centre = max(min(centre, high - height / 2), low + height / 2)
        blocks.append((centre, height, members))
    places = [0.0] * len(wanted)
    for centre, height, members in blocks:
        y = centre - height / 2
        for m in members:
            places[m] = y + heights[m] / 2
            y += heights[m]
    return places


def _key(canvas: Canvas, meaning: dict[bool, str], right: float, y: float) -> None:
    """Say once what dashed and solid lines mean, at the right end of a row."""
    from matplotlib.lines import Line2D

    width, height = canvas.get_size_inches() * 72
    for dashed in (False, True):
        words = labels.line(meaning[dashed])
        _text(canvas, right, y, words, ha="right", color=STAND_INS["muted"])
        right -= _width(canvas, words) + 8
        xs, ys = [(right - 28) / width, right / width], [y / height, y / height]
        line = Line2D(xs, ys, color=STAND_INS["muted"], linewidth=1.3 if dashed else 1.9)
        if dashed:
            line.set_dashes((4, 2.2))
        canvas.add_artist(line)
        right -= 28 + 20


def _text(canvas: Canvas, x: float, y: float, words: Words, **how: Any) -> list[Text]:
    """Words at a place of the picture, vertically centred; in each language where the two differ."""
    width, height = canvas.get_size_inches() * 72
    text = both(words)
    if text.en == text.zh:
        return [canvas.text(x / width, y / height, text.en, va="center_baseline", **how)]
    return [
        canvas.text(x / width, y / height, getattr(text, one), va="center_baseline", gid=f"{IN_LANGUAGE}{one}", **how)
        for one in LANGUAGES
    ]
