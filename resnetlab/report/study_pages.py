"""Writes the report of a results folder: one HTML file that needs nothing else, and each figure as an SVG file."""

from __future__ import annotations

import csv
import html
import io
import json
import math
import re
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from resnetlab.errors import UserError
from resnetlab.report.overview import QUESTIONS, TEXT, Question
from resnetlab.report.page import date, duration, render
from resnetlab.storage import write_atomically
from resnetlab.studies.figures import draw as figures
from resnetlab.studies.figures.figure import Figure, Panel, Series, Table
from resnetlab.studies.frame.record import Failure, Record, RecordedRow, fullest, read_records
from resnetlab.studies.frame.statistics import VERDICTS, tally
from resnetlab.studies.frame.text import SHARED, Both, Words, both

_NUMBER = re.compile(r"[+−-]?\d[\d,]*(\.\d+)?( ± \d+(\.\d+)?)?( ?%)?|[–-]?")


@dataclass(frozen=True)
class Readout:
    """A panel's values at each x: rows are lines by name, columns what their dashes mean; cells (mean, range)."""

    columns: list[tuple[bool, str]]  # (dashed, what it means)
    names: list[tuple[str, str]]  # (line, colour's variable)
    xs: list[str]
    at: list[float]  # the xs as numbers
    cells: list[list[list[str]]]  # by x, then row by row: [mean, range]


@dataclass(frozen=True)
class PanelView:
    """A panel as the page shows it."""

    id: str
    panel: Panel
    svg: str
    readout: Readout


@dataclass(frozen=True)
class FigureView:
    """A figure as the page shows it, and the files that hold it alone: the picture (.svg) and its values (.csv)."""

    number: int
    caption: Both
    panels: list[PanelView]
    file_name: str  # without its ending
    svg: str
    csv: str


@dataclass(frozen=True)
class TableView:
    """A table as the page shows it: columns of numbers stand on the right."""

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
    tally: dict[str, int]  # by the verdict's word, from strong to weak: how many claims have it
    figures: list[FigureView]
    tables: list[TableView]
    words: list[Both]
    answer: Both
    theory: list[tuple[str, str]]  # paragraphs in English and Chinese, as HTML
    failures: list[Failure]
    command: list[str]  # word by word: lines break between them
    made: list[tuple[Both, Words]]


@dataclass(frozen=True)
class Answer:
    """A question of the overview, what studies say to it, and the decisive picture, if there is one."""

    question: Question
    sections: list[Section]
    panel: PanelView | None


def write_report(results: Path) -> Path:
    """Draw the records of a results folder; return the path of the overview, which leads to a page for each.

    A single record stands in the overview itself. Each figure is also a file, and its values another. Raises
    UserError if there are no records, naming the file that is damaged, or if the folder can't be written.
    """
    sections: list[Section] = []
    for record in read_records(results):
        try:
            sections.append(_section(record))
        except (ArithmeticError, AttributeError, LookupError, SyntaxError, TypeError, ValueError) as error:
            path = results / record.file_name
            raise UserError(f"{path}: a damaged record ({repr(error)[:200]}); run the study again.") from error
    page = results / "report.html"
    try:
        for section in sections:
            for figure in section.figures:
                write_atomically(results / f"{figure.file_name}.svg", figure.svg.encode())
                write_atomically(results / f"{figure.file_name}.csv", figure.csv.encode())
            if len(sections) > 1:
                write_atomically(results / f"{section.id}.html", _html(sections, [section], None).encode())
        shown = sections if len(sections) == 1 else []
        write_atomically(page, _html(sections, shown, _answers(sections)).encode())
    except OSError as error:
        raise UserError(
            f"{results}: can't write the report ({error.strerror or error}); the records are whole. "
            "Make room or choose another place with --results, then give the same command again."
        ) from error
    return page


def _section(record: Record) -> Section:
    json.dumps(record.to_dict(), ensure_ascii=False).encode()  # raises ValueError for text that no page can hold
    name = record.name
    counts = tally(record.verdicts)  # raises ValueError for a word that is none
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
        rows=[_row(row) for row in record.rows],
        tally={verdict.word: count for verdict, count in counts.items()},
        figures=[_figure_view(name, i, figure_of(f)) for i, f in enumerate(record.figures, 1)],
        tables=[_table_view(i, t) for i, t in enumerate(record.tables, 1)],
        words=_paragraphs(record.words),
        answer=both(record.answer),
        theory=[(formulas(p.en), formulas(p.zh)) for p in _paragraphs(record.theory)],
        failures=[Failure(**f) for f in record.failures],
        command=record.command.split(" "),
        made=_made(record),
    )


def _answers(sections: list[Section]) -> list[Answer]:
    """The questions that have an answer, each with the first picture of its decisive study."""
    found = []
    for question in QUESTIONS:
        there = _fullest(sections)
        said = [s for name in question.studies for s in there if s.record.study == name and s.answer.en]
        decisive = next((s for s in said if s.figures), None)
        panel = None
        if decisive:
            figure = figure_of(decisive.record.figures[0])
            panel = _panel_view(figure, figure.panels[0], f"overview-{decisive.id}")
        if said:
            found.append(Answer(question, said, panel))
    return found


def _paragraphs(words: Words | dict[str, Any]) -> list[Both]:
    text = both(words)
    parts = zip_longest(text.en.split("\n\n"), text.zh.split("\n\n"), fillvalue="")
    return [Both(en, zh) for en, zh in parts if en or zh]


