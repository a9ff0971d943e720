"""Which output of a network stands for which class of the data, if its file doesn't name its classes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, get_args

from resnetlab.errors import check_choice

ClassOrder = Literal["text", "natural"]


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
