"""Safe files: bounded reading, atomic writing, locks, JSON, the cache, and the messages of failed reads and writes.

Files may be read through links to regular files, which data stores use. Nothing is written through a link: a new file
replaces the link, and a file that is written in place (a lock, metrics) must not be a link.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import fcntl
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from resnetlab.errors import UserError, causes
from resnetlab.schema import trouble

MOST_JSON = 64 * 2**20  # bytes of a JSON file
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFLNK: "a symbolic link",
}
LOCK = "lock"  # the lock file of a folder
WRITING_SECONDS = 60  # for another process to finish writing a file, after which a waiting process gives up
_NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


class Damaged(UserError):
    """A file that can't be read, or does not hold what it should: its path, what is wrong, and what to do."""

    def __init__(self, path: Path, what: str, advice: str = ""):
        self.path, self.what = path, what
        super().__init__(f"{path}: {what}" + (f"; {advice}" if advice else "") + ".")


class InUse(UserError):
    """A run's folder that is being written, by another process or another thread of this one."""

    def __init__(self, folder: Path):
        super().__init__(f"{folder}: this run is being trained already; wait for it or stop it.")


def read_regular(path: Path, most: int, advice: str = "") -> bytes:
    """The content of a regular file of at most `most` bytes.

    Raises Damaged, and never waits, for anything else: a FIFO, a socket, a device, a folder, a link that leads
    nowhere, a file that is larger.
    """
    try:
        with _opened(path, os.O_RDONLY) as file:
            size = os.fstat(file.fileno()).st_size
            if size > most:
                raise Damaged(path, f"damaged, its {size:,} bytes exceed the limit of {most:,}", advice)
            return file.read(size)
    except OSError as error:
        raise Damaged(path, _reason(error), advice) from error


def content_of(path: Path) -> bytes:
    """The content of a regular file. Raises OSError, and never waits, for anything else, such as /dev/zero."""
    with _opened(path, os.O_RDONLY) as file:
        return file.read()


def read_json(path: Path, kind: Any = dict[str, Any], advice: str = "") -> dict[str, Any]:
    """Read a JSON object of a type (see `schema`). Raises Damaged, with the advice, for anything else."""
    return parsed_json(path, read_regular(path, MOST_JSON, advice), kind, advice)


def parsed_json(path: Path, content: bytes, kind: Any = dict[str, Any], advice: str = "", where: str = "") -> Any:
    """Parse the content of a JSON file, or of a line (`where`) of one. Raises Damaged as `read_json` does."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Damaged(path, f"damaged, {where}not JSON ({error})", advice) from error
    if wrong := trouble(value, kind):
        raise Damaged(path, f"damaged, {where}{wrong}", advice)
    return value


def check_regular(path: Path) -> None:
    """Raise Damaged unless there is a regular file; its content is not read."""
    try:
        if not stat.S_ISREG(mode := path.stat().st_mode):
            raise _Irregular(path, mode)
    except OSError as error:
        raise Damaged(path, _reason(error)) from error


def is_there(path: Path) -> bool:
    """Whether anything has that name, even a broken link."""
    return os.path.lexists(path)


def check_absent(path: Path, advice: str = "choose another name") -> None:
    """Raise UserError, with the advice, if a file that is to be created exists already."""
    if is_there(path):
        raise UserError(f"{path}: already exists; remove it, or {advice}.")


def cache_folder() -> Path:
    """The folder for files that can be made again: $XDG_CACHE_HOME/resnetlab, or ~/.cache/resnetlab.

    A relative $XDG_CACHE_HOME is ignored (XDG Base Directory Specification); for a user without a home folder the
    cache lasts only as long as the process.
    """
    named = (os.path.expanduser(text) for text in (os.environ.get("XDG_CACHE_HOME", ""), "~/.cache"))
    return Path(next(filter(os.path.isabs, named), None) or _passing_folder()) / "resnetlab"


@cache
def _passing_folder() -> str:
    """A folder of this process alone, which ends with it."""
    folder = tempfile.mkdtemp(prefix="resnetlab-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def open_to_append(path: Path) -> BinaryIO:
    """Open a file of ours to append to, unbuffered; it is created if necessary.

    Raises OSError for a link, and for anything that is not a regular file.
    """
    return _opened(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, buffering=0)


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with its contents, if it exists. Raises OSError if that fails."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


class _Irregular(OSError):
    """Something other than a regular file has the name."""

    def __init__(self, path: Path, mode: int):
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        super().__init__(errno.EINVAL, f"it is {kind}, not a regular file", str(path))


def _opened(path: Path, flags: int, buffering: int = -1) -> BinaryIO:
    """A regular file, opened without ever waiting. Raises OSError for anything else."""
    try:
        # Without O_NONBLOCK the opening of a FIFO waits for its other end; of regular files it changes nothing.
        descriptor = os.open(path, flags | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if odd := _odd(path, flags):
            raise odd from error
        raise
    if not stat.S_ISREG(mode := os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _Irregular(path, mode)
    return open(descriptor, "wb" if flags & os.O_ACCMODE else "rb", buffering=buffering)


def _odd(path: Path, flags: int) -> _Irregular | None:
    """The error for something other than a regular file, if that is why it can't be opened."""
    with contextlib.suppress(OSError):
        mode = os.stat(path, follow_symlinks=not flags & os.O_NOFOLLOW).st_mode
        return None if stat.S_ISREG(mode) else _Irregular(path, mode)
    return None


