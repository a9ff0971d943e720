"""What is said of a JSON value that is not of the stated type."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import pytest

from resnetlab.schema import Between, Loss, Percent, Scalar, Text, Whole, trouble


@dataclass
class Point:
    """Of these tests."""

    x: float
    y: Whole = 0


class Open(TypedDict):
    """Of these tests."""

    kind: Literal["a", "b"]
    points: NotRequired[list[Point]]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (7, Whole),
        (7, float),
        (0, Percent),
        (100.0, Percent),
        (float("nan"), Loss),
        (float("inf"), Loss),
        ("x" * 1000, Text),
        (True, bool),
        (None, Whole | None),
        ([1, None, "x", 1.5, False], list[Scalar]),
        ([0.0, 1.0], tuple[float, float] | None),
        ([], tuple[int, ...]),
        ([1, 2, 3], tuple[int, ...]),
        ({"x": 1}, Point),
        ({"kind": "a", "beside": object()}, Open),
        ({"kind": "b", "points": [{"x": 1.5, "y": 2}]}, Open),
        (object(), Any),
    ],
)
def test_what_is_of_the_type(value: object, kind: Any) -> None:
    assert trouble(value, kind) == ""


@pytest.mark.parametrize(
    ("value", "kind", "words"),
    [
        (True, Whole, "it is True, not a whole number from 0"),
        (1.0, Whole, "it is 1.0, not a whole number from 0"),
        (2**53 + 1, Whole, "it is 9007199254740993, not a whole number from 0"),
        (10**400, float, "it is 1000"),
        (10**400, Loss, "it is 1000"),
        (float("nan"), Percent, "it is nan, not a number from 0 to 100"),
        (float("inf"), float, "it is inf, not a number"),
        (100.1, Percent, "it is 100.1, not a number from 0 to 100"),
        (0, Annotated[int, Between(1, 4096)], "it is 0, not a whole number from 1 to 4,096"),
        ("x" * 1001, Text, "it is 'xxx"),
        (None, list[int], "it is None, not a list"),
        ([1, "x"], list[Whole], "[1] is 'x', not a whole number from 0"),
        ([1.0], tuple[float, float], "it is [1.0], not a list of 2"),
        ([1, "x"], tuple[int, ...], "[1] is 'x', not a whole number"),
        (1, tuple[int, ...], "it is 1, not a list"),
        ("c", Literal["a", "b"], "it is 'c', not one of 'a', 'b'"),
        (1, Literal[True], "it is 1, not one of True"),
        ([], Point, "it is [], not an object"),
        ({}, Point, "it lacks x"),
        ({"x": 1, "z": 2, "w": 3}, Point, "it has w, z in addition"),
        ({"points": []}, Open, "it lacks kind"),
        ({"kind": "a", "points": [{"x": 1}, {"x": "far"}]}, Open, "points[1].x is 'far', not a number"),
        ({"kind": "a", "points": [{"x": 1}, {"x": "far"}]}, Open | None, "points[1].x is 'far', not a number"),
        ({"a": {"b": []}}, dict[str, dict[str, int]], "a.b is [], not a whole number"),
    ],
)
def test_what_is_not(value: object, kind: Any, words: str) -> None:
    assert trouble(value, kind).startswith(words)
    assert trouble(json.loads(json.dumps(value)), kind) == trouble(value, kind)
