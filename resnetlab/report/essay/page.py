"""The essay as a page: each part's question, answer, figure, how it was measured, and what it does not show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from resnetlab.report.essay import design, explanations
from resnetlab.report.essay.facts import Facts, Gather, Library
from resnetlab.report.essay.unit import CHANNELS, MAP, choices
from resnetlab.report.essay.values import TEXT, Book, Cite, Formula, Number, Seeds, filled, to_html, to_text
from resnetlab.report.page import called, data_words, day, paragraphs_of, processor, render, verdict_words
from resnetlab.report.panels import PanelView, panel_view
from resnetlab.studies.figures.figure import Figure, Panel
from resnetlab.studies.frame.record import Record, RecordedRow
from resnetlab.studies.frame.statistics import DIRECTION, NOT_TESTED, REPRODUCED, Verdict, tally
from resnetlab.studies.frame.text import SHARED, Both, both, joined

# The sections in order, and the parts of each with the study that measures it and what reads the record.
SECTIONS: dict[str, dict[str, tuple[str, Gather]]] = {
    "problem": {
        "problem": ("degradation", explanations.problem),
        "vanishing": ("signal", explanations.vanishing),
    },
    "unit": {},
    "explanations": {
        "gradients": ("shattered", explanations.gradients),
        "reaction": ("sensitivity", explanations.reaction),
        "identity": ("identity", explanations.identity),
        "deletion": ("lesion", explanations.deletion),
        "carry": ("carry", explanations.carry),
    },
    "shortcuts": {"shortcuts": ("shortcuts", design.shortcuts)},
    "bottleneck": {"bottleneck": ("bottleneck", design.bottleneck)},
    "scaling": {"product": ("scaling", design.product), "left": ("scaling", design.left)},
    "open": {},
}
WORTH = {"gradients": "shattered", "reaction": "sensitivity", "identity": "identity", "carry": "carry"}
_UNREADABLE = (ArithmeticError, AttributeError, LookupError, StopIteration, TypeError, ValueError)


@dataclass(frozen=True)
class Link:
    """A study's page, if there is one, by the study and the scale."""

    words: Both
    address: str
    record: Record


@dataclass(frozen=True)
class Part:
    """A part of the essay as the page shows it: texts are HTML in both languages."""

    key: str
    question: Both
    values: dict[str, Any]
    told: Both | None = None
    fits: bool = True
    answer: Sequence[Both] = ()
    more: Sequence[Both] = ()
    how: Both | None = None
    limits: Both | None = None
    note: tuple[Both, str] | None = None  # what the record says of its scale, and the record's file
    caption: Both | None = None
    number: int = 0  # of its figure; 0 if there is none
    panels: Sequence[PanelView] = ()
    links: Sequence[Link] = ()
    made: Both | None = None
    command: str = ""  # the command that measures it, if it has not been measured
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Section:
    """A section: its number, its name in the contents, its question and its parts."""

    number: int
    key: str
    name: Both
    question: Both
    parts: list[Part]


def essay(library: Library, appendix: Sequence[Any] = (), aside: Sequence[Record] = ()) -> str:
    """The essay's page, from the best record of each study.

    appendix: the studies that its appendix shows; aside: records that it only links, as fuller ones are shown.
    """
    fixed, sections, number = quotations(), [], 1
    for place, (key, found) in enumerate(SECTIONS.items(), 1):
        parts = []
        for name, (study, gather) in found.items():
            part = _part(name, study, gather, library, fixed, number)
            number += bool(part.panels)
            parts.append(part)
        if key == "unit":
            parts = [_fixed_part(key, fixed)]
        sections.append(Section(place, key, TEXT(f"sections.{key}.nav"), TEXT(f"sections.{key}.question"), parts))
    return render(
        "essay/essay",
        sections=sections,
        hero=_hero(library, fixed),
        unit=choices(library),
        worth=_worth(library),
        open=_open(library),
        appendix=appendix,
        aside=aside,
        text=TEXT,
        filled=filled,
        shown=lambda number: to_html(number.in_words("en", "")),
        home="report.html",
        at_home=bool(appendix),
        **verdict_words(),
    )


def terminal(library: Library) -> list[Both]:
    """The result in three lines, for a terminal; none where degradation was not measured."""
    try:
        facts = _gathered(explanations.problem, library)
    except _UNREADABLE:
        return []
    values = _values(facts, {})
    lines = [TEXT(f"terminal.{key}", **values) for key in ("plain", "residual", "so" if facts.fits else "open")]
    return [Both(to_text(line.en), to_text(line.zh)) for line in lines]


