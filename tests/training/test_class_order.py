"""The order of classes that a file does not name."""

from __future__ import annotations

import pytest

from resnetlab.errors import UserError
from resnetlab.training.classes import match_classes, natural, outputs_of


@pytest.mark.parametrize(
    ("classes", "ordered"),
    [
        (["0", "1", "10", "11", "2"], ["0", "1", "2", "10", "11"]),
        (["class1", "class10", "class2"], ["class1", "class2", "class10"]),
        (["Zebra", "apple"], ["apple", "Zebra"]),  # timm sorts in lower case
        (["v1.10", "v1.9", "v1"], ["v1", "v1.9", "v1.10"]),
        (["01", "1", "0"], ["0", "01", "1"]),
        (["²", "1", "a"], ["1", "a", "²"]),  # no digit for int
        (["9" * 5000, "8"], ["8", "9" * 5000]),
        (["b", "a"], ["a", "b"]),
    ],
)
def test_natural_order_is_timms(classes: list[str], ordered: list[str]) -> None:
    assert [classes[i] for i in natural(classes)] == ordered


def test_outputs_of_each_class() -> None:
    classes = ("class1", "class10", "class11", "class2")
    assert outputs_of(classes, "text")[0] is None
    outputs, _ = outputs_of(classes, "natural")
    assert outputs == [0, 2, 3, 1]  # class10 is timm's number 2
    matched = match_classes("FILE", None, "folder", classes, {}, "natural")
    assert (matched.classes, matched.outputs) == (("class1", "class2", "class10", "class11"), (0, 2, 3, 1))
    assert outputs_of(("a", "b"), "natural") == (None, "by order, since the file has no class names")
    assert "the data's order is kept: number 0 is 'b'" in outputs_of(("b", "a"), "text")[1]
    with pytest.raises(UserError, match="class-order='alphabet' is not known: choose one of text, natural"):
        outputs_of(("a", "b"), "alphabet")
