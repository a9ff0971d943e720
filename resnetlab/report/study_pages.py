"""Writes the report of a results folder: one HTML file that needs nothing else, and each figure as an SVG file."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from resnetlab.errors import UserError, printable, shown
from resnetlab.report.essay.facts import Library
from resnetlab.report.essay.page import essay
from resnetlab.report.essay.values import Book
from resnetlab.report.numbers import formulas
from resnetlab.report.page import TEXT, date, duration, paragraphs_of, processor, render, verdict_words
from resnetlab.report.panels import PanelView, panel_view
from resnetlab.storage import write_atomically
from resnetlab.studies.figures import draw as figures
from resnetlab.studies.figures.figure import Figure, Panel, Table
from resnetlab.studies.frame.record import Failure, Record, RecordedRow, fullest, read_records
from resnetlab.studies.frame.statistics import tally
from resnetlab.studies.frame.text import SHARED, Both, Words, both

FRONT, ESSAY = "report.html", "essay.html"
APART = 40.0  # points of training error between seeds of one network, beyond which some run got stuck
_NUMBER = re.compile(r"[+−-]?\d[\d,]*(\.\d+)?( ± \d+(\.\d+)?)?( ?%)?|[–-]?")


@dataclass(frozen=True)
class FigureView:
    """A figure as the page shows it, and the files that hold it alone: the picture (.svg) and its values (.csv)."""

    number: int
    caption: Both
    panels: list[PanelView]
    file_name: str  # without its suffix
    svg: str
    csv: str


@dataclass(frozen=True)
class TableView:
    """A table as the page shows it: columns of numbers are aligned to the right."""

    number: int
    caption: Both
    header: list[Both]
    rows: list[list[Both]]
    numeric: list[bool]


@dataclass(frozen=True)
class Section:
    """A record as the page shows it."""

    id: str
    record: Record
    title: Both
    claim: Both
    facts: list[tuple[Both, Both]]
    rows: list[RecordedRow]
    figures: list[FigureView]
    tables: list[TableView]
    words: list[Both]
    answer: Both
    counts: list[tuple[str, int]]  # how many of its claims have which verdict
    stuck: list[Both]  # networks of which some seeds got stuck
    theory: list[tuple[str, str]]  # paragraphs in English and Chinese, as HTML
    failures: list[Failure]
    command: list[str]  # word by word: lines break between them
    made: list[tuple[Both, Words]]


def write_report(results: Path) -> Path:
    """Write the report of a results folder; return the path of its front page.

    The front page is the essay with the studies as its appendix, and each study has a page of its own beside it. If
    there is only one record, its page is the front page. The appendix shows the fullest records of each study and
    links the pages of the others. Each figure is also written as a file, and its values as another. Raises UserError
    if there are no records, if one is damaged (naming its file), or if the folder can't be written.
    """
    sections = _sections(results)
    page = results / FRONT
    pages = {f"{s.id}.html": _page(sections, s) for s in sections}
    if len(sections) == 1:
        pages = {FRONT: _page(sections, sections[0])}
    else:
        records = [s.record for s in sections]
        standing = fullest(records)
        shown = [s for s in sections if s.record in standing]
        library = Library.of([Book.of(r, f"{r.name}.html") for r in records])
        pages[FRONT] = essay(library, shown, [r for r in records if r not in standing])
    with _writing(results):
        for section in sections:
            for figure in section.figures:
                write_atomically(results / f"{figure.file_name}.svg", figure.svg.encode())
                write_atomically(results / f"{figure.file_name}.csv", figure.csv.encode())
        for name, text in pages.items():
            write_atomically(results / name, text.encode())
    return page


def write_essay(results: Path, also: Path | None = None) -> tuple[Path, Library]:
    """Write the essay alone, as one file to send; return its path and what it was written from.

    also: another folder of records, for what this one has not measured. Raises UserError as write_report does.
    """
    own = read_records(results)
    books = [Book.of(_checked(r, results), f"{r.name}.html" if len(own) > 1 else FRONT) for r in own]
    others: list[Book] = []
    if also is not None and also.resolve() != results.resolve():
        there = Path(os.path.relpath(also.resolve(), results.resolve())).as_posix()
        link = quote(os.fsencode(there))
        for record in read_records(also):
            address = f"{link}/{record.name}.html" if (also / f"{record.name}.html").is_file() else ""
            others.append(Book.of(_checked(record, also), address, printable(there)))
    library, path = Library.of(books, others), results / ESSAY
    with _writing(results):
        write_atomically(path, essay(library).encode())
    return path, library


@contextlib.contextmanager
def _writing(results: Path) -> Iterator[None]:
    """Turns errors of the disk into one line that says that the records are whole."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{results}: can't write the report ({error.strerror or error}); the records are whole. "
            "Make room or choose another place with --results, then give the same command again."
        ) from error


