"""A study's folder: these files and no others, no prose in code, and a catalogue whose every key is used."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from resnetlab.studies import STUDIES
from resnetlab.studies.frame.evidence import Evidence
from resnetlab.studies.frame.scales import SCALES
from resnetlab.studies.frame.statistics import NOT_TESTED
from resnetlab.studies.frame.study import study
from resnetlab.studies.frame.text import SHARED, Catalogue, both

ROOM = SHARED.path.parents[1]
FOLDERS = [ROOM / name for name in STUDIES]
FILES = {"__init__.py", "study.py", "measure.py", "figures.py", "text.toml"}
STATED = {"title", "claim", "source", "method", "rule", "theory", "note"}  # read by the frame
CLAIM = {"says", "paper", "of", "holds", "cell", "each", "absent", "otherwise", "untested"}
LONGEST = 220  # lines of a file of a study

of_each_folder = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


def code(folder: Path) -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.py")))


def prefixes(source: str) -> list[str]:
    """What f-strings that make keys begin with, e.g. "figures.curves."."""
    return re.findall(r'f"([a-z_]+\.[a-z_.]*)\{', source)


def is_used(key: str, source: str) -> bool:
    first, _, rest = key.partition(".")
    name, _, part = rest.rpartition(".")
    if key in STATED or first == "scales" or key == "claims.absent":
        return True
    if first == "claims" and part in CLAIM:
        return re.search(rf'\bclaim\(\s*"{name}"', source) is not None
    if first == "tables" and part in ("caption", "header"):
        return re.search(rf'\btable\(\s*TEXT,\s*"{name}"', source) is not None
    return f'"{key}"' in source or any(key.startswith(prefix) for prefix in prefixes(source))


@of_each_folder
def test_a_folder_holds_a_study_and_nothing_else(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} - {"__pycache__"} <= FILES
    assert {"__init__.py", "study.py", "text.toml"} <= {path.name for path in folder.iterdir()}
    assert study(folder.name).name == folder.name
    for path in folder.glob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST, path


@pytest.mark.parametrize("folder", [SHARED.path.parent, *FOLDERS], ids=lambda folder: folder.name)
def test_chinese_cells_have_chinese_semicolons(folder: Path) -> None:
    (path,) = folder.glob("*.toml")
    chinese = {key: str(leaf["zh"]) for key, leaf in Catalogue(path).leaves.items()}
    assert [key for key, text in chinese.items() if re.search(r":; ?\|", text)] == []


@pytest.mark.parametrize("name", STUDIES)
def test_what_a_study_plans_to_measure_is_there(name: str) -> None:
    for scale in SCALES:
        for function in {m.function for m in study(name).plan(scale, None, ()).measurements}:
            module, _, measure = function.partition(":")
            assert callable(getattr(importlib.import_module(module), measure))


@of_each_folder
def test_code_holds_no_text_in_two_languages(folder: Path) -> None:
    assert not re.findall(r"[\u4e00-\u9fff]", code(folder))
    assert "Both(" not in code(folder)


@of_each_folder
def test_every_key_of_a_catalogue_is_used(folder: Path) -> None:
    text = Catalogue(folder / "text.toml")
    assert [key for key in text.leaves if not is_used(key, code(folder))] == []


@of_each_folder
def test_every_key_that_is_asked_for_is_there(folder: Path) -> None:
    text, source = Catalogue(folder / "text.toml"), code(folder)
    groups = {key.partition(".")[0] for key in text.leaves if "." in key}
    asked = set(re.findall(r'"([a-z_0-9]+(?:\.[a-z_0-9]+)+)"', source))
    asked = {key for key in asked if key.partition(".")[0] in groups} | set(re.findall(r'\bTEXT\(\s*"([^"]+)"', source))
    for name in re.findall(r'\bclaim\(\s*"(\w+)"', source):
        asked |= {f"claims.{name}.says", f"claims.{name}.paper"}
    for name in re.findall(r'\btable\(\s*TEXT,\s*"(\w+)"', source):
        asked |= {f"tables.{name}.caption", f"tables.{name}.header"}
    assert sorted(asked - set(text.leaves)) == []
    begun = [prefix for prefix in prefixes(source) if prefix.partition(".")[0] in groups]
    assert [prefix for prefix in begun if not any(key.startswith(prefix) for key in text.leaves)] == []


def test_every_text_that_studies_share_is_used() -> None:
    source = code(ROOM) + code(ROOM.parent / "report")
    keys = {key for key in SHARED.leaves if f'"{key}"' not in source}
    assert sorted(key for key in keys if not any(key.startswith(prefix) for prefix in prefixes(source))) == []


@of_each_folder
def test_a_placeholder_of_a_statement_is_filled(folder: Path) -> None:
    """Text that a study states before it runs has no brace left, and its theory is left as it is."""
    stated = study(folder.name)
    for words in (stated.title, stated.claim, stated.source, stated.method, stated.rule):
        assert "{" not in str(words)


@pytest.mark.parametrize("scale", SCALES)
@of_each_folder
def test_a_rule_names_what_each_claim_is_judged_by(folder: Path, scale: str) -> None:
    """The rule is known before anything runs, and stays the same however it ends."""
    stated = study(folder.name)
    plan = stated.plan(scale, None, ())
    rows = stated.judge(Evidence(scale, failed=[*plan.recipes, *plan.measurements])).rows
    rule, untested = stated.rule_of(plan, scale), SHARED(f"verdicts.{NOT_TESTED.name}")
    for number, row in enumerate(rows, 1):
        said = both(row.rule)
        assert f"({number}) {said.en}" in rule.en
        assert f"({number}) {said.zh}" in rule.zh
        assert re.search("[\u4e00-\u9fff]", said.zh)
        assert said == untested or len(said.en) > len(untested.en) / 2
        assert "=" not in said.en.replace("(shortcut=", "").replace("β =", ""), "no value as Python writes it"


@of_each_folder
def test_numbers_of_a_rule_come_from_the_code(folder: Path) -> None:
    """A sentence of its own kind has bounds as placeholders; what it may write is the name of something."""
    names = r"\{[^}]*\}|152|lag 1|滞后 1|log10|0\.45|λ < 1|exactly 0|not 0|恰为 0|不为 0|3x3"
    for key, leaf in Catalogue(folder / "text.toml").leaves.items():
        if key.endswith((".holds", ".of")):
            written = [re.sub(names, "", str(text)) for text in leaf.values()]
            assert not any(re.search(r"\d", text) for text in written), key


def test_one_chinese_word_for_one_term() -> None:
    """普通 for plain and 捷径 for shortcut, in every catalogue."""
    others = re.compile("平直|快捷|跳跃连接|跳连")
    for path in sorted(ROOM.rglob("*.toml")):
        assert not others.search(path.read_text(encoding="utf-8")), path


def test_the_columns_that_the_essay_reads_are_there() -> None:
    """It finds numbers in records by the English names of their columns, so these are more than words."""
    named = re.findall(r'\.cell\((?:[^"()]|\([^"()]*\))*, "([^"]+)"', code(ROOM.parent / "report" / "essay"))
    headers = {str(text) for key in SHARED.leaves if key.startswith("costs.") for text in (SHARED(key),)}
    for folder in FOLDERS:
        text = Catalogue(folder / "text.toml")
        headers |= {name for key, leaf in text.leaves.items() if key.endswith(".header") for name in leaf["en"]}
    assert len(named) > 20
    assert {name for name in named if name != "sci" and not name.startswith(".")} <= headers, "the rest are formats"