def _reason(error: OSError) -> str:
    if isinstance(error, _Irregular):
        return f"damaged, {error.strerror}"
    return f"can't be read ({error.strerror or error})"


def try_lock(file: BinaryIO | int) -> bool:
    """Lock an open file or folder without waiting; False if another process has it.

    On file systems without locks, e.g. some NFS, it counts as locked.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


@contextlib.contextmanager
def locked(folder: Path, patience: float = 0.0) -> Iterator[None]:
    """Lock a run's folder, so that two processes never write it. Raises InUse if it is locked already.

    patience: seconds to wait for it, since children of a killed process may hold it a little longer.
    """
    deadline = time.monotonic() + patience
    path = folder / LOCK
    with disk_errors(folder):
        try:
            file = _opened(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW)
        except _Irregular as odd:
            raise Damaged(path, _reason(odd), "remove it") from odd
    _locks.add(file)
    try:
        while not try_lock(file):
            if time.monotonic() >= deadline:
                raise InUse(folder)
            time.sleep(0.1)
        yield
    finally:
        if file in _locks:
            _locks.remove(file)
            file.close()


def is_locked(folder: Path) -> bool:
    """Whether a process holds the folder now; False if files can't be locked. Raises Damaged for an irregular lock.

    The lock is tried for reading, so that two processes that ask do not see each other; a training that starts within
    those microseconds would.
    """
    path = folder / LOCK
    try:
        with _opened(path, os.O_RDONLY) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except _Irregular as odd:
        raise Damaged(path, _reason(odd), "remove it") from odd
    except OSError:
        pass
    return False


def _leave_locks() -> None:
    """Release the locks in a forked process, e.g. one that decodes images, which may outlive its killed parent."""
    for file in _locks:
        file.close()
    _locks.clear()


_locks: set[BinaryIO] = set()
os.register_at_fork(after_in_child=_leave_locks)


@contextlib.contextmanager
def disk_errors(path: Path, outcome: str = "") -> Iterator[None]:
    """Turn a failed write (full disk, no permission) into a UserError that says what is kept, or the `outcome`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTDIR):
            outcome = ": a file is in the place of a folder; choose another place."
        elif not outcome and error.errno in _NO_ROOM:
            outcome = "; what was saved before is intact. Make room or choose another place, then repeat the command."
        outcome = outcome or "; choose another place."
        raise UserError(f"{path}: can't write ({error.strerror or error}){outcome}") from error


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder for a moment. Raises UserError, which names the place, for any OSError within."""
    try:
        place = tempfile.gettempdir()
    except FileNotFoundError as error:  # e.g. where all places for temporary files are on one full disk
        raise UserError(
            "no folder for temporary files can be written: make room on the disk, or set TMPDIR to another folder."
        ) from error
    outcome = "; make room there, or set TMPDIR to another folder."
    with disk_errors(Path(place), outcome), tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def disk_is_full(error: BaseException | None) -> bool:
    """Whether an error or one of its causes means that a disk is full, so that no other run can be written either."""
    return any(isinstance(cause, OSError) and cause.errno in _NO_ROOM for cause in causes(error))


def write_atomically(path: Path, content: bytes, *, new: bool = False) -> None:
    """Write a file so that readers find either the old or the new content, complete, even after a power cut.

    If two processes write a file, the second waits for the first. Raises OSError; with `new` also if the file exists
    by then, which is left as it is.
    """
    part = path.with_name(path.name + ".part")
    with _held(part) as file:
        try:
            if new and is_there(path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
            file.truncate(0)  # of what a kill left
            file.write(content)
            flush_to_disk(file)
            part.replace(path)
        except OSError:
            part.unlink(missing_ok=True)
            raise


def write_json(path: Path, value: Any, *, new: bool = False) -> None:
    """Write a value as JSON, as `write_atomically` does. Raises OSError."""
    write_atomically(path, (json.dumps(value, indent=1) + "\n").encode(), new=new)


def write_new(path: Path, content: bytes) -> None:
    """Write a new file, as `write_atomically` does. Raises UserError if it exists or can't be written."""
    try:
        write_atomically(path, content, new=True)
    except OSError as error:
        raise UserError(f"{path}: can't be written ({error.strerror}).") from error


