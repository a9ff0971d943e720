"""Atomic writing: of two that write one file the second waits, and what may not be overwritten isn't."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

import pytest

from resnetlab import storage
from resnetlab.storage import write_atomically


def test_what_a_kill_left_is_written_anew(tmp_path: Path) -> None:
    (tmp_path / "a.part").write_bytes(b"longer than the new content")
    write_atomically(tmp_path / "a", b"new")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a": b"new"}


def test_a_new_file_replaces_none(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a", b"first", new=True)
    with pytest.raises(FileExistsError):
        write_atomically(tmp_path / "a", b"second", new=True)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a": b"first"}


def test_the_second_one_waits_for_the_first(tmp_path: Path) -> None:
    with (tmp_path / "a.part").open("wb") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        second = threading.Thread(target=write_atomically, args=(tmp_path / "a", b"second"))
        second.start()
        first.write(b"first")
        first.flush()
        (tmp_path / "a.part").replace(tmp_path / "a")  # the second one has opened what is now `a`, or not yet
    second.join()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a": b"second"}


def test_nobody_waits_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "WRITING_SECONDS", 0)
    with (tmp_path / "a.part").open("wb") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="another process is writing it"):
            write_atomically(tmp_path / "a", b"second")
        assert os.listdir(tmp_path) == ["a.part"], "what the other one writes is left to it"
