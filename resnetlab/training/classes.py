"""Matches the classes of a data set with a network's outputs: by name, by a given mapping, or by order."""

from __future__ import annotations

import csv
import logging
import re
import shlex
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from resnetlab.data.imagenet import class_names as imagenet_names
from resnetlab.data.understood import shortened
from resnetlab.errors import UserError, check_choice, did_you_mean, shown

ClassOrder = Literal["text", "natural"]
SAME = "those of the training"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Matched:
    """Which of a network's outputs stand for the classes of a data set."""

    classes: tuple[str, ...]  # a name for each output
    outputs: tuple[int, ...]  # of each class of the data
    words: str  # how they were found
    taken: dict[str, str] = field(default_factory=dict)  # classes of the data that the network knows by another name

    @property
    def one_to_one(self) -> bool:
        """Whether each output stands for one class of the data."""
        return sorted(self.outputs) == list(range(len(self.classes)))


def match_classes(
    source: str,
    trained: Sequence[str] | None,
    data: str,
    classes: Sequence[str],
    given: Mapping[str, str],
    order: str = "text",
) -> Matched:
    """Match the classes of a data set, `data`, with those that the network of `source` was trained on.

    Classes are matched by name, in whatever order; names that differ only in case, in the encoding of accents or in
    what separates words count as the same, and so does a WordNet id of ImageNet. `given` maps names of the data to
    those used in training. A network may have more classes. Without names (None) the order is the data's or, by
    `order`, the natural one (`outputs_of`), and the numbers of classes have to be equal. Raises UserError if the
    network lacks a class of the data.
    """
    if trained is None:
        if given:
            raise UserError(
                f"{source}: has no class names to map with --classes; put the data's classes in the network's order."
            )
        ordered, words = outputs_of(classes, order)
        numbers = ordered or list(range(len(classes)))
        return Matched(tuple(classes[numbers.index(i)] for i in range(len(classes))), tuple(numbers), words)
    _check_given(source, trained, data, classes, given)
    places = {name: i for i, name in reversed(list(enumerate(trained)))}
    found = {name: places[given.get(name, name)] for name in classes if given.get(name, name) in places}
    alike = Counter(_plain(name) for name in classes if name not in found)
    free = Counter(_plain(name) for i, name in enumerate(trained) if i not in found.values())
    by_plain = {_plain(name): i for i, name in enumerate(trained) if i not in found.values()}
    for name in classes:
        plain = _plain(name)
        if name not in found and alike[plain] == free[plain] == 1:
            found[name] = by_plain[plain]
    if missing := tuple(name for name in classes if name not in found):
        raise UserError(_other_classes(source, tuple(trained), data, missing))
    outputs = tuple(found[name] for name in classes)
    taken = {name: trained[i] for name, i in zip(classes, outputs, strict=True) if trained[i] != name}
    return Matched(tuple(trained), outputs, _words(trained, outputs, taken), taken)


def common_classes(
    matches: Sequence[tuple[str, Matched]], classes: tuple[str, ...]
) -> tuple[tuple[str, ...], list[int], list[list[int] | None]]:
    """The answers that networks have in common; each match comes with its source, and `classes` are the data's.

    Returns the names of the answers (the data's classes if every output of every network stands for one); for each
    class of the data, its answer; and for each network, the output of each answer, or None for its own order. Raises
    UserError if the networks have different classes.
    """
    if all(matched.one_to_one for _, matched in matches):
        return classes, list(range(len(classes))), [_order(matched.outputs) for _, matched in matches]
    first_source, first = matches[0]
    orders: list[list[int] | None] = []
    for source, matched in matches:
        if sorted(matched.classes) != sorted(first.classes):
            raise UserError(
                f"{first_source} and {source}: an ensemble needs networks with the same classes; these have "
                f"{len(first.classes)} and {len(matched.classes)}: {shortened(first.classes)}, and "
                f"{shortened(matched.classes)}."
            )
        same = matched.classes == first.classes  # also where two outputs have one name
        order = [i if same else matched.classes.index(name) for i, name in enumerate(first.classes)]
        if (not same and len({*order}) < len(order)) or [order[i] for i in first.outputs] != list(matched.outputs):
            raise UserError(f"{first_source} and {source}: their classes can't be matched by name.")
        orders.append(_order(order))
    return first.classes, list(first.outputs), orders


