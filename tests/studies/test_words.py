"""Words in two languages: sums, JSON, and what is neither."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from resnetlab.studies.frame.text import Both, both, joined, listed


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


def test_a_list_has_each_languages_semicolons() -> None:
    assert listed([Both("one", "一"), "2"]) == Both("one; 2", "一；2")
    assert listed([]) == Both("", "")


@pytest.mark.parametrize("wrong", [None, 3, {"en": "a"}, {"en": "a", "zh": 3}, ["a"]])
def test_what_is_no_words_is_said(wrong: Any) -> None:
    with pytest.raises(ValueError, match="words are a text"):
        both(wrong)
