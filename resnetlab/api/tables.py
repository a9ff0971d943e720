"""Results as tables: rows for a program, text for `print`, HTML for a notebook."""

from __future__ import annotations

import html
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from resnetlab.errors import printable

Row = dict[str, Any]
NUMBER = ".2f"  # how numbers with a fraction are written, where a column has no format of its own


class Tabular(ABC):
    """A result that is shown as the table of its rows."""

    formats: ClassVar[Mapping[str, str]] = {}  # of columns, as format() takes them

    @abstractmethod
    def table(self) -> list[Row]:
        """The rows, each with the same keys in the same order; pandas.DataFrame takes them as they are."""

    def __str__(self) -> str:
        return as_text(self.table(), self.formats)

    def _repr_html_(self) -> str:
        return as_html(self.table(), self.formats)


def as_text(rows: Sequence[Row], formats: Mapping[str, str]) -> str:
    """Rows below a line of headings, numbers on the right; without rows "no rows"."""
    if not rows:
        return "no rows"
    right = {key for key in rows[0] if _is_number(rows, key)}
    lines = [[heading(key) for key in rows[0]], *([cell(v, formats.get(k)) for k, v in row.items()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    def aligned(line: Sequence[str]) -> str:
        cells = zip(rows[0], line, widths, strict=True)
        return "  ".join(f"{text:>{n}}" if key in right else f"{text:<{n}}" for key, text, n in cells).rstrip()

    return "\n".join(map(aligned, lines))


def as_html(rows: Sequence[Row], formats: Mapping[str, str]) -> str:
    """The same as an HTML table."""
    if not rows:
        return "<p>no rows</p>"
    right = {key for key in rows[0] if _is_number(rows, key)}

    def line(tag: str, cells: Sequence[tuple[str, str]]) -> str:
        made = (
            f'<{tag} style="text-align: {"right" if key in right else "left"}">{html.escape(text)}</{tag}>'
            for key, text in cells
        )
        return f"<tr>{''.join(made)}</tr>"

    head = line("th", [(key, heading(key)) for key in rows[0]])
    body = "".join(line("td", [(k, cell(v, formats.get(k))) for k, v in row.items()]) for row in rows)
    return f"<table><thead>{head}</thead><tbody>{body}</tbody></table>"


def heading(key: str) -> str:
    """A column's heading: "test error" of test_error."""
    return key.replace("_", " ")


def cell(value: Any, form: str | None = None) -> str:
    """A value as a table shows it, in one line; None is empty."""
    if value is None:
        return ""
    if isinstance(value, float):
        return format(value, form or NUMBER)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else printable(str(value))


def _is_number(rows: Sequence[Row], key: str) -> bool:
    return all(isinstance(row[key], int | float | None) for row in rows)
