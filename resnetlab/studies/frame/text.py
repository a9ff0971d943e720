"""Texts of the report in its two languages, English and Chinese, and the catalogues that hold them.

A catalogue is a TOML file. Each key holds `en` and `zh`, both texts or both lists of texts; a text that is the same in
both languages is one string. Texts have the placeholders of str.format, the same in both languages; for a list, the
format states the separator before a bar: "{depths:, |}", "{errors:, |.1f}". Lines of a text are joined, with a space
in English and with nothing in Chinese, and empty lines separate paragraphs.
"""

from __future__ import annotations

import re
import string
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

LANGUAGES = {"en": " ", "zh": ""}  # and what joins the lines or sentences of a paragraph
NEGATIVE_ZERO = re.compile(r"^-(?=0(\.0+)?(?![\d.e]))")  # the sign of a number that is rounded to zero
VERBATIM = "theory"  # a key whose text has no placeholders: its braces are LaTeX's
Leaf = dict[str, Any]  # by language: a text, or a list of texts


@dataclass(frozen=True)
class Both:
    """One text in English and in Chinese. Adding joins both; a plain str is the same in either language."""

    en: str
    zh: str

    def __add__(self, other: Words) -> Both:
        other = both(other)
        return Both(self.en + other.en, self.zh + other.zh)

    def __radd__(self, other: str) -> Both:
        return both(other) + self

    def __str__(self) -> str:
        return self.en


Words = str | Both  # a plain str is the same in both: numbers, names of networks


@runtime_checkable
class InWords(Protocol):
    """A value that is written differently in each language, e.g. an interval with a remark."""

    def in_words(self, language: str, form: str) -> str:
        """The value in that language, its numbers in that format."""


def both(words: Words | dict[str, Any]) -> Both:
    """Words, or their JSON form, in both languages. Raises ValueError for anything else."""
    if isinstance(words, dict) and isinstance(words.get("en"), str) and isinstance(words.get("zh"), str):
        return Both(words["en"], words["zh"])
    if isinstance(words, Both):
        return words
    if isinstance(words, str):
        return Both(words, words)
    raise ValueError(f"words are a text, or one in English (en) and one in Chinese (zh), not {words!r:.60}")


def joined(parts: Sequence[Words], between: str = " ") -> Both:
    """Several words joined; Chinese ones without the space."""
    texts = [both(p) for p in parts]
    return Both(between.join(t.en for t in texts), between.strip(" ").join(t.zh for t in texts))


class Catalogue:
    """The texts of a file. Raises ValueError, naming file and key, for a text that can't be used."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.leaves = dict(_leaves(tomllib.loads(path.read_text(encoding="utf-8")), ""))
            for key, leaf in self.leaves.items():
                _check(key, leaf)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    @classmethod
    def of(cls, package: str) -> Catalogue:
        """The catalogue of a study, text.toml in its folder, by the name of a module in that folder."""
        return cls(Path(__file__).parents[1] / package.split(".")[2] / "text.toml")

    def __contains__(self, key: str) -> bool:
        return key in self.leaves

    def __call__(self, key: str, /, **values: Any) -> Both:
        """The text under a dotted key, with its placeholders filled. Raises KeyError for a missing key or value."""
        return both(self._filled(key, values))

    def each(self, key: str, /, **values: Any) -> list[Both]:
        """The list of texts under a key."""
        found = self._filled(key, values)
        return [Both(en, zh) for en, zh in zip(found["en"], found["zh"], strict=True)]

    def _filled(self, key: str, values: dict[str, Any]) -> Leaf:
        if key not in self.leaves:
            raise KeyError(f"{self.path.parent.name}/{self.path.name} has no {key!r}")
        leaf = self.leaves[key]
        if key == VERBATIM:
            return leaf
        return {
            language: _Formatter(language).vformat(leaf[language], (), values)
            if isinstance(leaf[language], str)
            else [_Formatter(language).vformat(one, (), values) for one in leaf[language]]
            for language in LANGUAGES
        }


class _Formatter(string.Formatter):
    """str.format in one language: values with words in both use that language's, and lists are joined as stated."""

    def __init__(self, language: str) -> None:
        self.language = language

    def format_field(self, value: Any, format_spec: str) -> str:
        if isinstance(value, list | tuple):
            between, _, form = format_spec.rpartition("|")
            return between.join(self.format_field(one, form) for one in value)
        if isinstance(value, Both):
            return format(getattr(value, self.language), format_spec)
        if isinstance(value, InWords):
            return value.in_words(self.language, format_spec)
        text = format(value, format_spec)
        return text if isinstance(value, str) else NEGATIVE_ZERO.sub("", text)


def placeholders(text: str) -> set[str]:
    """The names of a text's placeholders. Raises ValueError where a brace is left open."""
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def _leaves(values: Any, key: str) -> Iterator[tuple[str, Leaf]]:
    """Every key that holds text, with its texts by language, their lines joined."""
    if isinstance(values, str):
        yield key, {language: _paragraphs(values, between) for language, between in LANGUAGES.items()}
    elif isinstance(values, dict) and set(values) & set(LANGUAGES):
        if set(values) != set(LANGUAGES):
            raise ValueError(f"{key}: needs {' and '.join(LANGUAGES)}, and nothing else")
        yield (
            key,
            {
                language: _paragraphs(values[language], between)
                if isinstance(values[language], str)
                else values[language]
                for language, between in LANGUAGES.items()
            },
        )
    elif isinstance(values, dict):
        for name, value in values.items():
            yield from _leaves(value, f"{key}.{name}" if key else name)
    else:
        raise ValueError(f"{key}: is no text")


def _paragraphs(text: str, between: str) -> str:
    if "\n" not in text:
        return text
    return "\n\n".join(between.join(part.strip("\n").split("\n")) for part in re.split(r"\n\n+", text.strip("\n")))


def _check(key: str, leaf: Leaf) -> None:
    """Raise ValueError if the two languages differ in their number of texts or in their placeholders."""
    en, zh = leaf["en"], leaf["zh"]
    pairs = [(en, zh)] if isinstance(en, str) else list(zip(en, zh, strict=False)) if isinstance(zh, list) else []
    if not pairs or not all(isinstance(text, str) for pair in pairs for text in pair) or len(en) == 0:
        raise ValueError(f"{key}: is a text in both languages, or a list of texts in both")
    if not isinstance(en, str) and len(en) != len(zh):
        raise ValueError(f"{key}: has {len(en)} texts in English and {len(zh)} in Chinese")
    for one, other in pairs if key != VERBATIM else []:
        try:
            same = placeholders(one) == placeholders(other)
        except ValueError as error:  # a brace that is left open
            raise ValueError(f"{key}: {error}") from error
        if not same:
            raise ValueError(f"{key}: the languages have different placeholders: {one!r:.60}, {other!r:.60}")


SHARED = Catalogue(Path(__file__).with_name("shared.toml"))
