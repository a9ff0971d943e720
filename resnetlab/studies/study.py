"""The study frame: what a study states before it runs, what it finds, and the record that is kept of both."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Sequence, Sized
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from resnetlab.errors import UserError, did_you_mean
from resnetlab.storage import disk_errors, read_json, write_atomically
from resnetlab.studies.measurement import Measured, Measurement, Weights
from resnetlab.studies.words import Both, Words
from resnetlab.training.recipe import Recipe

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
VERDICT_WORDS = {  # as a reader sees them
    REPRODUCED: Both(REPRODUCED, "已复现"),
    DIRECTION: Both(DIRECTION, "仅方向一致"),
    NOT_JUDGED: Both(NOT_JUDGED, "未判定"),
    NOT_REPRODUCED: Both(NOT_REPRODUCED, "未复现"),
    NOT_TESTED: Both(NOT_TESTED, "本规模未检验"),
}
# Part of every study's rule. Runs that fail are seldom a fair sample: those that diverge are the worst.
FAILED_RULE = Both(
    "A claim is not judged if a run that it needs has failed, however many others there are.",
    "若某一论断所需的任一次运行失败，则无论其余有多少，都不对其作出判定。",
)
# What can be asked for, and "weights": networks that others trained, measured in place of runs (--weights).
SCALES = ("quick", "cifar", "paper")
WEIGHTS = "weights"
RECORD_FORMAT = 2


@dataclass(frozen=True)
class Plan:
    """What a study does at one scale: runs, then measurements (of their networks, or of none); what to expect of it."""

    recipes: tuple[Recipe, ...]
    expected: Words  # how long it takes, and on what
    note: Words = ""  # what a reader must know of this scale: seeds, what it can't show
    measurements: tuple[Measurement, ...] = ()

    def limited(self, epochs: float | None, seeds: int | None) -> Plan:
        """The plan with shorter runs and with the seeds below `seeds` only; its note says so."""

        def shorter(recipe: Recipe) -> Recipe:
            return recipe if epochs is None else recipe.override(epochs=epochs)

        def kept(seed: int) -> bool:
            return seeds is None or seed < seeds

        less = " ".join(f"--{k} {v:g}" for k, v in (("epochs", epochs), ("seeds", seeds)) if v is not None)
        said = Both(f" This record has less: {less}.", f"本记录有所缩减：{less}。") if less else Both("", "")
        return replace(
            self,
            note=self.note + said,
            recipes=tuple(shorter(r) for r in self.recipes if kept(r.seed)),
            measurements=tuple(replace(m, run=m.run and shorter(m.run)) for m in self.measurements if kept(m.seed)),
        )


@dataclass(frozen=True)
class Outcome:
    """A finished run: how it was trained, what it ended with, and its metrics by epoch."""

    recipe: Recipe
    result: dict[str, Any]
    epochs: list[dict[str, Any]]
    machine: dict[str, Any]


@dataclass(frozen=True)
class Evidence:
    """What a study is judged by: what finished of its plan, and what failed. Each may be empty."""

    scale: str  # one of SCALES, or WEIGHTS
    outcomes: list[Outcome] = field(default_factory=list)
    measured: list[Measured] = field(default_factory=list)
    failed: list[Recipe | Measurement] = field(default_factory=list)


@dataclass(frozen=True)
class Failure:
    """A run or measurement that failed: what it was, in words, and why, in one line."""

    net: str
    recipe: str
    seed: int
    reason: str


@dataclass(frozen=True)
class Row:
    """One claim: what the paper says, what was measured, and the verdict by the study's rule."""

    claim: Words
    paper: Words
    measured: Words
    verdict: str


def judged_row(
    claim: Words,
    paper: Words,
    needs: Sequence[Sized],
    failed: Sequence[Sized],
    measure: Callable[[], tuple[Words, str]],
) -> Row:
    """The row of a claim, by FAILED_RULE.

    `needs` and `failed` hold, group by group, the runs that the claim needs and have finished, and those of them
    that failed. `measure` gives what was measured and the verdict; it is called only if none failed.
    """
    missing = sum(map(len, failed))
    if missing:
        of = missing + sum(map(len, needs))
        words = Both(f"{missing} of the {of} runs it needs failed", f"所需的 {of} 次运行中有 {missing} 次失败")
        return Row(claim, paper, words, NOT_JUDGED)
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
    marks: bool = False  # points in place of a line, e.g. what was measured beside a curve of theory


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


@dataclass(frozen=True)
class Figure:
    """A figure as data; `figures.draw` makes the picture."""

    name: str
    caption: Words
    panels: list[Panel]


@dataclass(frozen=True)
class Table:
    """A table as data: the cells are text, ready to print."""

    caption: Words
    header: Sequence[Words]
    rows: Sequence[Sequence[Words]]


@dataclass(frozen=True)
class Finding:
    """What a study found: claims with verdicts, figures, tables, and honest words."""

    rows: list[Row]
    figures: list[Figure] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    words: Words = ""  # paragraphs, an empty line between them
    answer: Words = ""  # what it says to the question it answers, in one short paragraph for the overview

    @property
    def verdict(self) -> str:
        """The weakest verdict, in the order of VERDICTS, among the claims that were tested."""
        tested = [r.verdict for r in self.rows if r.verdict != NOT_TESTED]
        return max(tested, key=VERDICTS.index) if tested else NOT_TESTED


@dataclass(frozen=True)
class Study:
    """What a study states before it runs: claim, source, method, and the rule of its verdict."""

    name: str
    title: Words
    claim: Words
    source: str
    method: Words
    rule: Words
    # (scale, where the data lies, networks of others) -> what to do; the last are given if it takes_weights
    plan: Callable[[str, str | None, tuple[Weights, ...]], Plan]
    judge: Callable[[Evidence], Finding]  # by FAILED_RULE
    theory: Words = ""  # derivations: paragraphs with LaTeX between $ and $, an empty line between them
    takes_weights: bool = False


# In the order of the report. Each study's module holds it as STUDY; imported when asked for.
STUDIES: dict[str, str] = {
    name: f"resnetlab.studies.{name}"
    for name in (
        "degradation",
        "signal",
        "shattered",
        "sensitivity",
        "identity",
        "carry",
        "boosting",
        "responses",
        "shortcuts",
        "bottleneck",
        "scaling",
        "mixing",
        "orders",
        "lesion",
        "depth",
    )
}


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
    title: Words
    claim: Words
    source: str
    method: Words
    rule: Words  # the one that was applied, whatever the study says today
    expected: Words
    verdict: str
    rows: list[dict[str, Any]]
    figures: list[dict[str, Any]]
    tables: list[dict[str, Any]]
    words: Words
    answer: Words
    theory: Words
    note: Words
    machine: dict[str, Any]
    runs: int  # that finished
    training_seconds: float  # summed over runs: what it would take one after another
    measurements: int  # that finished
    measuring_seconds: float  # summed over measurements
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
    names = {f"{name}-{scale}.json" for name in STUDIES for scale in (*SCALES, WEIGHTS)}
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
    return sorted(records, key=lambda r: (list(STUDIES).index(r.study), (*SCALES, WEIGHTS).index(r.scale)))
