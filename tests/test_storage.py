"""Reading that never waits and knows a bound; writing that goes through no link, and of two writers one waits."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

import pytest

from resnetlab import storage
from resnetlab.errors import UserError
from resnetlab.storage import (
    Damaged,
    check_regular,
    is_locked,
    locked,
    open_to_append,
    read_json,
    read_regular,
    remove,
    write_atomically,
)


def test_a_file_is_read_up_to_a_bound(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    assert read_regular(path, 5) == b"12345"
    with pytest.raises(Damaged, match=r"x: damaged, its 5 bytes exceed the limit of 4; buy it\.$"):
        read_regular(path, 4, "buy it")


def test_what_is_no_regular_file_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "nowhere").symlink_to("gone")
    (tmp_path / "device").symlink_to("/dev/zero")
    for name, words in {
        "fifo": "damaged, it is a FIFO, not a regular file",
        "folder": "damaged, it is a folder, not a regular file",
        "device": "damaged, it is a device, not a regular file",
        "nowhere": r"can't be read \(No such file or directory\)",
    }.items():
        for read in (read_json, check_regular):
            with pytest.raises(Damaged, match=rf"{name}: {words}\.$"):
                read(tmp_path / name)


def test_a_link_to_a_regular_file_is_read_and_not_written_through(tmp_path: Path) -> None:
    store, link = tmp_path / "store", tmp_path / "link"
    store.write_text('{"a": 1}')
    link.symlink_to(store)
    assert read_json(link) == {"a": 1}
    with pytest.raises(OSError, match="it is a symbolic link, not a regular file"):
        open_to_append(link)
    (tmp_path / "link.part").symlink_to(store)
    write_atomically(link, b"new")  # the link in the way is removed
    assert (link.is_symlink(), link.read_bytes(), store.read_text()) == (False, b"new", '{"a": 1}')


def test_a_lock_is_a_regular_file_of_the_folder(tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    with locked(tmp_path):
        assert is_locked(tmp_path)
        with pytest.raises(UserError, match="another process"), locked(tmp_path):
            pass
    assert not is_locked(tmp_path)
    (tmp_path / "lock").unlink()
    os.mkfifo(tmp_path / "lock")
    with pytest.raises(Damaged, match="lock: damaged, it is a FIFO, not a regular file; remove it"):
        is_locked(tmp_path)
    with pytest.raises(Damaged, match="lock: damaged, it is a FIFO, not a regular file; remove it"), locked(tmp_path):
        pass


def test_removing_leaves_what_a_link_leads_to(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "x").touch()
    (tmp_path / "link").symlink_to("store")
    for name in ("link", "gone"):
        remove(tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == ["store"]
    remove(tmp_path / "store")
    assert not list(tmp_path.iterdir())


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
