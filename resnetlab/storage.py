"""Files that are whole: bounded reading, atomic writing, locks, JSON, the cache, what a failed read or write says.

What is read may be a link to a regular file, as data stores make them. What is written is never written through a
link: a new file takes the link's place, and a file that is written in place (a lock, metrics) must not be one.
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

from resnetlab.errors import UserError
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
LOCK = "lock"  # the file of a folder that is held
WRITING_SECONDS = 60  # that another process may take to write a file, before the one who waits gives up
_NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


class Damaged(UserError):
    """A file that can't be read, or does not hold what it should: which, what is wrong, and what to do."""

    def __init__(self, path: Path, what: str, advice: str = ""):
        self.path, self.what = path, what
        super().__init__(f"{path}: {what}" + (f"; {advice}" if advice else "") + ".")


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
    """The content of a regular file. Raises OSError, and never waits, for anything else, as for /dev/zero."""
    with _opened(path, os.O_RDONLY) as file:
        return file.read()


def read_json(path: Path, kind: Any = dict[str, Any], advice: str = "") -> dict[str, Any]:
    """Read a JSON object of a type (see `schema`). Raises Damaged, which gives the advice, for anything else."""
    return parsed_json(path, read_regular(path, MOST_JSON, advice), kind, advice)


def parsed_json(path: Path, content: bytes, kind: Any = dict[str, Any], advice: str = "", where: str = "") -> Any:
    """What the content of a JSON file, or a line of it (`where`), says. Raises Damaged as `read_json` does."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Damaged(path, f"damaged, {where}not JSON ({error})", advice) from error
    if wrong := trouble(value, kind):
        raise Damaged(path, f"damaged, {where}{wrong}", advice)
    return value


def check_regular(path: Path) -> None:
    """Raise Damaged unless there is a regular file; what it holds is not read."""
    try:
        if not stat.S_ISREG(mode := path.stat().st_mode):
            raise _Irregular(path, mode)
    except OSError as error:
        raise Damaged(path, _reason(error)) from error


def is_there(path: Path) -> bool:
    """Whether there is anything by that name, a link that leads nowhere included."""
    return os.path.lexists(path)


def check_absent(path: Path, advice: str = "choose another name") -> None:
    """Raise UserError, which gives the advice, if a file that is to be made is there already."""
    if is_there(path):
        raise UserError(f"{path}: already exists; remove it, or {advice}.")


def cache_folder() -> Path:
    """Where what can be made again is kept: $XDG_CACHE_HOME/resnetlab, or ~/.cache/resnetlab.

    A relative $XDG_CACHE_HOME does not count (XDG Base Directory Specification); for a user without a home folder the
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
    """A file of ours to write on at its end, unbuffered; it is made if need be.

    Raises OSError for a link and what is no regular file.
    """
    return _opened(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, buffering=0)


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with all that is in it, if it is there. Raises OSError if it can't."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


class _Irregular(OSError):
    """There is something else in place of a regular file."""

    def __init__(self, path: Path, mode: int):
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        super().__init__(errno.EINVAL, f"it is {kind}, not a regular file", str(path))


def _opened(path: Path, flags: int, buffering: int = -1) -> BinaryIO:
    """A regular file, opened without ever waiting. Raises OSError for anything else."""
    try:
        # Without O_NONBLOCK the opening of a FIFO waits for its other end; of regular files it changes nothing.
        descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if odd := _odd(path, flags):
            raise odd from error
        raise
    if not stat.S_ISREG(mode := os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _Irregular(path, mode)
    return open(descriptor, "wb" if flags & os.O_ACCMODE else "rb", buffering=buffering)


def _odd(path: Path, flags: int) -> _Irregular | None:
    """What there is in place of a regular file, where that is why it can't be opened."""
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

    Where the file system can't lock, e.g. some NFS, it counts as locked.
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
    """Hold the run: two processes never write one folder. Raises UserError if another one has it.

    patience: seconds to wait for it, where children of a killed process may hold it a little longer.
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
                raise UserError(f"{folder}: another process is training this run; wait for it or stop it.")
            time.sleep(0.1)
        yield
    finally:
        if file in _locks:
            _locks.remove(file)
            file.close()


def is_locked(folder: Path) -> bool:
    """Whether a process holds the folder now; where files can't be locked, no. Raises Damaged for an odd lock.

    The lock is tried for reading, so two who ask do not see each other; one who starts to train within those
    microseconds would.
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
    """In a forked process, e.g. one that decodes images: it must not hold the run when its parent was killed."""
    for file in _locks:
        file.close()
    _locks.clear()


_locks: set[BinaryIO] = set()
os.register_at_fork(after_in_child=_leave_locks)


@contextlib.contextmanager
def disk_errors(path: Path, outcome: str = "") -> Iterator[None]:
    """Turn a failed write (disk full, no permission) into one line that says what is kept, or the `outcome` given."""
    try:
        yield
    except OSError as error:
        trouble = f"{path}: can't write ({error.strerror or error})"
        if outcome:
            raise UserError(f"{trouble}{outcome}") from error
        if error.errno not in _NO_ROOM:
            raise UserError(f"{trouble}; choose another place.") from error
        raise UserError(
            f"{trouble}; what was saved before is intact. Make room or choose another place, then repeat the "
            "command to resume."
        ) from error


def disk_is_full(error: BaseException | None) -> bool:
    """Whether an error, or what led to it, is that a disk has no room: no other run can be written then either."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            return True
        error = error.__cause__ or error.__context__
    return False


def write_atomically(path: Path, content: bytes, *, new: bool = False) -> None:
    """Write a file so that a reader finds the old content or the new, whole, even after a power cut.

    Of two processes that write one file the second waits for the first. Raises OSError; with `new` also where the file
    is there already by then, which is left as it is.
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


def write_new(path: Path, content: bytes) -> None:
    """Write a file that was not there, as `write_atomically` does. Raises UserError where it can't be written."""
    try:
        write_atomically(path, content, new=True)
    except OSError as error:
        raise UserError(f"{path}: can't be written ({error.strerror}).") from error


def keep_if_possible(path: Path, content: bytes) -> bool:
    """Write what can be made again, in a folder that is made if need be; False where that can't be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    except OSError:
        return False
    return True


def flush_to_disk(file: BinaryIO) -> None:
    """What was written to the file outlasts a power cut from here on, so that its name may stand for it."""
    file.flush()
    os.fsync(file.fileno())


def replace_folder(target: Path, files: dict[str, bytes], *, keep_old: bool) -> None:
    """Write a folder of these files beside the old one, which it replaces when it is whole.

    The one before becomes TARGET.old, and stays if `keep_old`. Raises OSError with both whole if it can't.
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
    """Where the folder lies that `target` has replaced."""
    return target.with_name(target.name + ".old")


def whole_folder(target: Path) -> Path:
    """The folder, or where a kill between the two renames of `replace_folder` left it."""
    return older(target) if not target.exists() and older(target).exists() else target


def _is_still(file: BinaryIO, part: Path) -> bool:
    """Whether an open file still has that name: the one who held it may have moved it to its place."""
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
                if _is_still(file, part):
                    yield file
                    return
            elif time.monotonic() > deadline:
                raise OSError(errno.EBUSY, "another process is writing it", str(part))
        time.sleep(0.02)
