"""Writes the report of a results folder: one HTML file that needs nothing else, and each figure as an SVG file."""

from __future__ import annotations

import datetime
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resnetlab.errors import UserError
from resnetlab.studies import figures, svg
from resnetlab.studies.study import (
    FAILED_RULE,
    NOT_JUDGED,
    NOT_TESTED,
    VERDICTS,
    Failure,
    Figure,
    Panel,
    Record,
    Row,
    Series,
    Table,
    read_records,
)
from resnetlab.studies.words import both
from resnetlab.training.run import write_atomically

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
    """A figure as the page shows it, and the file that holds it alone."""

    number: int
    caption: str
    panels: list[PanelView]
    file_name: str
    svg: str


@dataclass(frozen=True)
class TableView:
    """A table as the page shows it: columns of numbers stand on the right."""

    number: int
    table: Table
    numeric: list[bool]


@dataclass(frozen=True)
class Section:
    """A record as the page shows it."""

    id: str
    record: Record
    rows: list[Row]
    figures: list[FigureView]
    tables: list[TableView]
    words: list[str]
    failures: list[Failure]
    command: list[str]  # word by word: lines break between them
    made: list[tuple[str, str]]


def write_report(results: Path) -> Path:
    """Draw the records of a results folder; return the page's path.

    Raises UserError if there are no records, naming the file that is damaged, or if the folder can't be written.
    """
    sections: list[Section] = []
    for record in read_records(results):
        try:
            sections.append(_section(record, sections))
        except (ArithmeticError, AttributeError, LookupError, SyntaxError, TypeError, ValueError) as error:
            path = results / record.file_name
            raise UserError(f"{path}: a damaged record ({error!r}); run the study again.") from error
    page = results / "report.html"
    try:
        for section in sections:
            for figure in section.figures:
                write_atomically(results / figure.file_name, figure.svg.encode())
        write_atomically(page, _html(sections).encode())
    except OSError as error:
        raise UserError(
            f"{results}: can't write the report ({error.strerror or error}); the records are whole. "
            "Make room or choose another place with --results, then give the same command again."
        ) from error
    return page


def _section(record: Record, before: list[Section]) -> Section:
    name = f"{record.study}-{record.scale}"
    drawn = sum(len(s.figures) for s in before)
    listed = sum(len(s.tables) for s in before)
    rows = [Row(**row) for row in record.rows]
    if {record.verdict, *(row.verdict for row in rows)} - set(VERDICTS):
        raise ValueError(f"a verdict is one of {', '.join(VERDICTS)}")
    return Section(
        id=name,
        record=record,
        rows=rows,
        figures=[_figure_view(name, drawn + i, _figure(f)) for i, f in enumerate(record.figures, 1)],
        tables=[_table_view(listed + i, Table(**t)) for i, t in enumerate(record.tables, 1)],
        words=[words for words in both(record.words).en.split("\n\n") if words],
        failures=[Failure(**f) for f in record.failures],
        command=record.command.split(" "),
        made=_made(record),
    )


def _figure(values: dict[str, Any]) -> Figure:
    """A figure from its JSON values."""
    panels = [Panel(**{**p, "series": [Series(**s) for s in p["series"]]}) for p in values["panels"]]
    if not re.fullmatch(r"[a-z0-9_-]+", values["name"]):  # it becomes a file's name
        raise ValueError(f"a figure can't be called {values['name']!r}")
    return Figure(values["name"], values["caption"], panels)


def _figure_view(record: str, number: int, figure: Figure) -> FigureView:
    name = f"{record}-{figure.name}"
    meaning = figures.styles(figure)
    panels = [
        PanelView(f"{name}-{i}", p, figures.draw_panel(figure, p, f"{name}-{i}"), _readout(figure, p, meaning))
        for i, p in enumerate(figure.panels)
    ]
    return FigureView(number, str(figure.caption), panels, f"{name}.svg", figures.draw(figure, name))


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


def _table_view(number: int, table: Table) -> TableView:
    if any(len(row) != len(table.header) for row in table.rows):
        raise ValueError(f"the table {table.caption!r} has rows of other lengths than its header")
    return TableView(number, table, [all(map(_NUMBER.fullmatch, column)) for column in zip(*table.rows, strict=True)])


def _made(record: Record) -> list[tuple[str, str]]:
    m = record.machine
    processor = re.sub(r"\((R|TM|C)\)", "", m.get("processor") or "unknown processor")
    return [
        ("machine", f"{processor}, {m.get('cores', '?')} cores; {m.get('system', 'unknown system')}"),
        ("device", str(m.get("device", "unknown"))),
        (
            "software",
            f"resnetlab {m.get('resnetlab', '?')}, PyTorch {m.get('torch', '?')}, Python {m.get('python', '?')}",
        ),
        ("commit", m.get("commit") or "not recorded: run outside a checkout"),
        ("date", _date(record.date)),
        ("runs", f"{record.runs:,}" + (f" finished, {len(record.failures):,} failed" if record.failures else "")),
        ("training time", f"{duration(record.training_seconds)}, summed over the runs"),
    ]


def _date(iso: str) -> str:
    at = datetime.datetime.fromisoformat(iso)
    return f"{at.day} {at:%B %Y, %H:%M %Z}".strip()


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them: "48 s", "9 min", "3.2 h", "2.4 days"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def _html(sections: list[Section]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("resnetlab.studies", "."),
        autoescape=True,  # records are files: what they say is text, never markup
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["duration"] = duration
    verdicts = [row.verdict for section in sections for row in section.rows]
    return environment.get_template("report.html.j2").render(
        sections=sections,
        tally={v: verdicts.count(v) for v in VERDICTS},
        not_tested=NOT_TESTED,
        not_judged=NOT_JUDGED,
        failed_rule=FAILED_RULE,
        runs=sum(s.record.runs for s in sections),
        seconds=sum(s.record.training_seconds for s in sections),
        light=svg.declarations(svg.LIGHT),
        dark=svg.declarations(svg.DARK),
        sans=svg.SANS,
    )