def _part(key: str, study: str, gather: Gather, library: Library, fixed: dict[str, Any], number: int) -> Part:
    try:
        facts = _gathered(gather, library)
    except _UNREADABLE:
        return _unmeasured(key, study, fixed)
    values, record = _values(facts, fixed), facts.book.record
    note = both(record.note)

    def text(name: str) -> Both | None:
        keys = (f"parts.{key}.{name}{'_one' * (record.seeds == 1)}", f"parts.{key}.{name}")
        return next((filled(TEXT(key, **values)) for key in keys if key in TEXT), None)

    def paragraphs(*names: str) -> list[Both]:
        return [p for name in names if (words := text(name)) for p in paragraphs_of(words)]

    answer, more = paragraphs("answer"), paragraphs("derivation", "more", *facts.further)
    if not facts.fits:  # the study's own words, which follow from what it found
        own = both(record.answer or record.claim)
        answer, more = [filled(own)], paragraphs("derivation")
    return Part(
        key,
        filled(TEXT(f"parts.{key}.question", **values)),
        values,
        told=text("told"),
        fits=facts.fits,
        answer=answer,
        more=more,
        how=text("how"),
        limits=text("limits"),
        note=(note, facts.book.file) if note.en else None,
        caption=text("caption") if facts.panels else None,
        number=number if facts.panels else 0,
        panels=_panels(key, facts.panels),
        links=[link for name in dict.fromkeys((study, *facts.also)) for link in _links(library, name, facts.book)],
        made=TEXT("words.own", date=day(record.date), machine=processor(record.machine)),
        data=facts.data,
    )


def _gathered(gather: Gather, library: Library) -> Facts:
    """What a part can say, from the best records that have all it needs, as larger scales leave some networks out."""
    while True:
        try:
            return gather(library)
        except _UNREADABLE:
            library = library.next_best()


def _values(facts: Facts, fixed: dict[str, Any]) -> dict[str, Any]:
    """All values that a part's texts may use."""
    counts = {f"of_{key}": Seeds(value) for key, value in facts.values.items() if key.endswith("seeds")}
    return fixed | facts.values | counts | {"data": data_words(facts.book.record)}


def _fixed_part(key: str, fixed: dict[str, Any]) -> Part:
    """A part that needs no record."""
    question, answer, more, how, limits = (
        filled(TEXT(f"parts.{key}.{name}", **fixed)) for name in ("question", "answer", "more", "how", "limits")
    )
    return Part(key, question, fixed, answer=[answer], more=[more], how=how, limits=limits)


def _unmeasured(key: str, study: str, fixed: dict[str, Any]) -> Part:
    """A part without a record: its question, what is commonly said, and the command that measures it."""
    question, told = TEXT(f"parts.{key}.question", **fixed), f"parts.{key}.told"
    return Part(
        key,
        filled(question),
        fixed,
        told=filled(TEXT(told, **fixed)) if told in TEXT else None,
        command=f"resnetlab study run {study} --scale quick",
    )


def _panels(key: str, panels: Sequence[Panel]) -> list[PanelView]:
    figure = Figure(f"essay-{key}", "", list(panels))
    return [panel_view(figure, panel, f"essay-{key}-{i}") for i, panel in enumerate(panels)]


def _links(library: Library, study: str, first: Book) -> list[Link]:
    """Links to the pages of a study's records: first the record that was read from, then the others, best first."""
    books = sorted(library.books.get(study, []), key=lambda book: book is not first)
    names = [book.record.name for book in books]
    return [_link(book, apart=names.count(book.record.name) > 1) for book in books]


def _link(book: Book, apart: bool = False) -> Link:
    """apart: whether another folder has a record of the same name, so that the link has to name the folder."""
    words = called(book.record)
    if apart and book.elsewhere:
        words = TEXT("words.elsewhere", record=words, folder=book.elsewhere)
    return Link(words, book.address, book.record)


@dataclass(frozen=True)
class Hero:
    """The first screen: the answer, and the picture of degradation."""

    answer: Both | None
    caption: Both | None
    panel: PanelView | None


def _hero(library: Library, fixed: dict[str, Any]) -> Hero:
    try:
        facts = _gathered(explanations.problem, library)
        panel = explanations.summary_panel(facts)
    except _UNREADABLE:
        return Hero(None, None, None)
    values = _values(facts, fixed)
    answer = TEXT("hero.answer", **values) if facts.fits else both(facts.book.record.answer)
    caption = TEXT("hero.caption_one" if facts.book.record.seeds == 1 else "hero.caption", **values)
    return Hero(filled(answer), filled(caption), _panels("hero", [panel])[0])


