"""Files that are whole: atomic writing, locks, JSON objects, and what a failed write says."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from resnetlab.errors import UserError

_NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


@contextlib.contextmanager
def locked(folder: Path, patience: float = 0.0) -> Iterator[None]:
    """Hold the run: two processes never write one folder. Raises UserError if another one has it.

    patience: seconds to wait for it, where children of a killed process may hold it a little longer.
    """
    deadline = time.monotonic() + patience
    with disk_errors(folder):
        file = os.open(folder / "lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
    _locks.add(file)
    try:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() < deadline:
                    time.sleep(0.1)
                    continue
                raise UserError(f"{folder}: another process is training this run; wait for it or stop it.") from error
            except OSError:
                pass  # a file system that can't lock
            break
        yield
    finally:
        if file in _locks:
            _locks.remove(file)
            os.close(file)


def _leave_locks() -> None:
    """In a forked process, e.g. one that decodes images: it must not hold the run when its parent was killed."""
    for file in _locks:
        os.close(file)
    _locks.clear()


_locks: set[int] = set()  # files by their descriptors
os.register_at_fork(after_in_child=_leave_locks)


@contextlib.contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn a failed write (disk full, no permission) into one line that says what is kept."""
    try:
        yield
    except OSError as error:
        trouble = f"{folder}: can't write ({error.strerror or error})"
        if error.errno not in _NO_ROOM:
            raise UserError(f"{trouble}; choose another place.") from error
        raise UserError(
            f"{trouble}; what was saved before is whole. Make room or choose another place, then give the same "
            "command to go on."
        ) from error


def disk_is_full(error: BaseException | None) -> bool:
    """Whether an error, or what led to it, is that a disk has no room: no other run can be written then either."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            return True
        error = error.__cause__ or error.__context__
    return False


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader finds the old content or the new, whole, even after a power cut."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises UserError, naming the file, if there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged, not JSON ({error}).") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: damaged, it should hold a JSON object.")
    return value