def read_given(texts: Sequence[str]) -> dict[str, str]:
    """Read "hund=dog,katze=cat": names in the data, and what the same classes were called in training.

    Pairs are separated by commas or lines; a pair with a comma in a name is put in quotes. Raises UserError.
    """
    found: dict[str, str] = {}
    for pair in _pairs(texts):
        name, equals, trained = pair.partition("=")
        if not (name and equals and trained):
            raise UserError(f"classes {shown(pair)}: write NAME_IN_THE_DATA=NAME_IN_THE_TRAINING, e.g. hund=dog.")
        if found.setdefault(name, trained) != trained:
            raise UserError(f"classes: {shown(name)} is mapped to both {shown(found[name])} and {shown(trained)}.")
    return found


def _pairs(texts: Sequence[str]) -> list[str]:
    lines = [line for text in texts for line in text.splitlines()]
    try:
        return [pair for row in csv.reader(lines, skipinitialspace=True) for pair in row if pair]
    except csv.Error as error:  # a field longer than csv allows
        raise UserError(f"classes {shown(' '.join(lines))}: can't be read ({error}).") from error


def _check_given(
    source: str, trained: Sequence[str], data: str, classes: Sequence[str], given: Mapping[str, str]
) -> None:
    for name, other in given.items():
        if name not in classes:
            raise UserError(f"classes: {shown(name)} is not a class of {data}.{did_you_mean(name, classes)}")
        if name in trained and name != other:
            _log.warning("classes: %s is mapped to %s, although the training has a class of that name.", name, other)
        if other not in trained:
            raise UserError(f"classes: {source} has no class {shown(other)}.{did_you_mean(other, trained)}")


def _plain(name: str) -> str:
    """A form that is the same for names that differ only in case, the encoding of accents, or what separates words."""
    name = imagenet_names().get(name, name)
    words = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    return re.sub(r"[\s_-]+", " ", words).strip()


def _words(trained: Sequence[str], outputs: tuple[int, ...], taken: Mapping[str, str]) -> str:
    """How the classes of the data were matched, in words."""
    some = list(taken.items())[:5]
    others = ", ".join(f"{name} is {other}" for name, other in some)
    more = f" and {len(taken) - len(some):,} more" if len(taken) > len(some) else ""
    missing = len(set(range(len(trained))) - set(outputs))
    said = [
        f"{len(set(outputs))} of the network's {len(trained):,}, any of which may be predicted" if missing else "",
        "in a different order than in training" if list(outputs) != sorted(outputs) else "",
        f"under other names: {others}{more}" if taken else "",
    ]
    return "; ".join(filter(None, said)) or SAME


def _other_classes(source: str, trained: tuple[str, ...], data: str, missing: tuple[str, ...]) -> str:
    which = f"{shortened(missing)}, which {'is' if len(missing) == 1 else 'are'} not among them"
    return (
        f"{source}: trained on the classes {shortened(trained)}; {data} has {which}."
        f"{did_you_mean(missing[0], trained)} If they mean the same, map them: "
        f"--classes {shlex.quote(shown(missing[0])[1:-1])}=NAME_IN_THE_TRAINING,..."
    )


def _order(outputs: Sequence[int]) -> list[int] | None:
    return None if list(outputs) == list(range(len(outputs))) else list(outputs)


def natural(classes: Sequence[str]) -> list[int]:
    """The indices of the classes in the order in which timm sorts folders: 2 before 10, without regard to case."""

    def key(i: int) -> list[str | int]:
        parts = re.split(r"(\d+)", classes[i].lower())
        return [int(part[-4000:]) if k % 2 else part for k, part in enumerate(parts)]  # int takes 4,300 digits at most

    return sorted(range(len(classes)), key=key)


def outputs_of(classes: Sequence[str], order: str) -> tuple[list[int] | None, str]:
    """The output of each class of the data, or None if each class has its own number; and the order in words.

    order: "text" is the data's own, as torchvision sorts folders; "natural" is timm's. Raises UserError for any other.
    """
    check_choice("class-order", order, get_args(ClassOrder))
    places = natural(classes)
    words = "by order, since the file has no class names"
    differing = next((i for i, place in enumerate(places) if i != place), None)
    if differing is None:
        return None, words
    first, second = classes[differing], classes[places[differing]]
    of_text = "sorted as text, as in torchvision" if list(classes) == sorted(classes) else "kept"
    if order == "natural":
        outputs = sorted(range(len(places)), key=places.__getitem__)
        return outputs, f"{words}; sorted naturally, as in timm: number {differing} is {second!r}, not {first!r}"
    return None, (
        f"{words}; the data's order is {of_text}: number {differing} is {first!r}; timm sorts naturally, "
        f"so that it is {second!r}: for such a file, use --class-order natural"
    )
