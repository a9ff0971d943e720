"""Paths and lists as people write them."""

from __future__ import annotations

import codecs
import unicodedata
from pathlib import Path

import pytest

from resnetlab.errors import UserError
from resnetlab.paths import decoded, expanded, one_form


def test_a_home_stands_at_the_start_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert expanded("~") == expanded("~/") == tmp_path
    assert expanded("~/runs") == expanded(Path("~/runs")) == tmp_path / "runs"
    assert [str(expanded(text)) for text in ("a/~/b", "./~", "a~")] == ["a/~/b", "~", "a~"]
    assert expanded("~root").is_absolute()


def test_a_home_of_nobody_is_named_and_a_file_of_that_name_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for text in ("~no such user/x", "~nosuchuser"):
        with pytest.raises(UserError, match=f"{text}: no home folder is known for '{text.partition('/')[0]}'; write"):
            expanded(text)
    (tmp_path / "~nosuchuser").touch()
    assert expanded("~nosuchuser") == Path("~nosuchuser")


def test_an_empty_path_is_not_the_working_folder() -> None:
    with pytest.raises(UserError, match="a path is empty; write . for the working folder"):
        expanded("")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_says_the_encoding(encoding: str) -> None:
    text = "net = 'é蜜'\r\n"
    assert decoded(text.encode(encoding)) == text
    assert decoded(text.encode(encoding), names=True) == text
    assert decoded(codecs.BOM_UTF16_BE + text.encode("utf-16-be")) == text
    assert decoded(text.encode()) == text


def test_without_a_mark_names_are_any_bytes() -> None:
    assert decoded(b"\xff.png", names=True) == "\udcff.png"
    with pytest.raises(UnicodeDecodeError):
        decoded(b"\xff.png")


def test_one_form_of_what_looks_the_same() -> None:
    assert one_form(unicodedata.normalize("NFD", "été")) == one_form("été") == "été"
    assert one_form("\udcff") == "\udcff"


def test_a_null_character_is_said_before_a_file_is_asked_for() -> None:
    with pytest.raises(UserError, match=r"'a\\x00b' holds a null character, which no path has"):
        expanded("a\0b")