def formulas(text: str) -> str:
    """A text as HTML; LaTeX between $ and $ becomes MathML, which browsers show without a script."""
    parts = text.split("$")
    if len(parts) % 2 == 0:
        raise ValueError(f"a formula that begins with $ has to end with one: {text[:60]!r}")
    return "".join(_mathml(part) if i % 2 else html.escape(part) for i, part in enumerate(parts))


def _mathml(latex: str) -> str:
    from latex2mathml.converter import convert

    try:
        found = convert(latex)
    except Exception as error:  # as many kinds as there are ways to write no formula
        raise ValueError(f"a formula can't be read: {latex[:60]!r} ({error!r})") from error
    return found.replace(' xmlns="http://www.w3.org/1998/Math/MathML"', "")  # HTML implies it


def _row(values: dict[str, Any]) -> RecordedRow:
    row = RecordedRow(**values)
    return RecordedRow(both(row.claim), both(row.paper), both(row.measured), row.verdict, both(row.remark))


def figure_of(values: dict[str, Any]) -> Figure:
    """A figure from its JSON values."""
    panels = [
        Panel(**{**p, "title": both(p["title"]), "series": [Series(**s) for s in p["series"]]})
        for p in values["panels"]
    ]
    if not re.fullmatch(r"[a-z0-9_-]+", values["name"]):  # it becomes a file's name
        raise ValueError(f"a figure can't be called {values['name']!r}")
    for panel in panels:
        low, high = panel.y_limits or (1, 2)
        if low >= high or (panel.y_log and low <= 0):
            raise ValueError(f"a y axis can't reach from {low} to {high}")
    return Figure(values["name"], both(values["caption"]), panels)


def _figure_view(record: str, number: int, figure: Figure) -> FigureView:
    name = f"{record}-{figure.name}"
    panels = [_panel_view(figure, p, f"{name}-{i}") for i, p in enumerate(figure.panels)]
    return FigureView(number, both(figure.caption), panels, name, figures.draw(figure, name), _csv(figure))


def _panel_view(figure: Figure, panel: Panel, name: str) -> PanelView:
    return PanelView(
        name, panel, figures.draw_panel(figure, panel, name), _readout(figure, panel, figures.styles(figure))
    )


def _csv(figure: Figure) -> str:
    """A figure's values: a line for each point of each line."""
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    table.writerow(["panel", "line", "x", "mean", "low", "high"])
    for panel in figure.panels:
        for s in panel.series:
            points = zip(s.x, s.mean, s.low, s.high, strict=True)
            table.writerows([str(panel.title), s.label, *point] for point in points)
    return file.getvalue()


def _readout(figure: Figure, panel: Panel, meaning: dict[bool, str]) -> Readout:
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
    form = ".3g" if panel.y_log else f".{digits}f"
    cells = [[_cell(lines.get((name, dashed)), x, form) for name in names for dashed, _ in columns] for x in xs]
    return Readout(columns, list(names.items()), [f"{x:g}" for x in xs], [figures.along(x, panel) for x in xs], cells)


def _cell(series: Series | None, x: float, form: str) -> list[str]:
    """Mean and range at x, as text."""
    if series is None or x not in series.x:
        return ["–", ""]
    i = series.x.index(x)
    mean, low, high = (f"{values[i]:{form}}".replace("-", "−") for values in (series.mean, series.low, series.high))
    return [mean, f"{low}{' to ' if '−' in low else '–'}{high}" if low != high else ""]


def _table_view(number: int, values: dict[str, Any]) -> TableView:
    table = Table(**values)
    header, rows = [both(h) for h in table.header], [[both(cell) for cell in row] for row in table.rows]
    if any(len(row) != len(header) for row in rows):
        raise ValueError(f"the table {table.caption!r} has rows of other lengths than its header")
    numeric = [all(_NUMBER.fullmatch(cell.en) for cell in column) for column in zip(*rows, strict=True)]
    return TableView(number, both(table.caption), header, rows, numeric)


def _made(record: Record) -> list[tuple[Both, Words]]:
    m = record.machine
    processor = re.sub(r"\((R|TM|C)\)", "", str(m.get("processor") or "unknown processor"))
    software = f"resnetlab {m.get('resnetlab', '?')}, PyTorch {m.get('torch', '?')}, Python {m.get('python', '?')}"
    return [
        (TEXT("made.machine"), f"{processor}, {m.get('cores', '?')} cores; {m.get('system', 'unknown system')}"),
        (TEXT("made.device"), str(m.get("device", "unknown"))),
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


def _html(sections: list[Section], shown: list[Section], answers: list[Answer] | None) -> str:
    """A page: the overview if there are answers (which may be none), and the sections that it shows.

    In the overview stand the fullest records of each study; it names the others, which have their pages.
    """
    standing = _fullest(sections)
    others = [section for section in sections if section not in standing]
    verdicts = [verdict for section in standing for verdict in section.record.verdicts]
    return render(
        "studies",
        sections=sections,
        standing=standing,
        others={name: [s for s in others if s.record.study == name] for name in {s.record.study for s in others}},
        shown=shown,
        answers=answers,
        tally={verdict.word: count for verdict, count in tally(verdicts).items()},
        verdict_words={v.word: SHARED(f"verdicts.{v.name}") for v in VERDICTS},
        meanings={v.word: SHARED(f"meaning.{v.name}") for v in VERDICTS},
        kinds={v.word: v.name.lower().replace("_", "-") for v in VERDICTS},
        failed_rule=SHARED("failed_rule"),
        runs=sum(s.record.runs for s in standing),
        seconds=sum(s.record.training_seconds + s.record.measuring_seconds for s in standing),
    )


def _fullest(sections: list[Section]) -> list[Section]:
    """Those whose records may stand for their study."""
    kept = fullest([section.record for section in sections])
    return [section for section in sections if section.record in kept]
