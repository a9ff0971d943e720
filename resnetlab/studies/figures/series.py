"""Lines of a figure over several seeds: their mean, and the lowest and the highest of them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from resnetlab.studies.figures.figure import Series
from resnetlab.studies.frame.evidence import RunResult


def along(
    label: str,
    colour: int,
    columns: Iterable[tuple[float, Sequence[float | None]]],
    *,
    dashed: bool = False,
    marks: bool = False,
    mean: Callable[[list[float]], float] = statistics.fmean,
) -> Series:
    """A line from what some seeds gave at each x, of those with a finite value; an x where none has one is left out."""
    points = [(at, there) for at, values in columns if (there := _finite(values))]
    return Series(
        label=label,
        dashed=dashed,
        colour=colour,
        x=[float(at) for at, _ in points],
        mean=[_rounded(mean(values)) for _, values in points],
        low=[_rounded(min(values)) for _, values in points],
        high=[_rounded(max(values)) for _, values in points],
        marks=marks,
    )


def over_seeds(
    label: str, colour: int, x: Sequence[float], seeds: Sequence[Sequence[float | None]], **how: Any
) -> Series:
    """A line from one list of values by x for each seed, as `along`; an x where a seed has none is left out."""
    columns = zip(x, zip(*seeds, strict=True), strict=True)
    whole = [(at, values) for at, values in columns if len(_finite(values)) == len(seeds)]
    return along(label, colour, whole, **how)


def _finite(values: Iterable[float | None]) -> list[float]:
    """The values that are there and finite; others can't be drawn, nor read back from a record."""
    return [v for v in values if v is not None and math.isfinite(v)]


def error_lines(name: str, colour: int, group: Sequence[RunResult]) -> list[Series]:
    """Training error (dashed) and test error (solid) of a group of runs by epoch, in %; none of an empty group."""
    if not group:
        return []
    epochs = [line["epoch"] for line in group[0].epochs]
    return [
        over_seeds(
            f"{name} {words}",
            colour,
            epochs,
            [[line[f"{part}_error"] for line in o.epochs] for o in group],
            dashed=part == "train",
        )
        for part, words in (("train", "training"), ("test", "test"))
    ]


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
