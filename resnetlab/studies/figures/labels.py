"""What stands in figures, in both languages: records keep the English, and pictures and pages show one of the two."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from resnetlab.studies.frame.text import Both, Catalogue, Words, both

TEXT = Catalogue(Path(__file__).with_name("labels.toml"))
_AXES = {TEXT(key).en: TEXT(key) for key in TEXT.leaves if key.startswith("axes.")}
_WORDS = {TEXT(key).en: TEXT(key).zh for key in TEXT.leaves if key.startswith("words.")}
_NAMED = re.compile(rf"(?<![\w-])(?:{'|'.join(sorted(map(re.escape, _WORDS), key=len, reverse=True))})(?![A-Za-z])")
_NETWORK = re.compile(r"(?<![\w-])(plain|residual)-(?=\d)")
_PART = re.compile(r"([A-Z]) of (\S+)")
_CHINESE = "[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]"


def axis(label: str) -> Both:
    """What an axis shows, or a column of its values: as a whole, or word by word."""
    return _AXES.get(label) or line(label)


@cache
def line(label: str) -> Both:
    """The name of a line or of a network, word by word."""
    if part := _PART.fullmatch(label):
        return TEXT("names.of", part=part[1], net=line(part[2]))
    words = _NAMED.sub(lambda found: _WORDS[found[0]], label)
    words = re.sub(rf"(?<={_CHINESE}) (?={_CHINESE})", "", words)
    return Both(label, words if words == label else re.sub(r", (?![^(]*\))", "\uff0c", words))


def cell(words: Words) -> Both:
    """What stands in a table: a name if it is one in English only."""
    text = both(words)
    return line(text.en) if text.en == text.zh else text


def networks(words: Both) -> Both:
    """Sentences, with networks such as plain-56 called in Chinese as figures call them."""
    return Both(words.en, _NETWORK.sub(lambda found: f"{_WORDS[found[1]]}-", words.zh))


def panel(title: Words, x_label: str, y_label: str) -> Both:
    """What a panel shows, in a sentence for those who hear the page."""
    named = "names.titled" if both(title).en else "names.panel"
    values = {"x": axis(x_label), "y": axis(y_label)} | ({"title": both(title)} if both(title).en else {})
    return TEXT(named, **values)
