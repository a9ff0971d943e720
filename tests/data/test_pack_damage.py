"""Reading packs: damage and hostile values are named in a line, and never crash."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from resnetlab.data.pack import INDEX, Contents, index_bytes, read_index, read_pack, verify
from resnetlab.errors import UserError


def test_a_missing_or_cut_shard_is_named(packed: Path) -> None:
    shard = packed / "train-00001.tar"
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    with pytest.raises(UserError, match=r"train-00001.tar: has [\d,]+ bytes, but had"):
        read_pack("pack", packed)
    assert [line.startswith(str(shard)) for line in verify(packed)] == [True]
    shard.unlink()
    with pytest.raises(UserError, match=r"train-00001.tar: .*No such file"):
        read_pack("pack", packed)
    shard.mkdir()
    with pytest.raises(UserError, match=r"train-00001.tar"):
        read_pack("pack", packed)


def test_what_is_no_pack_is_said(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere", Path(__file__)):
        with pytest.raises(UserError, match="not a pack"):
            read_pack("pack", path)


def test_a_changed_image_is_named_when_it_is_read_and_by_verify(packed: Path) -> None:
    data = read_pack("pack", packed)
    source = data.train.source
    path = source.containers[source.which[7]]
    content = bytearray(path.read_bytes())
    content[int(source.starts[7]) + 100] ^= 1
    path.write_bytes(content)
    with pytest.raises(OSError, match="b/1.jpg: damaged"):
        data.train.read(7)
    data.train.read(6)
    lines = verify(packed)
    assert lines[0] == f"{path}: damaged, its SHA-256 differs"
    assert lines[1:] == [f"{path}: b/1.jpg: damaged, its checksum differs"]


def test_progress_of_verify_ends_at_all(packed: Path) -> None:
    told: list[tuple[int, int]] = []
    assert verify(packed, lambda done, total: told.append((done, total))) == []
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1]


def sealed(folder: Path, change: Callable[[dict[str, Any], dict[str, np.ndarray]], None]) -> None:
    """Write the index anew with other values and a checksum that is right for them."""
    contents, _ = read_index(folder)
    arrays = {k: v.copy() for k, v in load((folder / INDEX).read_bytes()).items()}
    values = asdict(contents)
    change(values, arrays)
    known = Contents(**values)
    (folder / INDEX).write_bytes(index_bytes(known, arrays))


def set_to(place: str, value: Any) -> Callable[[dict[str, Any], dict[str, np.ndarray]], None]:
    """A change of one value: "labels.3", "train", "shards.0.bytes"."""

    def change(values: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        first, *path = place.split(".")
        if first in arrays and not path:
            arrays[first] = value
        elif first in arrays:
            arrays[first][int(path[0])] = value
        else:
            inside: Any = values
            keys = [int(k) if k.isdigit() else k for k in (first, *path)]
            for key in keys[:-1]:
                inside[key] = list(inside[key]) if isinstance(inside[key], tuple) else inside[key]
                inside = inside[key]
            inside[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("labels.3", 2),
        ("labels.3", -1),
        ("ends.3", 10**9),
        ("ends.0", -1),
        ("ends.15", 0),
        ("sizes.2", -1),
        ("sizes.2", 2**63 - 1),
        ("starts.2", -(2**63)),
        ("starts.2", 2**63 - 1),
        ("which.2", 99),
        ("which.2", -1),
        ("names", np.zeros(3, np.uint8)),
        ("labels", np.zeros(3, np.int32)),
        ("labels", np.zeros(16, np.float32)),
        ("labels", np.zeros((4, 4), np.int32)),
        ("train", 17),
        ("train", -1),
        ("test", 5),
        ("train", "12"),
        ("train", True),
        ("name", 5),
        ("classes", []),
        ("classes", 5),
        ("classes.1", None),
        ("shards", []),
        ("shards.0.file", "../../x"),
        ("shards.0.file", "/etc/passwd"),
        ("shards.0.file", 5),
        ("shards.0.file", "train-00001.tar"),
        ("shards.0.bytes", -1),
        ("shards.0.bytes", 2**70),
        ("shards.0.bytes", 1.5),
        ("shards.0.sha256", None),
        ("shards.0", {}),
        ("shards.0", 5),
        ("skipped", [{"side": 1, "name": 2, "reason": 3}]),
        ("short_side", "x"),
        ("source", None),
    ],
)
def test_hostile_values_are_refused_in_a_line(packed: Path, place: str, value: Any) -> None:
    sealed(packed, set_to(place, value))
    with pytest.raises(UserError, match=INDEX) as raised:
        read_pack("pack", packed)
    assert "\n" not in str(raised.value)


def test_another_format_is_told_from_damage(packed: Path) -> None:
    content = (packed / INDEX).read_bytes()
    (packed / INDEX).write_bytes(content.replace(b'\\"format\\": 1', b'\\"format\\": 7'))
    with pytest.raises(UserError, match="a pack of format 7; this version reads 1 and 2"):
        read_pack("pack", packed)


def read_all(folder: Path) -> None:
    """Everything that a reader does; only errors of the stated kinds."""
    try:
        data = read_pack("pack", folder)
    except UserError:
        return
    for files in (data.train, data.test):
        for i in range(len(files)):
            try:
                files.read(i)
            except OSError:
                files.place(i)
    data.fingerprint  # noqa: B018


@pytest.mark.parametrize("count", [600, pytest.param(6000, marks=pytest.mark.slow)])
def test_mutated_indexes_and_shards_never_crash(packed: Path, count: int) -> None:
    chance = random.Random(count)
    good = (packed / INDEX).read_bytes()
    header = 8 + int.from_bytes(good[:8], "little")
    for turn in range(count):
        content = bytearray(good)
        for _ in range(chance.choice((1, 1, 3, 20))):
            content[chance.randrange(header if turn % 2 else len(content))] = chance.randrange(256)
        if turn % 7 == 0:
            del content[chance.randrange(len(content)) :]
        (packed / INDEX).write_bytes(content)
        read_all(packed)
    arrays = load(good)
    card = json.loads(json.loads(good[8:header])["__metadata__"]["resnetlab"])
    wild = (0, -1, 1, 2**31 - 1, -(2**31), 7, 600)
    for _ in range(count):  # with a right checksum
        changed = {name: array.copy() for name, array in arrays.items()}
        for _ in range(chance.choice((1, 2, 5))):
            array = changed[chance.choice(list(changed))]
            array[chance.randrange(len(array))] = np.array(chance.choice(wild)).astype(array.dtype)
        index = json.loads(json.dumps(card["index"]))
        if chance.random() < 0.5:
            key = chance.choice(list(index))
            index[key] = chance.choice((None, 0, -1, "x", [], {}, [None], [[]], {"a": 1}, 2**80, 1.5, "\ud800", True))
        from resnetlab.data.pack import _checksum

        text = json.dumps({"sha256": _checksum(changed, index), "index": index})
        (packed / INDEX).write_bytes(save(changed, {"resnetlab": text}))
        read_all(packed)
    (packed / INDEX).write_bytes(good)
    shards = {path: path.read_bytes() for path in packed.glob("*.tar")}
    for _ in range(count // 10):
        path = chance.choice(list(shards))
        content = bytearray(shards[path])
        for _ in range(5):
            content[chance.randrange(len(content))] = chance.randrange(256)
        path.write_bytes(content)
        read_all(packed)
        path.write_bytes(shards[path])


@pytest.mark.parametrize(
    "card",
    ["", "5", "[]", "{}", '{"index": 5}', '{"index": {"format": 1}}', "[" * 100_000, "9" * 5000, '{"index": []}'],
)
def test_metadata_of_any_kind(packed: Path, card: str) -> None:
    (packed / INDEX).write_bytes(save(load((packed / INDEX).read_bytes()), {"resnetlab": card}))
    with pytest.raises(UserError, match=INDEX):
        read_pack("pack", packed)
