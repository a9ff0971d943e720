"""The essay: every number stands in the record or the paper that it names, and a part without a record says so."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from resnetlab.nets.orders import ORDERS
from resnetlab.nets.zoo import build, spec
from resnetlab.report.essay import unit
from resnetlab.report.essay.facts import FULLEST, Library
from resnetlab.report.essay.page import ARITHMETIC, PRINTED, SECTIONS, WORTH, essay, quotations, terminal
from resnetlab.report.essay.values import TEXT, Book, number_in, to_html, to_text
from resnetlab.report.numbers import NARROW, scientific, written
from resnetlab.report.study_pages import write_essay
from resnetlab.studies.figures import draw
from resnetlab.studies.frame.record import Record, read_records
from resnetlab.studies.frame.scales import SCALES, WEIGHTS
from resnetlab.studies.frame.text import LANGUAGES, placeholders

ROOT = Path(__file__).resolve().parents[2]
COMMITTED = ROOT / "results"


class Numbers(HTMLParser):
    """The numbers of a page that say where they come from."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[dict[str, str]] = []
        self.number: dict[str, str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "data":
            self.number = {key: value or "" for key, value in attrs} | {"text": ""}
            self.found.append(self.number)

    def handle_endtag(self, tag: str) -> None:
        if tag == "data":
            self.number = None

    def handle_data(self, data: str) -> None:
        if self.number is not None:
            self.number["text"] += data


def at(record: dict[str, Any], pointer: str) -> float:
    """The number at a place of a record, or the first one of the text there."""
    found: Any = record
    for key in pointer.split("/")[1:]:
        found = found[int(key)] if isinstance(found, list) else found[key]
    if isinstance(found, dict):
        found = found["en"]
    return number_in(found) if isinstance(found, str) else float(found)


def library_of(own: Sequence[Record], others: Sequence[Record] = ()) -> Library:
    return Library.of(*([Book.of(r, f"{r.name}.html") for r in records] for records in (own, others)))


@pytest.fixture(scope="module", autouse=True)
def undrawn() -> Iterator[None]:
    """Pictures are for tests with a browser."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(draw, "draw_panel", lambda figure, panel, name: f"<svg id='svg-{name}'></svg>")
        yield


@pytest.fixture(scope="module")
def records() -> list[Record]:
    if not any(COMMITTED.glob("degradation-*.json")):
        pytest.skip("no results of studies are committed")
    return read_records(COMMITTED)


@pytest.fixture(scope="module")
def page(records: list[Record]) -> str:
    return essay(library_of(records))


@pytest.fixture(scope="module")
def numbers(page: str) -> Numbers:
    found = Numbers()
    found.feed(page)
    return found


def test_every_number_is_what_its_record_has(numbers: Numbers) -> None:
    measured = [n for n in numbers.found if n["class"] == "measured"]
    assert len(measured) > 100
    files: dict[str, Any] = {}
    for number in measured:
        name = number["data-record"]
        record = files.setdefault(name, json.loads((COMMITTED / name).read_text()))
        places = number["data-at"].split(" ")
        value = at(record, places[0]) if len(places) == 1 else at(record, places[0]) / at(record, places[1])
        assert math.isclose(float(number["value"]), value), number
        assert number["text"] == written(value, number["data-form"]), number


def test_every_other_number_is_a_papers_or_arithmetic(numbers: Numbers) -> None:
    known = {source for _, _, source in PRINTED.values()} | {"arithmetic"}
    quoted = {written(value, form) for value, form, *_ in (*PRINTED.values(), *ARITHMETIC.values())}
    others = [n for n in numbers.found if n["class"] != "measured"]
    assert others
    for number in others:
        assert number["title"] in known
        assert number["text"] in quoted


def test_the_counts_are_those_of_the_records(page: str, records: list[Record]) -> None:
    best = [books[0].record for books in library_of(records).books.values()]
    text = re.search(r'id="open-answer"><span lang="en">(.*?)</span>', page)
    assert text
    claims, studies, *counts = map(int, re.findall(r"\d+", text[1]))
    assert claims == sum(len(r.rows) for r in best) == sum(counts)
    assert studies == len(best)


def test_no_text_has_a_number_of_its_own() -> None:
    """Placeholders bind numbers to records; digits are left in names, and where the question itself is the number."""
    named = r"\d[×x]\d+×?\d*|CIFAR-\d+|ResNet-\d+|VGG-\d+|x/2|F/2|1 −|β = 0\.1|λ = 1|224×224|\{[^}]*\}"
    for key in TEXT.leaves:
        if (
            key.partition(".")[0] in ("parts", "hero", "worth", "open", "terminal")
            and key != "parts.bottleneck.question"
        ):
            for text in texts_of(key):
                assert not re.search(r"\d", re.sub(named, "", text)), (key, text)


def texts_of(key: str) -> list[str]:
    """Both languages of what stands under a key."""
    leaf = TEXT.leaves[key]
    return [
        text for one in (leaf[language] for language in LANGUAGES) for text in ([one] if isinstance(one, str) else one)
    ]


def test_every_text_is_used() -> None:
    folder = ROOT / "resnetlab/report/essay"
    source = "".join(p.read_text(encoding="utf-8") for p in folder.iterdir() if p.suffix in (".py", ".j2"))
    parts = [*(part for section in SECTIONS.values() for part in section), "unit"]
    names = ("question", "told", "answer", "more", "derivation", "how", "limits", "caption")
    chosen = {"mixes": unit.MIXES, "shortcuts": unit.SHORTCUTS, "orders": unit.ORDERS}
    computed = {f"parts.{part}.{name}" for part in parts for name in names}
    computed |= {f"sections.{section}.{name}" for section in SECTIONS for name in ("nav", "question")}
    computed |= {f"things.unit.{name}" for name in ("mix", "shortcut", "order")}
    computed |= {f"things.unit.{group}.{choice}" for group, choices in chosen.items() for choice in choices}
    computed |= {"parts.problem.again", "parts.problem.how_one", "parts.problem.caption_one"}
    computed |= {f"terminal.{name}" for name in ("plain", "residual", "so", "open")}
    computed |= {f"worth.{name}.{what}" for name in WORTH for what in ("has", "lacks")}
    asked = {name for key in TEXT.leaves for text in texts_of(key) for name in _names(text)}
    for key in TEXT.leaves:
        group, _, name = key.partition(".")
        if group in ("cites", "formulas"):
            assert f"{'cite' if group == 'cites' else 'eq'}_{name}" in asked, key
        elif group != "data":
            assert key in computed or f'"{key}"' in source, key
    assert {name for name in quotations() if name.startswith("p_")} <= asked


def _names(text: str) -> set[str]:
    return {name for name in placeholders(text) if re.fullmatch(r"\w+", name)}


def test_sections_are_numbered_from_one_and_all_there(page: str) -> None:
    assert re.findall(r'<span class="place">(\d)</span>', page) == [str(i) for i in range(1, 8)]
    figures = [int(n) for n in re.findall(r"<b><span lang=\"en\">Figure (\d+)\.</span>", page)]
    assert figures == list(range(1, len(figures) + 1))


def test_ids_are_unique(page: str) -> None:
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_parts_without_a_record_name_the_command(tmp_path: Path, records: list[Record]) -> None:
    next(r for r in records if r.study == "degradation" and r.scale == "quick").save(tmp_path)
    path, library = write_essay(tmp_path)
    text = path.read_text(encoding="utf-8")
    assert path == tmp_path / "essay.html"
    assert text.count("Not measured here yet") == sum(map(len, SECTIONS.values())) - 1
    assert re.findall(r'<span class="place">(\d)</span>', text) == [str(i) for i in range(1, 8)]
    assert 'href="report.html"><span lang="en">degradation, quick</span><span lang="zh">退化，快速</span></a>' in text
    assert [line.en[:9] for line in terminal(library)] == ["plain-56:", "residual-", "So it is "]


def test_what_is_not_there_comes_from_the_other_folder(tmp_path: Path, records: list[Record]) -> None:
    own = next(r for r in records if r.study == "degradation" and r.scale == "quick")
    own.save(tmp_path)
    path, library = write_essay(tmp_path, COMMITTED)
    assert library.best("degradation").record == own
    assert library.best("scaling").record in records
    assert "Not measured here yet" not in path.read_text(encoding="utf-8")


def test_the_fullest_record_is_read(records: list[Record]) -> None:
    assert set(FULLEST) == {*SCALES, WEIGHTS}
    quick = next(r for r in records if r.study == "degradation" and r.scale == "quick")
    cifar = Record(**{**quick.__dict__, "scale": "cifar", "command": "resnetlab study run degradation --scale cifar"})
    short = Record(**{**cifar.__dict__, "shortened": "--epochs 1"})
    older = Record(**{**cifar.__dict__, "command": f"{cifar.command} --epochs 1", "seeds": 0})
    one_seed = Record(**{**cifar.__dict__, "seeds": 1})
    paper = Record(**{**quick.__dict__, "scale": "paper"})
    assert library_of([quick, cifar, paper]).best("degradation").record is paper
    assert library_of([quick, cifar]).best("degradation").record is cifar
    for less in (short, older, one_seed):
        assert library_of([quick, less]).best("degradation").record is quick
        assert library_of([less], [quick]).best("degradation").record is quick
    assert library_of([short, one_seed]).best("degradation").record is one_seed
    assert library_of([quick], [cifar]).best("degradation").record is quick


def test_a_record_that_does_not_fit_the_sentence_has_its_own(records: list[Record]) -> None:
    """If plain nets train well, the page must not say that they do not."""
    quick = next(r for r in records if r.study == "degradation" and r.scale == "quick")
    values = json.loads(json.dumps(quick.to_dict()))
    for series in (s for p in values["figures"][0]["panels"] for s in p["series"]):
        for key in ("mean", "low", "high"):
            series[key] = [0.5] * len(series[key])
    values["answer"] = {"en": "No degradation is seen.", "zh": "未见退化。"}
    library = library_of([Record(**values)])
    text = essay(library)
    assert text.count("No degradation is seen.") == 2, "on the first screen, and in its section"
    assert "it is called" not in text
    assert terminal(library)[-1].en.startswith("So here no degradation")


def test_a_record_without_what_the_essay_reads_is_as_none(records: list[Record]) -> None:
    for record in records:
        values = record.to_dict() | {"figures": [], "tables": []}
        text = essay(library_of([Record(**values)]))
        assert "Not measured here yet" in text


def test_words_of_records_are_never_markup(records: list[Record]) -> None:
    nasty = "<img src=x onerror=alert(1)>"
    changed = [
        Record(**{**r.to_dict(), "answer": nasty, "note": nasty, "machine": {"processor": nasty}}) for r in records
    ]
    assert nasty not in essay(library_of(changed))


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.0, "0"), (0.0581, "0.0581"), (-6.0, "−6"), (7.45058e-9, "7.45 × 10⁻⁹"), (1.0, "1"), (6e-8, "6 × 10⁻⁸")]
    + [(0.001, "0.001"), (0.000999, "9.99 × 10⁻⁴"), (99_900, "99900"), (1e5, "1 × 10⁵"), (-7.45e-9, "−7.45 × 10⁻⁹")],
)
def test_numbers_as_a_page_writes_them(value: float, words: str) -> None:
    assert scientific(value).replace(NARROW, " ") == words


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("59.15 ± 10.22", 59.15),
        ("plain-56", 56),
        ("b = −6", -6),
        ("0/3", 0),
        ("1,179,648", 1179648),
        ("5.55e-17", 5.55e-17),
    ],
)
def test_the_first_number_of_a_cell(text: str, number: float) -> None:
    assert number_in(text) == number


@pytest.mark.parametrize(
    ("cell", "shown"), [("59.15 ± 10.22", "59.15"), ("59.14 ± 1.00", "59.1"), ("98.0", "98.0"), ("0.055", "0.1")]
)
def test_a_rounded_number_is_not_rounded_where_that_could_go_wrong(
    records: list[Record], cell: str, shown: str
) -> None:
    """A mean of 59.151 stands in its cell as 59.15: neither 59.1 nor 59.2 follows from that."""
    book = Book(records[0], {"cell": cell})
    number = book.number(("cell",))
    assert written(number.value, number.form) == shown


def test_the_bottlenecks_time_is_said_to_be_of_as_many_images_as_it_was(page: str, records: list[Record]) -> None:
    best = library_of(records).best("bottleneck")
    images = re.search(r"unit with (?:batches of )?(\d+)", best.at(("note", "en")))
    assert images
    assert re.search(rf"in batches of <data [^>]*>{images[1]}</data>", page)


def test_texts_as_html_and_plain() -> None:
    assert to_html("*x* < `y`") == "<var>x</var> &lt; <code>y</code>"
    assert to_html("*so* 5 %") == f"<em>so</em> 5{NARROW}%"
    assert to_text("*x* < `y`") == "x < y"


# The unit that a reader builds.


def test_orders_are_those_of_the_paper() -> None:
    """He 2016, Figure 4: the layers of F in order, and what follows the sum."""
    orders = unit.choices(Library([]))["orders"]
    assert {name: ("".join(one["branch"]), "".join(one["after"])) for name, one in orders.items()} == {
        "post": ("cbrcb", "r"),
        "bn_after_add": ("cbrc", "br"),
        "relu_before_add": ("cbrcbr", ""),
        "relu_preact": ("rcbrcb", ""),
        "full_preact": ("brcbrc", ""),
    }


@pytest.mark.parametrize("mix", unit.MIXES)
@pytest.mark.parametrize("shortcut", unit.SHORTCUTS)
def test_costs_are_counted_on_the_modules(mix: str, shortcut: str) -> None:
    """A network of three stages of the unit's width, with one unit more in the one and the other."""
    for order in ORDERS:
        spec(unit.network(mix, shortcut, order))
    option, changes = unit.SHORTCUTS[shortcut][3:]
    mixed = f"mix={unit.MIXES[mix][2]}" if unit.MIXES[mix][2] else "mix=Add()"
    net = build(f"cifar_resnet8({mixed}, shortcut='{option}')" if mix != "plain" else f"cifar_resnet8({mixed})", seed=0)
    one = [*net.units()][1 if changes else 0][1]  # type: ignore[operator]
    weights = sum(p.numel() for p in one.parameters() if p.dim() == 4)
    small, wide = (16, 32) if changes else (16, 16)
    scaled = weights * (unit.CHANNELS // small) ** 2
    assert unit.cost(mix, shortcut)[0] == scaled, (small, wide)


def test_the_essay_asks_for_nothing(page: str) -> None:
    assert not re.findall(r'(?:src|srcset|action)="|<link|@import|url\((?!#)', page)
