"""Fills in the templates of pages, with one Jinja environment for all; a page is one HTML file that loads nothing."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnetlab.errors import printable
from resnetlab.studies.figures import labels, svg
from resnetlab.studies.frame.statistics import VERDICTS
from resnetlab.studies.frame.text import SHARED, Both, Catalogue, Words, both

if TYPE_CHECKING:
    from jinja2 import Environment

    from resnetlab.studies.frame.record import Record

TEXT = Catalogue(Path(__file__).with_name("text.toml"))


def render(template: str, **values: Any) -> str:
    """The page that a template gives; `template` is its name in this folder, e.g. "audit"."""
    return _environment().get_template(f"{template}.html.j2").render(values)


@cache
def _environment() -> Environment:
    """Cached, as compiling a template takes longer than filling it in, and a report has a page for each study."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("resnetlab.report", "."),
        autoescape=True,  # records are files, and files and classes may be called anything: text, never markup
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    functions = (labels.axis, called, labels.cell, duration, interval, labels.line, printable, sample, share)
    environment.filters |= {function.__name__: function for function in functions}
    environment.filters["both"] = lambda words: labels.networks(both(words))
    environment.globals |= {
        "light": svg.declarations(svg.LIGHT),
        "dark": svg.declarations(svg.DARK),
        "sans": svg.SANS,
    }
    return environment


def verdict_words() -> dict[str, Any]:
    """What a page needs to show verdicts: their words, their meanings, and the CSS classes of its style."""
    return {
        "verdict_words": {v.word: SHARED(f"verdicts.{v.name}") for v in VERDICTS},
        "meanings": {v.word: SHARED(f"meaning.{v.name}") for v in VERDICTS},
        "kinds": {v.word: v.name.lower().replace("_", "-") for v in VERDICTS},
    }


def called(record: Record) -> Both:
    """The name of a record in sentences and links, from its study and scale."""
    study, scale = (
        TEXT(key) if (key := f"{of}.{name}") in TEXT else name
        for of, name in (("studies", record.study), ("scales", record.scale))
    )
    return TEXT("called.record", study=study, scale=scale)


def data_words(record: Record) -> Both:
    """The data that a record's networks were given; the quick scale names none and uses the digits."""
    match = re.search(r"--data (\w+)", record.command)
    key = f"data.{match[1] if match else 'digits'}"
    return TEXT(key if key in TEXT else "data.other")


def sample(record: Record) -> Both:
    """The data of a record's networks and how many seeds each has; empty if they were given no data."""
    if not record.runs and "--data" not in record.command:
        return Both("", "")
    kind = {0: "unknown", 1: "one"}.get(record.seeds, "several")
    return TEXT(f"sample.{kind}", data=data_words(record), seeds=record.seeds)


def paragraphs_of(words: Words | dict[str, Any]) -> list[Both]:
    """The paragraphs of a text, which empty lines separate."""
    text = both(words)
    parts = zip_longest(text.en.split("\n\n"), text.zh.split("\n\n"), fillvalue="")
    return [Both(en, zh) for en, zh in parts if en or zh]


def day(iso: str) -> Both:
    """The day of an ISO date in each language: "2 January 2026"."""
    at = datetime.datetime.fromisoformat(iso)
    month = TEXT.each("moment.months")[at.month - 1]
    return TEXT("moment.day", day=at.day, month=month, year=at.year)


def date(iso: str) -> Both:
    """An ISO date with its time in each language: "2 January 2026, 03:04 UTC"."""
    at = datetime.datetime.fromisoformat(iso)
    return TEXT("moment.minute", date=day(iso), time=f"{at:%H:%M %Z}".strip())


def processor(machine: Mapping[str, Any]) -> Both:
    """The processor that a record was made on, without its trademarks: "Intel Xeon Processor, 2 cores"."""
    name = machine.get("processor")
    shown = re.sub(r"\((R|TM|C)\)", "", str(name)) if name else TEXT("moment.unknown")
    return TEXT("moment.processor", name=shown, cores=machine.get("cores", "?"))


def duration(seconds: float) -> Both:
    """Seconds in the unit that suits them: "48 s", "9 min", "3.2 h", "2.4 days"."""
    if seconds < 100:
        return TEXT("duration.seconds", n=seconds)
    if seconds < 100 * 60:
        return TEXT("duration.minutes", n=seconds / 60)
    return TEXT("duration.hours", n=seconds / 3600) if seconds < 48 * 3600 else TEXT("duration.days", n=seconds / 86400)


def interval(ends: tuple[float, float], digits: int = 1) -> str:
    """An interval of shares in %: "91.2 to 92.3"."""
    return " to ".join(f"{100 * end:.{digits}f}" for end in ends)


def share(value: float | None) -> str:
    """A share in %, or a dash where there is none."""
    return "–" if value is None else f"{100 * value:.1f}"
