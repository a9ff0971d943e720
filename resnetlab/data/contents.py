"""Hashes of images whose file size does not depend on their content; cached, so that no file is read twice for it."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator

from resnetlab.data.source import Source
from resnetlab.storage import cache_folder

# Formats that are mostly stored uncompressed, so that other pixels don't change the size.
SIZE_SAYS_NOTHING = frozenset({"bmp", "ppm", "pgm", "pbm", "tif", "tiff"})
# A file written less than this many seconds ago can change again without a new modification time, since the clock of
# some file systems ticks slowly: its hash is not cached.
SETTLED = 2.5
AT_ONCE = 1000  # files from one write to the cache to the next
SAY_FROM = 1e9  # bytes to read from which on a line says so

_log = logging.getLogger(__name__)


def content_marks(source: Source, rows: Iterable[int]) -> dict[int, str]:
    """A hash of the whole content of each image with a format in SIZE_SAYS_NOTHING, by its row.

    Unreadable images have one too; training reports them.
    """
    names, every = source.names, source.names.content.lower()
    if not any(b"." + ending.encode() in every for ending in SIZE_SAYS_NOTHING):
        return {}  # quickly, for a million JPEGs
    wanted = [row for row in rows if names[row].rpartition(".")[2].lower() in SIZE_SAYS_NOTHING]
    if not wanted:
        return {}
    stamps = {row: _stamp(source, row) for row in wanted}
    with _kept() as kept:
        marks = {row: mark for row, stamp in stamps.items() if stamp and (mark := _look_up(kept, stamp))}
        missing = [row for row in wanted if row not in marks]
        if source.sizes[missing].sum() > SAY_FROM:
            what = f"{len(missing):,} images of formats without compression"
            _log.warning("%s: reading %s once, since their sizes don't show changes", source.place(missing[0]), what)
        for i in range(0, len(missing), AT_ONCE):
            read = {row: _mark(source, row) for row in missing[i : i + AT_ONCE]}
            marks |= {row: mark or "unreadable" for row, mark in read.items()}
            _keep(kept, [(stamp, mark) for row, mark in read.items() if mark and (stamp := stamps[row])])
    return marks


def _mark(source: Source, row: int) -> str:
    try:
        return hashlib.sha256(source.read(row)).hexdigest()[:32]
    except OSError:
        return ""


def _stamp(source: Source, row: int) -> bytes | None:
    """A value that changes whenever the image may have changed: from its name, and its file's size and times.

    None if these are not reliable.
    """
    try:
        path = source.file(row)
        status = os.stat(path) if path else None
    except OSError:
        return None
    if not status or time.time() - max(status.st_mtime, status.st_ctime) < SETTLED:
        return None
    text = f"{os.path.abspath(str(path))}\0{source.names[row]}\0{status.st_size}\0{status.st_mtime_ns}"
    return hashlib.sha256(os.fsencode(f"{text}\0{status.st_ctime_ns}")).digest()[:16]


@contextlib.contextmanager
def _kept() -> Iterator[sqlite3.Connection | None]:
    """The cache, which outlives the process; None if it can't be written."""
    connection = None
    with contextlib.suppress(OSError, sqlite3.Error):
        cache_folder().mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(cache_folder() / "contents.sqlite")
        connection.execute("CREATE TABLE IF NOT EXISTS marks (stamp BLOB PRIMARY KEY, mark TEXT) WITHOUT ROWID")
    try:
        yield connection
    finally:
        if connection:
            connection.close()


def _look_up(kept: sqlite3.Connection | None, stamp: bytes) -> str | None:
    with contextlib.suppress(sqlite3.Error):
        found = kept.execute("SELECT mark FROM marks WHERE stamp = ?", (stamp,)).fetchone() if kept else None
        return str(found[0]) if found else None
    return None


def _keep(kept: sqlite3.Connection | None, marks: list[tuple[bytes, str]]) -> None:
    if kept and marks:
        with contextlib.suppress(sqlite3.Error), kept:
            kept.executemany("INSERT OR REPLACE INTO marks VALUES (?, ?)", marks)
