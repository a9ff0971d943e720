"""How a whole file is damaged: as bytes, as JSON value by value, as text word by word; always the same by a seed."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Callable, Iterator
from typing import Any

Mutation = Callable[[bytes, random.Random], bytes]

# What stands in place of a value: other types, numbers at and beyond every edge, texts that no name can be.
ODD: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    7,
    2**31,
    2**63,
    -(2**63) - 1,
    10**400,
    0.5,
    -0.0,
    1e-320,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "0",
    "x",
    "../x",
    "\x00",
    "\x1b[31m",
    "\ud800",
    "é" * 3000,
    [],
    [[]],
    [None],
    [1, "1"],
    {},
    {"": 0},
    {"en": "x"},
    {"en": "x", "zh": None},
)
WORDS = ("", "=", "==", "(", ")", "[", "]", "[[", "{", "}", ",", ".", "#", '"', "'", '"""', "\\", "\n", "\0", "-", "+")
VALUES = ("0", "-1", "1.5", "1e400", "nan", "inf", "9" * 5000, "True", "true", "None", "None()", "1979-05-27", "x")
VALUES += (
    "0x10",
    "é",
    "[1, 2]",
    "()",
    "{a = 1}",
    "lambda: 0",
    "*x",
    "**x",
    "x for x in y",
    "__import__('os')",
    "[" * 300,
)


def of_bytes(content: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, near an end rather than in the middle; or the file cut, or a part of it doubled or lost."""
    bad = bytearray(content)
    for _ in range(rng.choice([0, 1, 1, 2, 5, 20])):
        i = _place(len(bad), rng)
        bad[i] = rng.choice([0, 255, rng.randrange(256), bad[i] ^ 1 << rng.randrange(8)])
    i, length = _place(len(bad), rng), rng.choice([1, 2, 7, 100, 1000])
    kind = rng.randrange(10)
    if kind == 0:
        del bad[i:]
    elif kind == 1:
        del bad[i : i + length]
    elif kind == 2:
        bad[i:i] = bad[i : i + length]
    elif kind == 3:
        bad[i : i + 8] = rng.choice([bytes(8), b"\xff" * 8, rng.randbytes(8), (2**40).to_bytes(8, "little")])
    elif kind == 4:
        bad += rng.randbytes(length)
    return bytes(bad)


def _place(length: int, rng: random.Random) -> int:
    """A place in the file: one in four anywhere, the others where formats keep what they say of themselves."""
    near = rng.randrange(min(length, rng.choice([16, 100, 500, length])))
    return near if rng.random() < 0.7 else length - 1 - near


def of_json(content: bytes, rng: random.Random) -> bytes:
    """One to three values replaced, left out, doubled, renamed or exchanged; the rest stays what it is."""
    value = json.loads(content)
    for _ in range(rng.choice([1, 1, 2, 3])):
        value = mutated(value, rng)
    return json.dumps(value).encode("utf-8", "surrogatepass")


def mutated(value: Any, rng: random.Random) -> Any:
    """A JSON value with one change somewhere in it; it may be changed in place."""
    places = list(_places(value))
    if not places:
        return copy.deepcopy(rng.choice(ODD))
    # By depth first, so that the few values near the root are met as often as the many deep ones.
    depth = rng.choice(sorted({d for d, _, _ in places}))
    _, holder, key = rng.choice([place for place in places if place[0] == depth])
    kind = rng.randrange(8)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[rng.choice([f"{key}x", "", "\x00", key.upper()])] = holder.pop(key)
    elif kind == 1:
        holder.insert(key, holder[key])
    elif kind == 2:
        _, other, name = rng.choice(places)
        holder[key] = json.loads(json.dumps(other[name]))
    elif kind == 3:
        holder[key] = [holder[key]]
    else:
        holder[key] = copy.deepcopy(rng.choice(ODD))
    return value


def _places(value: Any, depth: int = 0) -> Iterator[tuple[int, Any, Any]]:
    """Every value inside as (depth, what holds it, under what)."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, held in inside:
        yield depth, value, key
        yield from _places(held, depth + 1)


def of_text(content: bytes, rng: random.Random) -> bytes:
    """A few words, signs or values of a text left out, doubled, exchanged, or replaced by others."""
    words = re.findall(r"\w+|\s+|[^\w\s]", content.decode())
    for _ in range(rng.choice([1, 1, 2, 4])):
        if not words:
            break
        i, j = rng.randrange(len(words)), rng.randrange(len(words))
        kind = rng.randrange(6)
        if kind == 0:
            del words[i]
        elif kind == 1:
            words[i:i] = words[i : j + 1]
        elif kind == 2:
            words[i], words[j] = words[j], words[i]
        else:
            words[i] = rng.choice(WORDS if kind == 3 else VALUES)
    text = "".join(words).encode()
    return of_bytes(text, rng) if text and rng.random() < 0.1 else text
