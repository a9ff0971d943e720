"""Figures and tables as data; `draw` makes the pictures, the report the tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from resnetlab.studies.frame.text import Catalogue, Words, both


@dataclass(frozen=True)
class Series:
    """A line of a figure: its mean at each x and, over seeds, its lowest and highest."""

    label: str
    dashed: bool
    colour: int  # rank among the figure's colours, from 0
    x: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]
    marks: bool = False  # points in place of a line, e.g. what was measured beside a curve of theory

    def __post_init__(self) -> None:
        if len({len(values) for values in (self.x, self.mean, self.low, self.high)}) > 1:
            raise ValueError(f"the values of {self.label!r} are not as many as its places")
        if self.colour < 0:
            raise ValueError(f"{self.colour} is no rank among colours")
        for value in (*self.x, *self.mean, *self.low, *self.high):
            if isfinite(value) and abs(value) > 1e305:  # float64 ends at 2e308, and what marks an axis goes beyond
                raise ValueError(f"{value:g} can't be drawn")


@dataclass(frozen=True)
class Panel:
    """One pair of axes of a figure. On a logarithmic axis what is not positive is left out."""

    title: Words
    x_label: str
    y_label: str
    series: list[Series]
    y_limits: tuple[float, float] | None = None
    x_log: bool = False
    y_log: bool = False

    @classmethod
    def of(cls, values: dict[str, Any]) -> Panel:
        """A panel from its JSON values."""
        return cls(**{**values, "title": both(values["title"]), "series": [Series(**s) for s in values["series"]]})


@dataclass(frozen=True)
class Figure:
    """A figure as data; `draw.draw` makes the picture."""

    name: str
    caption: Words
    panels: list[Panel]


@dataclass(frozen=True)
class Table:
    """A table as data: the cells are text, ready to print."""

    caption: Words
    header: Sequence[Words]
    rows: Sequence[Sequence[Words]]


def table(text: Catalogue, name: str, rows: Sequence[Sequence[Words]], **values: Any) -> Table:
    """A table whose caption and header stand in a catalogue, under "tables" and its name."""
    return Table(text(f"tables.{name}.caption", **values), text.each(f"tables.{name}.header", **values), rows)
