"""Reading that never waits and knows a bound; writing that goes through no link, and of two writers one waits."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from resnetlab import storage
from resnetlab.data.cifar import read_batch
from resnetlab.data.idx import read_mnist
from resnetlab.data.pack import read_index
from resnetlab.errors import UserError
from resnetlab.storage import (
    Damaged,
    cache_folder,
    check_absent,
    check_regular,
    disk_errors,
    is_locked,
    keep_if_possible,
    locked,
    older,
    open_to_append,
    read_json,
    read_regular,
    remove,
    replace_folder,
    try_lock,
    whole_folder,
    write_atomically,
    write_new,
)
from resnetlab.training.recipes import recipe
from resnetlab.use import features_file
from resnetlab.weights.architectures import read_config


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


READERS: dict[str, Callable[[Path], object]] = {
    "recipe.toml": recipe,
    "index.safetensors": lambda path: read_index(path.parent),
    "features.npz": features_file.read,
    "data_batch_1": read_batch,
    "t10k-labels-idx1-ubyte": lambda path: read_mnist("mnist", path.parent),
}


@pytest.mark.parametrize("name", READERS)
def test_no_reader_waits_for_a_pipe(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError):
        READERS[name](tmp_path / name)


def test_a_config_that_is_a_pipe_states_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    assert read_config(tmp_path / "config.json") == {}


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
        with pytest.raises(UserError, match="being trained already"), locked(tmp_path):
            pass
    assert not is_locked(tmp_path)
    with (tmp_path / "lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert not is_locked(tmp_path), "who asks at the same moment is no training"
    (tmp_path / "lock").rename(tmp_path / "store")
    (tmp_path / "lock").symlink_to("store")
    with pytest.raises(Damaged, match="lock: damaged, it is a symbolic link, not a regular file"), locked(tmp_path):
        pass
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


def test_a_file_that_was_renamed_meanwhile_is_another_one(tmp_path: Path) -> None:
    part = tmp_path / "a.part"
    with part.open("wb") as file:
        assert storage.is_still(file, part)
        part.replace(tmp_path / "a")
        assert not storage.is_still(file, part)
        part.touch()
        assert not storage.is_still(file, part)


def test_a_file_that_was_renamed_before_it_was_locked_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, lock = tmp_path / "a.part", storage.try_lock
    part.write_bytes(b"first")

    def lock_late(file: BinaryIO) -> bool:
        if not (tmp_path / "a").exists():
            part.replace(tmp_path / "a")
            os.link(tmp_path / "a", tmp_path / "first")
        return lock(file)

    monkeypatch.setattr(storage, "try_lock", lock_late)
    write_atomically(tmp_path / "a", b"second")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a": b"second", "first": b"first"}


def test_content_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    replace, rename = Path.replace, Path.rename
    monkeypatch.setattr(os, "fsync", lambda _: done.append("fsync"))
    monkeypatch.setattr(Path, "replace", lambda part, path: done.append("replace") or replace(part, path))
    monkeypatch.setattr(Path, "rename", lambda new, path: done.append("rename") or rename(new, path))
    write_atomically(tmp_path / "a", b"new")
    replace_folder(tmp_path / "last", {"a": b"1", "b": b"2"}, keep_old=True)
    assert done == ["fsync", "replace", "fsync", "fsync", "rename"]


@pytest.mark.parametrize(
    ("number", "full"),
    [(errno.ENOSPC, True), (errno.EFBIG, True), (errno.EDQUOT, True), (errno.EACCES, False), (errno.EIO, False)],
)
def test_a_full_disk_is_told_from_other_errors_and_through_those_it_led_to(number: int, full: bool) -> None:
    error = OSError(number, os.strerror(number))
    assert storage.disk_is_full(error) is full
    told, followed = UserError("told"), RuntimeError("while that was handled")
    told.__cause__, followed.__context__ = error, error
    assert (storage.disk_is_full(told), storage.disk_is_full(followed)) == (full, full)
    assert not storage.disk_is_full(UserError("another"))


def test_nobody_waits_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "WRITING_SECONDS", 0)
    with (tmp_path / "a.part").open("wb") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="another process is writing it"):
            write_atomically(tmp_path / "a", b"second")
        assert os.listdir(tmp_path) == ["a.part"], "what the other one writes is left to it"


def test_what_is_to_be_new_is_not_there(tmp_path: Path) -> None:
    check_absent(tmp_path / "a")
    (tmp_path / "link").symlink_to("gone")
    write_new(tmp_path / "a", b"first")
    for name in ("a", "link"):
        with pytest.raises(UserError, match=f"{name}: already exists; remove it, or choose another folder\\.$"):
            check_absent(tmp_path / name, "choose another folder")
        with pytest.raises(UserError, match=rf"{name}: can't be written \(File exists\)\.$"):
            write_new(tmp_path / name, b"second")
    assert (tmp_path / "a").read_bytes() == b"first"


def test_the_cache_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for value, wanted in (("", ".cache"), ("~/kept", "kept"), (str(tmp_path / "x"), "x"), ("relative", ".cache")):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert cache_folder() == tmp_path / wanted / "resnetlab"


def test_without_a_home_folder_the_cache_is_a_folder_that_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as of a user that the system doesn't know
    folder = cache_folder()
    assert folder == cache_folder()
    assert folder.is_absolute()
    assert keep_if_possible(folder / "a", b"kept")
    assert folder.parent.stat().st_mode & 0o777 == 0o700
    assert not list(tmp_path.iterdir())


def test_what_can_be_made_again_is_kept_where_it_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert keep_if_possible(tmp_path / "new" / "a", b"kept")
    assert (tmp_path / "new" / "a").read_bytes() == b"kept"
    assert not keep_if_possible(tmp_path / "file" / "a", b"kept")


def test_a_lock_is_held_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "a").open("wb") as first, (tmp_path / "a").open("wb") as second:
        assert try_lock(first)
        assert not try_lock(second)
        monkeypatch.setattr(storage.fcntl, "flock", refuse)
        assert try_lock(second), "where a file system can't lock"


def refuse(*_: object) -> None:
    raise OSError(9, "Bad file descriptor")


def test_a_failed_write_is_one_line(tmp_path: Path) -> None:
    for outcome, words in (("", "; choose another place."), ("; it is gone.", "; it is gone.")):
        with pytest.raises(UserError) as caught, disk_errors(tmp_path, outcome):
            raise PermissionError(13, "Permission denied")
        assert str(caught.value) == f"{tmp_path}: can't write (Permission denied){words}"


@pytest.mark.parametrize("keep_old", [True, False])
def test_a_folder_is_replaced_by_a_whole_one(tmp_path: Path, keep_old: bool) -> None:
    target = tmp_path / "last"
    (tmp_path / "last.new").mkdir()  # as a kill left it
    for content in (b"1", b"2", b"3"):
        replace_folder(target, {"a": content}, keep_old=keep_old)
    found = {str(p.relative_to(tmp_path)): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert found == {"last/a": b"3"} | ({"last.old/a": b"2"} if keep_old else {})
    assert whole_folder(target) == target
    if keep_old:
        remove(target)
        assert whole_folder(target) == older(target)


def test_a_folder_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    replace_folder(tmp_path / "last", {"a": b"1"}, keep_old=True)
    with pytest.raises(OSError, match="No such file or directory"):
        replace_folder(tmp_path / "last", {"a": b"2", "no/such": b""}, keep_old=True)
    assert {p.name: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == {"a": b"1"}
    assert [p.name for p in tmp_path.iterdir()] == ["last"]
