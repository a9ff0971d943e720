"""Damaged files of every kind through every reader: what comes out is what it read, or the one line of a UserError."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from readers import READERS

from resnetlab.errors import UserError

FORGIVING = ("index of a tar", "kept statistics")  # what is kept to save time is made anew


def attempt(name: str, folder: Path, count: int, seed: int) -> int:
    """Read `count` damaged files; how many were refused. Any error but a UserError is raised, with its number."""
    reader = READERS[name]
    lines: list[str] = []
    whole = reader.files()
    for path, content in whole.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    reader.read(folder)  # whole, it is read
    there = set(folder.rglob("*"))
    for i in range(count):
        rng = random.Random(f"{name} {seed} {i}")
        path = rng.choice(reader.damaged or tuple(whole))
        (folder / path).write_bytes(reader.mutate(whole[path], rng))
        try:
            reader.read(folder)
        except UserError as error:
            lines.append(" ".join(str(error).split()))
        except BaseException as error:
            error.add_note(f"{name}: {path}, number {i} of seed {seed}")
            raise
        (folder / path).write_bytes(whole[path])
        for new in set(folder.rglob("*")) - there:
            if new.is_file():
                new.unlink()
    assert not [line for line in lines if not 0 < len(line) < 1000]
    return len(lines)


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    refused = attempt(name, tmp_path, READERS[name].count, seed=0)
    assert (refused > 0) is (name not in FORGIVING)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_many_more_damaged_files(name: str, tmp_path: Path) -> None:
    attempt(name, tmp_path, 60 * READERS[name].count, seed=1)


def test_security_states_how_many_there_are() -> None:
    stated = " ".join((Path(__file__).parents[2] / "SECURITY.md").read_text(encoding="utf-8").split())
    thousands = sum(reader.count for reader in READERS.values()) // 1000
    assert f"reads over {thousands},000 damaged files of {len(READERS)} kinds and " in stated