def keep_if_possible(path: Path, content: bytes) -> bool:
    """Write a file that can be made again, creating its folder if necessary; return False if that fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    except OSError:
        return False
    return True


def flush_to_disk(file: BinaryIO) -> None:
    """Make sure that what was written to the file survives a power cut, before it is renamed into place."""
    file.flush()
    os.fsync(file.fileno())


def replace_folder(target: Path, files: dict[str, bytes], *, keep_old: bool) -> None:
    """Write a folder of these files beside the old one, which it replaces when it is complete.

    The old one becomes TARGET.old, and is kept if `keep_old`. Raises OSError, leaving both intact, if that fails.
    """
    new, old = target.with_name(target.name + ".new"), older(target)
    try:
        remove(new)
        new.mkdir()
        for name, content in files.items():
            with (new / name).open("wb") as file:
                file.write(content)
                flush_to_disk(file)
    except OSError:
        with contextlib.suppress(OSError):
            remove(new)
        raise
    if target.exists():  # else the old one is the only one, and stays until the new one is in its place
        remove(old)
        target.rename(old)
    elif target.is_symlink():  # that leads nowhere
        target.unlink()
    new.rename(target)
    if not keep_old:
        with contextlib.suppress(OSError):
            remove(old)


def older(target: Path) -> Path:
    """The path of the folder that `target` has replaced."""
    return target.with_name(target.name + ".old")


def whole_folder(target: Path) -> Path:
    """The folder, or the old one if a kill between the two renames of `replace_folder` left only that."""
    return older(target) if not target.exists() and older(target).exists() else target


def is_still(file: BinaryIO, part: Path) -> bool:
    """Whether an open file still has that name: the process that held it before may have renamed it into place."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), part.stat())
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _held(part: Path) -> Iterator[BinaryIO]:
    """The .part of a file, for this process alone. Raises OSError if another one has it for WRITING_SECONDS."""
    deadline = time.monotonic() + WRITING_SECONDS
    while True:
        try:
            opened = _opened(part, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW)
        except _Irregular:  # a link or a FIFO by that name, which is ours
            part.unlink()
            continue
        with opened as file:
            if try_lock(file):
                if is_still(file, part):
                    yield file
                    return
            elif time.monotonic() > deadline:
                raise OSError(errno.EBUSY, "another process is writing it", str(part))
        time.sleep(0.02)