def _sections(results: Path) -> list[Section]:
    """The records of a folder with their figures. Raises UserError if there are none, and naming a damaged file."""
    sections = []
    for record in read_records(results):
        with _damage(record, results):
            sections.append(_section(_checked(record, results)))
    return sections


@contextlib.contextmanager
def _damage(record: Record, folder: Path) -> Iterator[None]:
    """Turns what goes wrong with a record into one line that names its file."""
    try:
        yield
    except UserError:  # its message names the file already
        raise
    except (ArithmeticError, AttributeError, LookupError, SyntaxError, TypeError, ValueError) as error:
        path = folder / record.file_name
        raise UserError(f"{path}: a damaged record ({repr(error)[:200]}); run the study again.") from error


def _checked(record: Record, folder: Path) -> Record:
    """The record, if a page can show its words and verdicts."""
    with _damage(record, folder):
        json.dumps(record.to_dict(), ensure_ascii=False).encode()  # raises ValueError for text that no page can hold
        tally(record.verdicts)  # raises ValueError for a word that is none
        for row in record.rows:
            _row(row)
        for words in (record.answer, record.note, record.claim):
            both(words)
        for figure in record.figures:
            figure_of(figure)
        date(record.date)
    return record


def _section(record: Record) -> Section:
    name = record.name
    rows = [_row(row) for row in record.rows]
    facts = [
        (TEXT("facts.source"), both(record.source)),
        (TEXT("facts.method"), both(record.method)),
        (TEXT("facts.rule"), both(record.rule)),
        *([(TEXT("facts.note"), both(record.note))] if record.note else []),
    ]
    return Section(
        id=name,
        record=record,
        title=both(record.title),
        claim=both(record.claim),
        facts=facts,
        rows=rows,
        figures=[_figure_view(name, i, figure_of(f)) for i, f in enumerate(record.figures, 1)],
        tables=[_table_view(i, t) for i, t in enumerate(record.tables, 1)],
        words=[p for p in paragraphs_of(record.words) if p != both(record.answer)],
        answer=both(record.answer),
        counts=[(v.word, n) for v, n in tally(record.verdicts).items()],
        stuck=_stuck(record),
        theory=[(formulas(p.en), formulas(p.zh)) for p in paragraphs_of(record.theory)],
        failures=[Failure(**f) for f in record.failures],
        command=record.command.split(" "),
        made=_made(record),
    )


def _stuck(record: Record) -> list[Both]:
    """Networks whose seeds ended so far apart in training error that some run must have got stuck."""
    found = {}
    for figure in record.figures:
        for series in (s for p in figure["panels"] if "error" in p["y_label"] for s in p["series"]):
            by_epoch = "epoch" in [p["x_label"] for p in figure["panels"]]
            points = [*zip(series["x"], series["low"], series["high"], strict=True)]
            for x, low, high in points[-1:] if by_epoch else points:
                name, _, part = series["label"].rpartition(" ")
                if part == "training" and high - low > APART and low < APART:
                    found[name if by_epoch else f"{name}-{x:g}"] = (low, high)
    return [TEXT("seeds.stuck", net=net, low=low, high=high) for net, (low, high) in found.items()]


