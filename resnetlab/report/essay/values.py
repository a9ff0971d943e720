"""Values in the essay's text that know where they come from, and the markup of its texts."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resnetlab.report.numbers import NARROW, mathml, written
from resnetlab.studies.frame.record import Record
from resnetlab.studies.frame.text import LANGUAGES, Both, Catalogue, both

TEXT = Catalogue(Path(__file__).with_name("essay.toml"))
Place = tuple[str | int, ...]  # keys and indexes into a record, as JSON

# A value's own markup is written in letters that no text has, so that the text around it can be escaped.
_TO_HTML = {"\ue000": "<", "\ue001": ">", "\ue002": '"', "\ue003": "&"}
_FROM_HTML = {mark: letter for letter, mark in _TO_HTML.items()}
_NUMBER = re.compile(r"(?:(?<!\w)[+−-])?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?")


def marked(markup: str) -> str:
    """HTML in a form that survives the escaping of the text around it."""
    return "".join(_FROM_HTML.get(letter, letter) for letter in markup)


def to_html(text: str) -> str:
    """A filled text as HTML: values keep their markup; *so* is emphasised, a *letter* is a variable, `so` is code."""
    found = html.escape(text, quote=False).replace(" %", f"{NARROW}%")
    found = re.sub(r"`([^`]+)`", r"<code>\1</code>", found)
    found = re.sub(r"\*([A-Za-z])\*", r"<var>\1</var>", found)
    found = re.sub(r"\*([^*]+)\*", r"<em>\1</em>", found)
    return "".join(_TO_HTML.get(letter, letter) for letter in found)


def to_text(text: str) -> str:
    """A filled text without markup, for a terminal."""
    return re.sub("\ue000[^\ue001]*\ue001", "", text).replace("*", "").replace("`", "")


def number_in(text: str) -> float:
    """The first number of a cell, e.g. of "59.15 ± 10.22". Raises LookupError where there is none."""
    return float(digits_in(text).replace(",", "").replace("−", "-"))


def digits_in(text: str) -> str:
    """The first number of a cell as it is written there. Raises LookupError where there is none."""
    match = _NUMBER.search(text)
    if match is None:
        raise LookupError(f"no number in {text!r:.60}")
    return match[0]


def _form_of(digits: str, form: str) -> str:
    """The format for a number that a cell has rounded: its own digits where one digit less is up to what it cut off."""
    decimals = len(digits.partition(".")[2])
    return f".{decimals}f" if form == f".{decimals - 1}f" and digits.endswith("5") else form


@dataclass(frozen=True)
class Number:
    """A number in the text: its value, how it is written, and where it comes from."""

    value: float
    form: str
    record: str = ""  # the record's file
    at: str = ""  # its place there, a JSON pointer; of a ratio, those of both
    printed: str = ""  # the paper that prints it, or the arithmetic that gives it, where no record has it

    def in_words(self, language: str, form: str) -> str:
        """The value as markup from which a test can find its source."""
        form = form or self.form
        record = html.escape(self.record)  # a folder may be called anything
        origin = f'data-record="{record}" data-at="{self.at}"' if record else f'title="{self.printed}"'
        kind = "measured" if self.record else "printed"
        words = written(self.value, form)
        return marked(f'<data class="{kind}" value="{self.value!r}" data-form="{form}" {origin}>{words}</data>')


@dataclass(frozen=True)
class Seeds:
    """How many seeds there are: "5 seeds", "1 seed"."""

    number: Number

    def in_words(self, language: str, form: str) -> str:
        """The number with its noun."""
        key = "seeds.one" if self.number.value == 1 else "seeds.several"
        return str(getattr(TEXT(key, number=self.number), language))


def ratio(one: Number, other: Number, form: str) -> Number:
    """The ratio of two numbers of one record; its place names both of theirs."""
    return Number(one.value / other.value, form, one.record, f"{one.at} {other.at}")


@dataclass(frozen=True)
class Cite:
    """A place in a paper, e.g. He 2015, Table 2, with the paper's address."""

    words: Both
    address: str

    def in_words(self, language: str, form: str) -> str:
        """A link to the paper."""
        return marked(f'<cite><a href="{self.address}">{getattr(self.words, language)}</a></cite>')


