"""Puts a record of the study degradation into README.md and README.zh.md: its figure, and what stands under it.

python -m benchmarks.readme [results/degradation-cifar.json]

Without a record it takes the one that the essay draws. Nothing is written where that record shows no degradation, or
where its figure does not lie beside it: 'resnetlab study report --results results' draws it.
"""

from __future__ import annotations

import argparse
import re
import textwrap
from pathlib import Path

from benchmarks.timing import run
from resnetlab.errors import UserError
from resnetlab.report.essay.explanations import problem
from resnetlab.report.essay.facts import Library
from resnetlab.report.essay.values import Book, Number
from resnetlab.report.page import data_words
from resnetlab.storage import write_atomically
from resnetlab.studies.frame.record import read_records
from resnetlab.studies.frame.text import LANGUAGES, Both, Catalogue

TEXT = Catalogue(Path(__file__).with_name("readme.toml"))
ROOT = Path(__file__).parents[1]
READMES = {"en": "README.md", "zh": "README.zh.md"}
WIDTH = 120
# The figure's line, and the paragraph in italics under it.
_PLACE = re.compile(r"!\[[^\]]*\]\(results/degradation-[\w-]+-curves\.svg\)\n\n\*.*?\*(?=\n\n)", re.DOTALL)


def main() -> None:
    """Parse the arguments, and write both files or neither."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("record", nargs="?", type=Path, help="the record's file in results/")
    put(parser.parse_args().record)


def put(chosen: Path | None = None, root: Path = ROOT) -> None:
    """Put a record of root/results, by its file's name, into both files. Raises UserError, and writes neither."""
    results = root / "results"
    records = [r for r in read_records(results) if chosen is None or r.file_name == chosen.name]
    if not records:
        raise UserError(f"{chosen}: no record of that name in {results}.")
    shown = figure(Library.of([Book.of(record) for record in records]), results)
    new = {}
    for language, name in READMES.items():
        text = (root / name).read_text(encoding="utf-8")
        places = list(_PLACE.finditer(text))
        if len(places) != 1:
            raise UserError(f"{name}: has no figure of degradation with a paragraph in italics under it.")
        new[name] = text[: places[0].start()] + getattr(shown, language) + text[places[0].end() :]
    for name, text in new.items():
        write_atomically(root / name, text.encode())


def figure(library: Library, results: Path) -> Both:
    """The figure's line and its caption, as Markdown. Raises UserError if the record does not show degradation."""
    facts = problem(library)
    record, picture = facts.book.record, f"{facts.book.record.name}-curves.svg"
    if not facts.fits:
        raise UserError(f"{record.file_name}: shows no degradation, as the text under the figure would say.")
    if not (results / picture).is_file():
        raise UserError(f"{results / picture}: is not there; write it with: resnetlab study report --results {results}")
    numbers = {key: value.value for key, value in facts.values.items() if isinstance(value, Number)}
    values = numbers | {
        "depths": _depths(facts.book),
        "data": TEXT("digits") if record.scale == "quick" else data_words(record),
        "seeds": TEXT("one") if record.seeds == 1 else TEXT("several", seeds=record.seeds),
        "epochs": f"{facts.values['epochs'].value:g}",
        "name": record.name,
    }
    alt, caption = TEXT("alt", **values), TEXT("caption", **values)
    lines = textwrap.wrap(f"*{caption.en}*", WIDTH, break_long_words=False, break_on_hyphens=False)
    paragraphs = Both("\n".join(lines), f"*{caption.zh}*")  # Chinese has no spaces to break at
    return Both(*(f"![{getattr(alt, one)}](results/{picture})\n\n{getattr(paragraphs, one)}" for one in LANGUAGES))


def _depths(book: Book) -> Both:
    depths = sorted({int(found[1]) for label in book.lines("curves", 0) if (found := re.search(r"-(\d+) ", label))})
    *first, last = map(str, depths)
    return Both(f"{', '.join(first)} and {last}", "\u3001".join([*first, last]))


if __name__ == "__main__":
    run(main)
