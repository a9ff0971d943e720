"""The guide: its Python runs, its commands are ones that there are, and no page is left out of its navigation."""

from __future__ import annotations

import json
import re
import shlex
from itertools import pairwise
from pathlib import Path

import cyclopts
import pytest

from resnetlab.cli.app import app

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = sorted(DOCS.glob("*.md"))
NOT_RUN = "<!-- not run by the tests -->\n"
PLACEHOLDERS = {"SHELL": "bash", "N": "2", "K": "3"}


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language that the page does not exempt."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"(?<!{re.escape(NOT_RUN)})^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_the_python_of_the_guide_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One block after another, in one namespace."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    examples = blocks(DOCS / "python.md", "python")
    assert len(examples) > 8
    for code in examples:
        exec(compile(code, "docs/python.md", "exec"), names)
    shown = capsys.readouterr().out
    headings, error = (block.splitlines()[0] for block in blocks(DOCS / "python.md", "text"))
    assert " ".join(headings.split()) in " ".join(shown.split())
    assert error in shown


def commands(page: Path) -> list[str]:
    """The commands of a page, in blocks and in its text, without those that leave something open."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    text = re.sub(r"^(    resnetlab [^'\n]*'[^'\n]*)\n +", r"\1 ", text, flags=re.MULTILINE)  # in quotes, of two lines
    lines = [line for block in blocks(page, "bash") for line in block.splitlines()]
    lines += re.findall(r"^    (?:\$ )?(resnetlab .*)$", text, re.MULTILINE)
    lines += re.findall(r"`(resnetlab [^`\n]*)`", text)
    return [line for line in lines if line.startswith("resnetlab ") and not re.search(r"\.\.\.|NAME=FILE|\[--", line)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_the_guide_are_there(page: Path) -> None:
    """They are read as the command line reads them, and not run; one that is only named has no arguments."""
    for line in commands(page):
        words = [PLACEHOLDERS.get(word, word) for word in re.split(r"[|>&;]", line)[0].split("resnetlab", 1)[1].split()]
        words = shlex.split(" ".join(words), comments=True)
        if words in ([], ["train", "RECIPE"]):
            continue
        try:
            app.parse_args(words, exit_on_error=False, print_error=False)
        except cyclopts.MissingArgumentError as error:
            if not all(re.fullmatch("[a-z]+", word) for word in words):
                pytest.fail(f"{line}: {error}")
        except cyclopts.CycloptsError as error:
            pytest.fail(f"{line}: {error}")


def test_every_page_is_in_the_navigation() -> None:
    navigation = (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8")
    assert [page.name for page in [*PAGES, *DOCS.glob("*.ipynb")] if f": {page.name}\n" not in navigation] == []


def headings(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    lines = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", line.lower()).strip().replace(" ", "-") for line in lines}


@pytest.mark.parametrize("page", [*PAGES, *DOCS.parent.glob("*.md")], ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    """On GitHub and in the built guide: MkDocs joins hyphens in a row, so no heading that is linked may have two."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", text):
        there = page.parent / target if target else page
        assert there.exists(), f"{page.name}: {target}"
        assert not anchor or (anchor in headings(there) and "--" not in anchor), f"{page.name}: {target}#{anchor}"


def test_every_public_name_is_in_the_reference() -> None:
    import resnetlab

    reference = (DOCS / "reference.md").read_text(encoding="utf-8")
    assert [n for n in resnetlab.__all__ if n != "__version__" and not re.search(rf"\b{n}\b", reference)] == []


def numbers(value: object) -> list[float]:
    """All numbers of a record; of a time, in seconds too, and of a ratio, the other way round too."""
    if isinstance(value, dict | list):
        return [number for part in (value.values() if isinstance(value, dict) else value) for number in numbers(part)]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return []
    return [value, value / 1000, *([1 / value] if value else [])]


def tables_of_records(page: Path) -> list[tuple[str, list[str]]]:
    """The record that is named last in the paragraph above a table, and the table's cells but for its first column."""
    found = []
    paragraphs = page.read_text(encoding="utf-8").split("\n\n")
    for above, table in pairwise(paragraphs):
        if table.startswith("|") and (records := re.findall(r"results/([\w-]+\.json)", above)):
            rows = [line for line in table.splitlines() if not re.fullmatch(r"[|:-]+", line)]
            cells = [cell for row in rows for cell in row.strip("| ").split(" | ")[1:]]
            found.append((records[-1], [cell for cell in cells if "`" not in cell]))
    return found


@pytest.mark.parametrize("page", ["data.md", "performance.md", "training.md", "using.md"])
def test_the_figures_of_tables_are_those_of_their_records(page: str) -> None:
    """Each is a number of the record, rounded once."""
    checked, wrong = 0, []
    for record, cells in tables_of_records(DOCS / page):
        known = numbers(json.loads((DOCS.parent / "results" / record).read_bytes()))
        for cell in cells:
            for text in re.findall(r"\d[\d,]*(?:\.\d+)?", re.sub(r"int8|bf16|float32|1/8", "", cell)):
                half = 0.5 * 10.0 ** -len(text.partition(".")[2]) + 1e-9
                if not any(abs(number - float(text.replace(",", ""))) <= half for number in known):
                    wrong.append(f"{text} is not in {record}")
                checked += 1
    assert not wrong
    assert checked > 10
