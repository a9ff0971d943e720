"""Checks that JSON values have their stated types and ranges, by which damaged files are recognised.

Types are Python's: int, float, str, bool, None, Any, Literal, X | Y, list[X], tuple[X, ...], tuple[X, Y], dict[str, X],
a dataclass (no other keys; those with a default may be absent) or a TypedDict (other keys are allowed). Ranges are
written Annotated[int, Between(0, 9)].
"""

from __future__ import annotations

import dataclasses
import sys
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict

from resnetlab.errors import shown


@dataclass(frozen=True)
class Between:
    """The range of a number, or of a text's length; infinity is allowed if `high` is infinite, NaN if `nan` is true."""

    low: float
    high: float
    nan: bool = False


INFINITY, LARGEST = float("inf"), sys.float_info.max
MOST_WHOLE = 2**53  # the largest number up to which every JSON reader keeps whole numbers exactly
Whole = Annotated[int, Between(0, MOST_WHOLE)]
Positive = Annotated[float, Between(0, LARGEST)]  # or 0
Percent = Annotated[float, Between(0, 100)]
Seconds = Annotated[float, Between(0, 10**10)]  # 317 years
Loss = Annotated[float, Between(0, INFINITY, nan=True)]  # of a network that has diverged, too
Text = Annotated[str, Between(0, 1000)]
Scalar = None | bool | Annotated[int, Between(-(2**64), 2**64)] | float | str

_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", type(None): "null"}


def trouble(value: object, kind: Any, name: str = "") -> str:
    """Why a JSON value is not of a type, e.g. "epoch is 'x', not a whole number"; "" if it is.

    name: the name of the value; "" for the content of a file.
    """
    return next(_troubles(value, kind, name), "")


def _troubles(value: object, kind: Any, name: str) -> Iterator[str]:
    origin, parts = get_origin(kind), get_args(kind)
    if kind is Any:
        return
    if origin in (Union, types.UnionType):
        found = [trouble(value, part, name) for part in parts]
        # A fault within an object or a list is reported if only one of the choices is an object or a list.
        deep = [f for f, part in zip(found, parts, strict=True) if isinstance(value, dict | list) and _holds(part)]
        if "" not in found:
            yield deep[0] if len(deep) == 1 else _wrong(value, kind, name)
    elif _holds(kind):
        within: Any = _inside if origin else _in_fields
        list_like = origin in (list, tuple, Sequence)
        fits = isinstance(value, list if list_like else dict)
        yield from within(value, kind, name) if fits else [_wrong(value, kind, name)]
    elif not _fits(value, kind):
        yield _wrong(value, kind, name)


def _fits(value: Any, kind: Any) -> bool:
    """Whether a simple value is of a type, and in its range."""
    if get_origin(kind) is Literal:
        return any(value == part and type(value) is type(part) for part in get_args(kind))
    base, between = get_args(kind) if get_origin(kind) is Annotated else (kind, None)
    if isinstance(value, bool) or not isinstance(value, (int, float) if base is float else base):
        return isinstance(value, bool) and base is bool
    if between is None and base is not float:
        return True
    low, high = (between.low, between.high) if between else (-LARGEST, LARGEST)
    if value != value:
        return between is not None and between.nan
    if isinstance(value, int):  # an integer beyond the range of floats would overflow in use
        low, high = max(low, -LARGEST), min(high, LARGEST)
    return bool(low <= (len(value) if isinstance(value, str) else value) <= high)


def _holds(kind: Any) -> bool:
    return get_origin(kind) in (list, tuple, Sequence, dict) or dataclasses.is_dataclass(kind) or is_typeddict(kind)


def _wrong(value: object, kind: Any, name: str) -> str:
    return f"{name or 'it'} is {shown(value)}, not {_words(kind)}"


@cache
def _fields_of(kind: Any) -> tuple[dict[str, Any], frozenset[str]]:
    """The types of an object's keys, and which of them may be absent."""
    hints = get_type_hints(kind, include_extras=True)
    if dataclasses.is_dataclass(kind):
        none = (dataclasses.MISSING, dataclasses.MISSING)
        return hints, frozenset(f.name for f in dataclasses.fields(kind) if (f.default, f.default_factory) != none)
    optional = frozenset(key for key, hint in hints.items() if get_origin(hint) is NotRequired)
    return {key: get_args(hint)[0] if key in optional else hint for key, hint in hints.items()}, optional


def _in_fields(value: dict[str, Any], kind: Any, name: str) -> Iterator[str]:
    """What is wrong with an object of stated keys: first what it lacks."""
    hints, optional = _fields_of(kind)
    if lacking := [key for key in hints if key not in value and key not in optional]:
        yield f"{name or 'it'} lacks {', '.join(lacking)}"
    surplus = sorted(value.keys() - hints.keys())
    if surplus and dataclasses.is_dataclass(kind):
        yield f"{name or 'it'} has {', '.join(surplus)[:100]} in addition"
    for key, hint in hints.items():
        if key in value:
            yield from _troubles(value[key], hint, f"{name}.{key}" if name else key)


def _inside(value: Any, kind: Any, name: str) -> Iterator[str]:
    """What is wrong in a list, a tuple or a dictionary."""
    parts = get_args(kind)
    if get_origin(kind) is dict:
        for key, inner in value.items():
            yield from _troubles(inner, parts[1], f"{name}.{key}" if name else key)
        return
    if get_origin(kind) is tuple and ... not in parts:
        if len(value) != len(parts):
            yield _wrong(value, kind, name)
        pairs = list(zip(value, parts, strict=False))
    else:
        pairs = [(inner, parts[0]) for inner in value]
    for i, (inner, part) in enumerate(pairs):
        yield from _troubles(inner, part, f"{name}[{i}]")


def _words(kind: Any) -> str:
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        low, high = parts[1].low, parts[1].high
        if parts[0] is str:
            return f"a text of at most {high:,} characters"
        return _words(parts[0]) + (f" from {low:,} to {high:,}" if high < MOST_WHOLE else f" from {low:,}")
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(_words, parts)))
    if origin is Literal:
        return f"one of {', '.join(map(repr, parts))}"
    if origin is tuple and ... not in parts:
        return f"a list of {len(parts)}"
    if origin in (list, tuple, Sequence):
        return "a list"
    return _WORDS.get(kind, "an object")