def _row(values: dict[str, Any]) -> RecordedRow:
    row = RecordedRow(**values)
    return RecordedRow(both(row.claim), both(row.paper), both(row.measured), row.verdict, both(row.remark))


def figure_of(values: dict[str, Any]) -> Figure:
    """A figure from its JSON values."""
    panels = [Panel.of(panel) for panel in values["panels"]]
    if not re.fullmatch(r"[a-z0-9_-]{1,100}", values["name"]):  # it becomes a part of a file's name
        raise ValueError(f"a figure can't be called {shown(values['name'])}")
    for panel in panels:
        low, high = panel.y_limits or (1, 2)
        if low >= high or (panel.y_log and low <= 0):
            raise ValueError(f"a y axis can't reach from {low} to {high}")
    return Figure(values["name"], both(values["caption"]), panels)


def _figure_view(record: str, number: int, figure: Figure) -> FigureView:
    name = f"{record}-{figure.name}"
    panels = [panel_view(figure, p, f"{name}-{i}") for i, p in enumerate(figure.panels)]
    return FigureView(number, both(figure.caption), panels, name, figures.draw(figure, name), _csv(figure))


def _csv(figure: Figure) -> str:
    """A figure's values as CSV: a row for each point of each line."""
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    table.writerow(["panel", "line", "x", "mean", "low", "high"])
    for panel in figure.panels:
        for s in panel.series:
            points = zip(s.x, s.mean, s.low, s.high, strict=True)
            table.writerows([str(panel.title), s.label, *point] for point in points)
    return file.getvalue()


def _table_view(number: int, values: dict[str, Any]) -> TableView:
    table = Table(**values)
    header, rows = [both(h) for h in table.header], [[both(cell) for cell in row] for row in table.rows]
    if any(len(row) != len(header) for row in rows):
        raise ValueError(f"the table {table.caption!r} has rows of other lengths than its header")
    numeric = [all(_NUMBER.fullmatch(cell.en) for cell in column) for column in zip(*rows, strict=True)]
    return TableView(number, both(table.caption), header, rows, numeric)


def _made(record: Record) -> list[tuple[Both, Words]]:
    m = record.machine
    software = f"resnetlab {m.get('resnetlab', '?')}, PyTorch {m.get('torch', '?')}, Python {m.get('python', '?')}"
    system = m.get("system") or TEXT("moment.system")
    return [
        (TEXT("made.machine"), TEXT("moment.on", processor=processor(m), system=system)),
        (TEXT("made.device"), str(m["device"]) if m.get("device") else TEXT("moment.device")),
        (TEXT("made.software"), software),
        (TEXT("made.commit"), str(m["commit"]) if m.get("commit") else TEXT("made.no_commit")),
        (TEXT("made.date"), date(record.date)),
        (TEXT("made.runs"), _counts(record)),
        (TEXT("made.time"), _spent(record)),
    ]


def _counts(record: Record) -> Both:
    """How many runs and measurements finished and failed, naming only what there was."""
    key = {
        (False, False): "counts.finished",
        (True, False): "counts.measured",
        (False, True): "counts.failed",
        (True, True): "counts.measured_failed",
    }[bool(record.measurements), bool(record.failures)]
    return TEXT(key, runs=record.runs, measurements=record.measurements, failed=len(record.failures))


def _spent(record: Record) -> Both:
    training, measuring = duration(record.training_seconds), duration(record.measuring_seconds)
    return TEXT("spent.measuring" if record.measurements else "spent.training", training=training, measuring=measuring)


def _page(sections: list[Section], section: Section) -> str:
    """The page of a study, with links to the others."""
    return render(
        "study",
        sections=sections,
        s=section,
        home=FRONT,
        at_home=len(sections) == 1,
        failed_rule=SHARED("failed_rule"),
        **verdict_words(),
    )
