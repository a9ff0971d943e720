"""A figure's panels as pages show them: the picture and a table of its values."""

from __future__ import annotations

import math
from dataclasses import dataclass

from resnetlab.report.numbers import written
from resnetlab.report.page import TEXT
from resnetlab.studies.figures import draw as figures
from resnetlab.studies.figures import labels
from resnetlab.studies.figures.figure import Figure, Panel, Series
from resnetlab.studies.frame.text import Both

MOST_DASHES = 0.5  # the share of empty cells beyond which a panel's values are listed point by point


@dataclass(frozen=True)
class Readout:
    """A panel's values at each x: a row for each line, a column for each meaning of dashes, and in cells (mean, range).

    Where most cells would be empty, as for a figure of points, `points` has each point in a row of its own instead.
    """

    columns: list[tuple[bool, str]]  # (dashed, what it means)
    names: list[tuple[str, str]]  # (line, colour's variable)
    xs: list[str]
    at: list[float]  # the xs as numbers
    cells: list[list[list[str]]]  # by x, then row by row: [mean, range]
    points: list[tuple[str, str, str, str, str]]  # (line, colour's variable, x, mean, range)


@dataclass(frozen=True)
class PanelView:
    """A panel as the page shows it."""

    id: str
    panel: Panel
    svg: str
    readout: Readout
    name: Both  # what it shows
    readout_title: Both  # what its values are, up to the x they are at
    scrub: Both  # what its slider is for


def panel_view(figure: Figure, panel: Panel, name: str) -> PanelView:
    """A panel of a figure; `name` begins the ids of its picture."""
    x, y = labels.axis(panel.x_label), labels.axis(panel.y_label)
    return PanelView(
        name,
        panel,
        figures.draw_panel(figure, panel, name),
        readout(figure, panel, figures.styles(figure)),
        labels.panel(panel.title, panel.x_label, panel.y_label),
        TEXT("readout.title", x=x, y=y),
        TEXT("readout.scrub", x=x),
    )


def readout(figure: Figure, panel: Panel, meaning: dict[bool, str]) -> Readout:
    """The values of a panel, as text."""
    columns = [(dashed, meaning[dashed]) for dashed in (True, False)] if meaning else [(False, panel.y_label)]
    lines = {
        (figures.line_name(s, meaning), s.dashed if meaning else False): s
        for s in sorted(panel.series, key=lambda s: s.colour)
    }
    names = {name: figures.colour_of(s, figure) for (name, _), s in lines.items()}
    xs = sorted({x for s in panel.series for x in s.x})
    values = [v for s in panel.series for v in s.mean if math.isfinite(v)]
    spread = max(values, default=0.0) - min(values, default=0.0)
    digits = min(max(3 - math.ceil(math.log10(spread)), 0), 6) if spread > 0 else 2
    form = "sci" if panel.y_log else f".{digits}f"
    cells = [[_cell(lines.get((name, dashed)), x, form) for name in names for dashed, _ in columns] for x in xs]
    empty = sum(cell[0] == "–" for row in cells for cell in row)
    points: list[tuple[str, str, str, str, str]] = []
    if empty > MOST_DASHES * sum(map(len, cells)):
        for s in panel.series:
            name, colour = s.label if s.dashed else figures.line_name(s, meaning), figures.colour_of(s, figure)
            points += [(name, colour, f"{x:.4g}", *_cell(s, x, form)) for x in s.x]  # type: ignore[misc]
    at = [figures.along(x, panel) for x in xs]
    return Readout(columns, list(names.items()), [f"{x:g}" for x in xs], at, cells, points)


def _cell(series: Series | None, x: float, form: str) -> list[str]:
    """Mean and range at x, as text."""
    if series is None or x not in series.x:
        return ["–", ""]
    i = series.x.index(x)
    mean, low, high = (written(values[i], form) for values in (series.mean, series.low, series.high))
    return [mean, f"{low}{' … ' if '−' in low else '–'}{high}" if low != high else ""]
