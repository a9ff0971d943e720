"""Weights split into several files, as by Hugging Face's libraries: an index states the file of each tensor."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

from resnetlab.errors import UserError, shown
from resnetlab.storage import Damaged, read_json
from resnetlab.weights.files import MOST_BYTES, Contents, read_file

INDEX = ".index.json"  # the end of the name of an index
SHARD = re.compile(r"(.+)-\d{5}-of-(\d{5})\.(safetensors|bin)")


class Index(TypedDict):
    """What an index holds: the name of a file in its folder, by the name of each tensor."""

    weight_map: dict[str, str]


def files_of(path: Path) -> list[Path]:
    """The files of weights: the file itself, or an index and its shards. Raises UserError."""
    if not path.name.endswith(INDEX):
        return [path]
    names = sorted(set(read_json(path, Index)["weight_map"].values()))
    for name in names:
        if not SHARD.fullmatch(name) or "/" in name or "\\" in name:
            raise Damaged(path, f"damaged, {shown(name)} in it is not the name of a part")
    return [path, *(path.with_name(name) for name in names)]


def read_all(path: Path, which: str) -> Contents:
    """As `files.read_file`, also for an index with all its parts. Raises UserError."""
    check_whole(path)
    index, *parts = files_of(path)
    if not path.name.endswith(INDEX):
        return read_file(path, which)
    there = sum(part.stat().st_size for part in parts if part.is_file())
    if there > MOST_BYTES:
        raise UserError(f"{path}: too large for a network's weights, with {there / 2**30:,.0f} GiB.")
    found = Contents({}, in_order=False)
    for part in parts:
        contents = read_file(part, which)
        if twice := found.tensors.keys() & contents.tensors.keys():
            raise Damaged(path, f"damaged, {shown(min(twice))} is in two of its parts")
        tensors, header = found.tensors | contents.tensors, found.header | contents.header
        found = replace(found, tensors=tensors, header=header, left_out=(*found.left_out, *contents.left_out))
    wanted = read_json(index, Index)["weight_map"]
    if missing := [name for name in wanted if name not in found.tensors]:
        raise Damaged(path, f"damaged, {shown(missing[0])} is in none of its parts")
    return found


def check_whole(path: Path) -> None:
    """Raise UserError if this is one of several files of a network."""
    part = SHARD.fullmatch(path.name)
    if part and int(part[2]) > 1:
        raise UserError(
            f"{path}: one of several files of a network; give their folder, or {part[1]}.{part[3]}{INDEX} beside it."
        )
