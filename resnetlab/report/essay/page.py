"""The essay as a page: each part's question, answer, figure, how it was measured, and what it does not show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from resnetlab.report.essay import design, explanations
from resnetlab.report.essay.facts import Facts, Gather
from resnetlab.report.essay.library import Library
from resnetlab.report.essay.papers import quotations
from resnetlab.report.essay.unit import choices
from resnetlab.report.essay.values import TEXT, Book, Seeds, filled, to_html, to_text
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


def _links(library: Library, study: str, first: Book | None = None) -> list[Link]:
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
