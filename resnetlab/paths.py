"""Paths, lists and names as people write them: "~" for a home folder, byte order marks, accents in either form."""

from __future__ import annotations

import codecs
import os
import unicodedata
from pathlib import Path

from resnetlab.errors import UserError, shown

# Byte order marks. UTF-32's come before UTF-16's, since the first starts with the other.
_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path with "~" or "~user" at its start replaced by the home folder, as a shell does.

    Shells do that only at the start of a word, not in --runs=~/runs, and not in files. Raises UserError if there is no
    such home, unless a file has exactly that name, for a null character, which no file's name has, and for an empty
    text, which pathlib takes for the working folder: an unset variable of a script must not mean everything in it.
    """
    if not isinstance(path, str | os.PathLike):
        raise UserError(f"{shown(path)} is not a path; give text or a pathlib.Path.")
    text = os.fspath(path)
    if not text:
        raise UserError("a path is empty; write . for the working folder.")
    if "\0" in text:
        raise UserError(f"{shown(text)} holds a null character, which no path has.")
    if not text.startswith("~"):
        return Path(path)
    found = os.path.expanduser(text)
    if found.startswith("~") and not os.path.lexists(text):
        user = shown(text.partition("/")[0])
        raise UserError(f"{text}: no home folder is known for {user}; write the whole path, or ./{text} for that name.")
    return Path(found)


def decoded(content: bytes, *, names: bool = False) -> str:
    """The text of a file, in UTF-8 or the encoding of its byte order mark.

    names: the text is a list of files, which without a mark may be any bytes, as in the file system. Raises
    UnicodeDecodeError.
    """
    for mark, encoding in _MARKS.items():
        if content.startswith(mark):
            return content[len(mark) :].decode(encoding)
    return os.fsdecode(content) if names else content.decode("utf-8")


def one_form(name: str) -> str:
    """The name in Unicode's normal form C: é can be one character, or e with an accent, and looks the same."""
    return unicodedata.normalize("NFC", name)
