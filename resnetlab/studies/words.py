"""Words of the report in its two languages, English and Chinese."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Both:
    """One text in English and in Chinese. Sums join both, and a plain str stands for itself in either."""

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


def both(words: Words | dict[str, Any]) -> Both:
    """Words, or what JSON made of them, in both languages. Raises ValueError for what is neither."""
    if isinstance(words, dict) and isinstance(words.get("en"), str) and isinstance(words.get("zh"), str):
        return Both(words["en"], words["zh"])
    if isinstance(words, Both):
        return words
    if isinstance(words, str):
        return Both(words, words)
    raise ValueError(f"words are a text, or one in English (en) and one in Chinese (zh), not {words!r:.60}")


def joined(parts: list[Words], between: str = " ") -> Both:
    """Several words as one; Chinese ones stand without the space."""
    texts = [both(p) for p in parts]
    return Both(between.join(t.en for t in texts), between.strip(" ").join(t.zh for t in texts))


def listed(parts: list[Words]) -> Both:
    """Several words as a list in one line, parted by semicolons."""
    return Both(joined(parts, "; ").en, joined(parts, "；").zh)
