"""A page from its template: one Jinja environment for all, one HTML file that needs nothing else."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from resnetlab.errors import printable
from resnetlab.report.panels import axis
from resnetlab.studies.figures import svg
from resnetlab.studies.frame.statistics import VERDICTS
from resnetlab.studies.frame.text import SHARED, both

if TYPE_CHECKING:
    from jinja2 import Environment


def render(template: str, **values: Any) -> str:
    """The page: a template of this folder by its name, e.g. "audit", filled in."""
    return _environment().get_template(f"{template}.html.j2").render(values)


@cache
def _environment() -> Environment:
    """Kept, as compiling a template takes longer than filling it in, and a report has a page for each study."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("resnetlab.report", "."),
        autoescape=True,  # records are files, and files and classes may be called anything: text, never markup
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "axis": axis,
        "both": both,
        "duration": duration,
        "interval": interval,
        "printable": printable,
        "share": share,
    }
    environment.globals |= {
        "light": svg.declarations(svg.LIGHT),
        "dark": svg.declarations(svg.DARK),
        "sans": svg.SANS,
    }
    return environment


def verdict_words() -> dict[str, Any]:
    """What a page needs to show verdicts: their words, what they mean, and the kinds that its style knows."""
    return {
        "verdict_words": {v.word: SHARED(f"verdicts.{v.name}") for v in VERDICTS},
        "meanings": {v.word: SHARED(f"meaning.{v.name}") for v in VERDICTS},
        "kinds": {v.word: v.name.lower().replace("_", "-") for v in VERDICTS},
    }


def date(iso: str) -> str:
    """A moment as a reader writes it: "2 January 2026, 03:04 UTC"."""
    at = datetime.datetime.fromisoformat(iso)
    return f"{at.day} {at:%B %Y, %H:%M %Z}".strip()


def processor(machine: Mapping[str, Any]) -> str:
    """The processor that a record was made on, without its trademarks: "Intel Xeon Processor, 2 cores"."""
    name = re.sub(r"\((R|TM|C)\)", "", str(machine.get("processor") or "unknown processor"))
    return f"{name}, {machine.get('cores', '?')} cores"


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them: "48 s", "9 min", "3.2 h", "2.4 days"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def interval(ends: tuple[float, float], digits: int = 1) -> str:
    """An interval of shares in %: "91.2 to 92.3"."""
    return " to ".join(f"{100 * end:.{digits}f}" for end in ends)


def share(value: float | None) -> str:
    """A share in %, or a dash where there is none."""
    return "–" if value is None else f"{100 * value:.1f}"