@dataclass(frozen=True)
class Formula:
    """LaTeX in a sentence, or as a paragraph of its own."""

    latex: str
    display: str = "inline"

    def in_words(self, language: str, form: str) -> str:
        """As MathML."""
        return marked(mathml(self.latex, self.display))


@dataclass(frozen=True)
class Book:
    """A record to read from; numbers taken from it know their place. Lookups raise LookupError."""

    record: Record
    values: Mapping[str, Any]  # the same as JSON
    address: str = ""  # of its page, if there is one
    elsewhere: str = ""  # the relative path of its folder, if that is not the essay's

    @classmethod
    def of(cls, record: Record, address: str = "", elsewhere: str = "") -> Book:
        return cls(record, record.to_dict(), address, elsewhere)

    @property
    def file(self) -> str:
        """The record's file, relative to the essay."""
        return f"{self.elsewhere}/{self.record.file_name}" if self.elsewhere else self.record.file_name

    def at(self, place: Place) -> Any:
        """The value at a place."""
        found: Any = self.values
        for key in place:
            found = found[key]
        return found

    def number(self, place: Place, form: str = ".1f") -> Number:
        """The number at a place, or the first one of the text there."""
        found = self.at(place)
        if isinstance(found, dict):  # a text in both languages
            place, found = (*place, "en"), found["en"]
        if isinstance(found, str):
            return Number(number_in(found), _form_of(digits_in(found), form), self.file, pointer(place))
        return Number(float(found), form, self.file, pointer(place))

    def figure(self, name: str) -> tuple[Place, dict[str, Any]]:
        """The place of a figure, and the figure."""
        for i, one in enumerate(self.values["figures"]):
            if one["name"] == name:
                return ("figures", i), one
        raise LookupError(f"no figure {name}")

    def lines(self, figure: str, panel: int) -> dict[str, Place]:
        """The lines of a panel by their names, and where each stands."""
        place, found = self.figure(figure)
        names = [s["label"] for s in found["panels"][panel]["series"]]
        return {name: (*place, "panels", panel, "series", k) for k, name in enumerate(names)}

    def end(self, line: Place) -> Number:
        """The mean at the last point of a line."""
        return self.number((*line, "mean", len(self.at(line)["mean"]) - 1))

    def value_at(self, line: Place, x: float) -> Number:
        """A line's mean at an x."""
        xs: list[float] = self.at(line)["x"]
        if x not in xs:
            raise LookupError(f"no point at {x:g}")
        return self.number((*line, "mean", xs.index(x)), ".2f")

    def header(self, table: int) -> list[str]:
        """The headers of a table, in English."""
        return [both(one).en for one in self.at(("tables", table, "header"))]

    def rows(self, table: int) -> dict[Place, list[str]]:
        """The rows of a table by their places: the cells, in English."""
        place: Place = ("tables", table, "rows")
        return {(*place, i): [both(cell).en for cell in row] for i, row in enumerate(self.at(place))}

    def row(self, table: int, fits: Callable[[list[str]], bool]) -> Place:
        """The first row of a table whose cells, in English, fit."""
        for place, cells in self.rows(table).items():
            if fits(cells):
                return place
        raise LookupError(f"no such row in table {table}")

    def cell(self, table: int, row: Place, column: str, form: str = ".1f") -> Number:
        """The number in a row under a header, in English."""
        header = self.header(table)
        if column not in header:
            raise LookupError(f"no column {column!r} in table {table}")
        return self.number((*row, header.index(column)), form)


def named(name: str) -> Callable[[list[str]], bool]:
    """Whether a row begins with this cell."""
    return lambda cells: cells[0] == name


def where(*cells: tuple[int, str]) -> Callable[[list[str]], bool]:
    """Whether a row has these texts in these columns."""
    return lambda row: all(row[column] == text for column, text in cells)


def pointer(place: Place) -> str:
    """A place as a JSON pointer: "/figures/0/panels/1"."""
    return "".join(f"/{html.escape(str(key))}" for key in place)


def filled(words: Both) -> Both:
    """A text in both languages as HTML."""
    return Both(*(to_html(getattr(words, language)) for language in LANGUAGES))
