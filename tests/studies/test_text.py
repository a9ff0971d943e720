"""Texts in two languages: sums, JSON, and the catalogues that hold them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from resnetlab.studies.frame.statistics import Sample
from resnetlab.studies.frame.text import SHARED, Both, Catalogue, both, joined


def test_sums_join_both_languages() -> None:
    assert Both("a ", "甲") + "1" == Both("a 1", "甲1")
    assert "1 " + Both("a", "甲") == Both("1 a", "1 甲")
    assert str(Both("a", "甲")) == "a"


def test_words_come_back_from_json() -> None:
    words = Both("a", "甲")
    assert both(asdict(words)) == words
    assert both("20") == Both("20", "20")


def test_chinese_sentences_stand_without_a_space() -> None:
    assert joined([Both("One.", "一。"), Both("Two.", "二。")]) == Both("One. Two.", "一。二。")


@pytest.mark.parametrize("others", [1, 8])
def test_a_note_about_other_machines_is_a_sentence_for_one_run_too(others: int) -> None:
    assert str(SHARED("mixed", others=others)).endswith(f"of the code: {others} of the runs and measurements.")


@pytest.mark.parametrize("wrong", [None, 3, {"en": "a"}, {"en": "a", "zh": 3}, ["a"]])
def test_what_is_no_words_is_said(wrong: Any) -> None:
    with pytest.raises(ValueError, match="words are a text"):
        both(wrong)


GOOD = (
    """
same = "ResNet-{depth}"
theory = "$\\\\frac{1}{2}$"

[nested.text]
en = """
    + "'''"
    + """
One line
and another.

A paragraph: {gap:.2f}.
"""
    + "'''"
    + """
zh = """
    + "'''"
    + """
一行，
另一行。

一段：{gap:.2f}。
"""
    + "'''"
    + """

[headers]
en = ["network", "{errors:, |.1f}"]
zh = ["网络", "{errors:、|.1f}"]
"""
)


def catalogue(folder: Path, text: str) -> Catalogue:
    (folder / "text.toml").write_text(text, encoding="utf-8")
    return Catalogue(folder / "text.toml")


def test_a_catalogue_joins_lines_and_keeps_paragraphs(tmp_path: Path) -> None:
    text = catalogue(tmp_path, GOOD)
    assert text("nested.text", gap=1 / 3) == Both(
        "One line and another.\n\nA paragraph: 0.33.", "一行，另一行。\n\n一段：0.33。"
    )
    assert text("same", depth=20) == Both("ResNet-20", "ResNet-20")
    assert str(text("theory")) == r"$\frac{1}{2}$", "LaTeX's braces are no placeholders"


def test_values_are_written_as_each_language_writes_them(tmp_path: Path) -> None:
    text = catalogue(tmp_path, GOOD)
    assert text.each("headers", errors=[1.25, 3.0]) == [Both("network", "网络"), Both("1.2, 3.0", "1.2、3.0")]
    assert text("same", depth=Both("twenty", "二十")) == Both("ResNet-twenty", "ResNet-二十")


def test_what_is_rounded_to_zero_has_no_sign(tmp_path: Path) -> None:
    text = catalogue(tmp_path, GOOD)
    said = text.each("headers", errors=[-0.01, Sample([-0.02, -0.01]), -0.06, 0.0])[1]
    assert said.en == "0.0, 0.0 ± 0.0, -0.1, 0.0"
    assert str(text("same", depth=-5e-08)) == "ResNet--5e-08"


def test_a_key_or_a_value_that_lacks_is_named(tmp_path: Path) -> None:
    text = catalogue(tmp_path, GOOD)
    with pytest.raises(KeyError, match="has no 'other'"):
        text("other")
    with pytest.raises(KeyError, match="depth"):
        text("same")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[a]\nen = "x"', "a: needs en and zh"),
        ('[a]\nen = "x"\nzh = "x"\nde = "x"', "a: needs en and zh"),
        ('[a]\nen = "{x}"\nzh = "{y}"', "a: the languages have different placeholders"),
        ('[a]\nen = ["x", "y"]\nzh = ["x"]', "a: has 2 texts in English and 1 in Chinese"),
        ('[a]\nen = ["x", "y"]\nzh = "xy"', "a: is a text in both languages"),
        ("[a.b]\nc = 3", "a.b.c: is no text"),
        ('[a]\nen = "{x"\nzh = "x"', "a: expected '}'"),
        ("[a", "text.toml"),
    ],
)
def test_a_catalogue_that_cannot_be_used_is_said(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        catalogue(tmp_path, text)