@dataclass(frozen=True)
class Worth:
    """An explanation in the table that compares them: what it has and lacks, and how its claims came out."""

    name: Both
    has: Both
    lacks: Both
    counts: list[tuple[str, int]]
    link: Link


def _worth(library: Library) -> list[Worth]:
    found = []
    for key, study in WORTH.items():
        if study in library.books:
            book = library.best(study)
            counts = [(v.word, n) for v, n in tally(book.record.verdicts).items()]
            texts = (TEXT(f"parts.{key}.question"), TEXT(f"worth.{key}.has"), TEXT(f"worth.{key}.lacks"))
            found.append(Worth(*texts, counts, _link(book)))
    return found


@dataclass(frozen=True)
class Open:
    """The claims that came out otherwise or were left open, and how many claims there are by verdict."""

    claims: int
    studies: int
    counts: list[tuple[str, int]]  # by the verdict's word
    answer: Both
    rows: list[tuple[RecordedRow, Link, str]]  # a row, its study's page, and the record's file


def _open(library: Library) -> Open:
    best = [books[0] for books in library.books.values()]
    rows = [
        (RecordedRow(**row), _link(book), book.file)
        for book in best
        for row in book.record.rows
        if Verdict.of(row["verdict"]) not in (REPRODUCED, DIRECTION, NOT_TESTED)
    ]
    verdicts = [verdict for book in best for verdict in book.record.verdicts]
    tallied = tally(verdicts)
    counts = [TEXT("words.of_claims", count=count, word=SHARED(f"verdicts.{v.name}")) for v, count in tallied.items()]
    listed = Both(joined(counts, ", ").en, "\u3001".join(c.zh for c in counts))
    values = {"claims": len(verdicts), "studies": len(best)}
    answer = filled(TEXT("open.answer", counts=listed, **values))
    return Open(counts=[(v.word, count) for v, count in tallied.items()], answer=answer, rows=rows, **values)


ADDRESSES = {
    "he2015": "https://arxiv.org/abs/1512.03385",
    "he2016": "https://arxiv.org/abs/1603.05027",
    "balduzzi": "https://arxiv.org/abs/1702.08591",
    "highway": "https://arxiv.org/abs/1505.00387",
    "veit": "https://arxiv.org/abs/1605.06431",
}

_TABLE_3, _TABLE_1 = "He et al. 2015, Table 3", "He et al. 2016, Table 1"
PRINTED = {
    "p_34": (34, ".0f", _TABLE_3),
    "p_a": (25.03, ".2f", _TABLE_3),
    "p_b": (24.52, ".2f", _TABLE_3),
    "p_c": (24.19, ".2f", _TABLE_3),
    "p_110": (110, ".0f", _TABLE_1),
    "p_conv": (12.22, ".2f", _TABLE_1),
    "p_add": (6.61, ".2f", _TABLE_1),
    "p_gate": (8.70, ".2f", _TABLE_1),
    "p_shortcut_gate": (6.91, ".2f", _TABLE_1),
    "p_152": (152, ".0f", "He et al. 2015, Table 1"),
    "year2015": (2015, ".0f", "He et al. 2015"),
}

PARAGRAPHS = ("7", "8")  # formulas that stand alone

X, BEFORE, AFTER = 5.0, 0.1, 0.2  # the usual example: F goes from 0.1 to 0.2 while x = 5
ARITHMETIC = {
    "x": (X, ".0f"),
    "f_before": (BEFORE, ".1f"),
    "f_after": (AFTER, ".1f"),
    "h_before": (X + BEFORE, ".1f"),
    "h_after": (X + AFTER, ".1f"),
    "f_percent": (100 * (AFTER - BEFORE) / BEFORE, ".0f"),
    "h_percent": (100 * (AFTER - BEFORE) / (X + BEFORE), ".2f"),
    "unit_channels": (CHANNELS, ".0f"),
    "unit_map": (MAP, ".0f"),
    "map": (MAP, ".0f"),
}


def quotations() -> dict[str, Any]:
    """Values that any text of the essay may use."""
    values: dict[str, Any] = {key: Number(v, form, printed=source) for key, (v, form, source) in PRINTED.items()}
    values |= {key: Number(v, form, printed="arithmetic") for key, (v, form) in ARITHMETIC.items()}
    for key in TEXT.leaves:
        group, _, name = key.partition(".")
        if group == "cites":
            values[f"cite_{name}"] = Cite(TEXT(key), ADDRESSES[name.partition("_")[0]])
        elif group == "formulas":
            values[f"eq_{name}"] = Formula(TEXT.leaves[key]["en"], "block" if name in PARAGRAPHS else "inline")
    return values
