"""The study frame: what a study states before it runs, what it finds, and the record that is kept of both."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Sequence, Sized
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from resnetlab.errors import UserError, did_you_mean
from resnetlab.training.recipe import Recipe
from resnetlab.training.run import disk_errors, read_json, write_atomically

REPRODUCED, DIRECTION, NOT_JUDGED, NOT_REPRODUCED, NOT_TESTED = (
    "reproduced",
    "direction only",
    "not judged",
    "not reproduced",
    "not tested at this scale",
)
# From strong to weak: a claim that failed runs leave open is weaker than any that holds, but no run that is missing
# can save a study that another claim refutes.
VERDICTS = (REPRODUCED, DIRECTION, NOT_JUDGED, NOT_REPRODUCED, NOT_TESTED)
# Part of every study's rule. Runs that fail are seldom a fair sample: those that diverge are the worst.
FAILED_RULE = "A claim is not judged if a run that it needs has failed, however many others there are."
SCALES = ("quick", "cifar", "paper")
RECORD_FORMAT = 1


@dataclass(frozen=True)
class Plan:
    """A study's runs at one scale, and what to expect of them."""

    recipes: tuple[Recipe, ...]
    expected: str  # how long it takes, and on what
    note: str = ""  # what a reader must know of this scale: seeds, what it can't show


@dataclass(frozen=True)
class Outcome:
    """A finished run: how it was trained, what it ended with, and its metrics by epoch."""

    recipe: Recipe
    result: dict[str, Any]
    epochs: list[dict[str, Any]]
    machine: dict[str, Any]


@dataclass(frozen=True)
class Failure:
    """A run that failed: what it was, in words, and why, in one line."""

    net: str
    recipe: str
    seed: int
    reason: str


@dataclass(frozen=True)
class Row:
    """One claim: what the paper says, what was measured, and the verdict by the study's rule."""

    claim: str
    paper: str
    measured: str
    verdict: str


def judged_row(
    claim: str, paper: str, needs: Sequence[Sized], failed: Sequence[Sized], measure: Callable[[], tuple[str, str]]
) -> Row:
    """The row of a claim, by FAILED_RULE.

    `needs` and `failed` hold, group by group, the runs that the claim needs and have finished, and those of them
    that failed. `measure` gives what was measured and the verdict; it is called only if none failed.
    """
    missing = sum(map(len, failed))
    if missing:
        return Row(claim, paper, f"{missing} of the {missing + sum(map(len, needs))} runs it needs failed", NOT_JUDGED)
    return Row(claim, paper, *measure())


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


@dataclass(frozen=True)
class Panel:
    """One pair of axes of a figure."""

    title: str
    x_label: str
    y_label: str
    series: list[Series]
    y_limits: tuple[float, float] | None = None


@dataclass(frozen=True)
class Figure:
    """A figure as data; `figures.draw` makes the picture."""

    name: str
    caption: str
    panels: list[Panel]


@dataclass(frozen=True)
class Table:
    """A table as data: the cells are text, ready to print."""

    caption: str
    header: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Finding:
    """What a study found: claims with verdicts, figures, tables, and honest words."""

    rows: list[Row]
    figures: list[Figure] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    words: str = ""

    @property
    def verdict(self) -> str:
        """The weakest verdict, in the order of VERDICTS, among the claims that were tested."""
        tested = [r.verdict for r in self.rows if r.verdict != NOT_TESTED]
        return max(tested, key=VERDICTS.index) if tested else NOT_TESTED


@dataclass(frozen=True)
class Study:
    """What a study states before it runs: claim, source, method, and the rule of its verdict."""

    name: str
    title: str
    claim: str
    source: str
    method: str
    rule: str
    plan: Callable[[str, str | None], Plan]  # (scale, where the data lies) -> runs
    # (scale, finished runs, recipes of runs that failed) -> what they show, by FAILED_RULE; there may be none of either
    judge: Callable[[str, list[Outcome], list[Recipe]], Finding]


# Each study's module holds it as STUDY; imported when asked for.
STUDIES: dict[str, str] = {"degradation": "resnetlab.studies.degradation"}


def study(name: str) -> Study:
    """Return a study by name. Raises UserError, with the nearest names, if there is none."""
    if name not in STUDIES:
        raise UserError(
            f"study {name!r} is not known: choose one of {', '.join(STUDIES)}.{did_you_mean(name, STUDIES)}"
        )
    found: Study = importlib.import_module(STUDIES[name]).STUDY
    return found


@dataclass(frozen=True)
class Record:
    """What is kept of a study that ran: enough to draw its page again, on any machine."""

    study: str
    scale: str
    title: str
    claim: str
    source: str
    method: str
    rule: str  # the one that was applied, whatever the study says today
    expected: str
    verdict: str
    rows: list[dict[str, str]]
    figures: list[dict[str, Any]]
    tables: list[dict[str, Any]]
    words: str
    note: str
    machine: dict[str, Any]
    runs: int  # that finished
    training_seconds: float  # summed over runs: what it would take one after another
    command: str
    date: str  # UTC, ISO 8601
    format: int = RECORD_FORMAT
    failures: list[dict[str, Any]] = field(default_factory=list)

    @property
    def file_name(self) -> str:
        """Name of the record's file in a results folder."""
        return f"{self.study}-{self.scale}.json"

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    def save(self, folder: Path) -> Path:
        """Write the record into a results folder; return its path."""
        path = folder / self.file_name
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path, (json.dumps(self.to_dict(), indent=1) + "\n").encode())
        return path


def read_records(folder: Path) -> list[Record]:
    """The records in a results folder, in the order of STUDIES and scales.

    Raises UserError if there are none, or naming the file that is not one.
    """
    names = {f"{name}-{scale}.json" for name in STUDIES for scale in SCALES}
    try:
        paths = [p for p in sorted(folder.glob("*.json")) if p.name in names]
    except OSError as error:
        raise UserError(f"{str(folder)[:80]}: can't be read ({error.strerror}).") from error
    if not paths:
        raise UserError(f"{folder}: no results of studies; run one first, e.g. resnetlab study run degradation.")
    records = []
    for path in paths:
        values = read_json(path)
        if values.get("format") != RECORD_FORMAT:
            raise UserError(f"{path}: a record of another version; run the study again.")
        try:
            records.append(Record(**values))
        except TypeError as error:
            raise UserError(f"{path}: a damaged record ({error}); run the study again.") from error
        if records[-1].file_name != path.name:
            raise UserError(f"{path}: holds the record that belongs in {records[-1].file_name}; move it there.")
    return sorted(records, key=lambda r: (list(STUDIES).index(r.study), SCALES.index(r.scale)))
