"""Fetches a data set: downloads its files (resuming, retrying, from mirrors), checks and unpacks them."""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import http.client
import os
import pkgutil
import re
import shutil
import socket
import ssl
import tarfile
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import resnetlab
from resnetlab.data.open import PUBLISHED, READERS, File, Published
from resnetlab.errors import UserError, check_choice, shown
from resnetlab.storage import disk_errors, flush_to_disk, try_lock

HEADERS = {"User-Agent": f"resnetlab/{resnetlab.__version__}", "Accept-Encoding": "identity"}
CHUNK = 1 << 16
TIMEOUT = 30.0  # seconds without a byte
WAITS = (1.0, 2.0, 4.0, 8.0)  # seconds before each retry after the connection is lost
MOMENT = 0.2  # seconds between checks whether another process is done
_MAY_PASS = (408, 425, 429, 500, 502, 503, 504)  # answers of a server that are worth a retry
_UNREACHABLE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ECONNREFUSED)


@dataclass(frozen=True)
class DownloadProgress:
    """The progress of a file: bytes so far and in all (0: not known yet), and words if something has happened.

    `received` counts the bytes that came over the network.
    """

    file: str
    done: int
    size: int
    received: int = 0
    words: str = ""


def fetch(
    name: str,
    dest: Path,
    *,
    sources: Mapping[str, Published] = PUBLISHED,
    timeout: float = TIMEOUT,
    waits: tuple[float, ...] = WAITS,
) -> Iterator[DownloadProgress]:
    """Fetch the data set `name` into the folder `dest`, yielding progress; files that are there already are checked.

    An archive is kept beside its unpacked folder, and may be deleted. `timeout` is the number of seconds without a byte
    after which a connection counts as lost, `waits` the seconds before each retry.

    Raises UserError for an unknown name, no network, a file that is not the published one, or a full disk.
    """
    check_choice("name", name, sources)
    with writing(dest):
        dest.mkdir(parents=True, exist_ok=True)
    with held(dest):
        received = 0
        for file in sources[name].files:
            path, there = dest / file.name, False
            if file.unpacks_to and (dest / file.unpacks_to).exists():
                if missing := _lacking(name, dest / file.unpacks_to):
                    raise UserError(
                        f"{dest / file.unpacks_to}: exists, but lacks {', '.join(missing)}. "
                        "Move it away, then repeat the command."
                    )
                there = True
            elif path.exists():
                check_file(name, path, file)
                there = not file.unpacks_to
            else:
                before = received
                for progress in download(file, dest, sources[name].places, timeout=timeout, waits=waits):
                    received = before + progress.received
                    yield DownloadProgress(file.name, progress.done, file.size, received, progress.words)
            if file.unpacks_to and not there:
                yield DownloadProgress(file.name, file.size, file.size, received, "unpacking")
                _unpack(name, path, dest / file.unpacks_to)
            yield DownloadProgress(
                file.name, file.size, file.size, received, "already complete" if there else "finished"
            )


@contextlib.contextmanager
def held(folder: Path, *, waits: bool = False) -> Iterator[None]:
    """Lock the folder, so that two processes never write the same .part.

    If another process has it, waits for that process or raises UserError.
    """
    with writing(folder):
        handle = os.open(folder, os.O_RDONLY)
    try:
        while not try_lock(handle):
            if not waits:
                raise UserError(f"{folder}: another process is downloading to this folder; wait for it or stop it.")
            time.sleep(MOMENT)
        yield
    finally:
        os.close(handle)


def check_file(name: str, path: Path, file: File) -> None:
    """Raise UserError unless the file that is there is the published one."""
    try:
        found = checksum(path)
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}).") from error
    if not found.startswith(file.sha256):
        raise UserError(
            f"{path}: exists, but is not the published file of {name}: its SHA-256 should {file.hash_in_words}, but is "
            f"{found}. Move it away or choose another folder, then repeat the command."
        )


def _lacking(name: str, folder: Path) -> list[str]:
    return list(pkgutil.resolve_name(READERS[name].missing)(name, folder))


def _unpack(name: str, archive: Path, folder: Path) -> None:
    """Unpack the folder of that name from a .tar.gz, beside the archive; it appears complete or not at all.

    Raises UserError for a damaged archive, and for one with anything but plain files and folders.
    """
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # left by a process that was killed
    try:
        with writing(part):
            part.mkdir()
            try:
                with tarfile.open(archive, "r:gz") as tar:
                    for member in tar:
                        _write_member(tar, member, part, archive)
            except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise UserError(f"{archive}: damaged ({error}). Delete it, then repeat the command.") from error
            if missing := _lacking(name, part / folder.name):
                names = ", ".join(f"{folder.name}/{each}" for each in missing)
                raise UserError(f"{archive}: lacks {names}. Delete it, then repeat the command.")
            (part / folder.name).replace(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write_member(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, archive: Path) -> None:
    # tarfile's own filters need Python 3.11.4, and allow links, which these archives don't have.
    name = PurePosixPath(member.name)
    if not (member.isfile() or member.isdir()) or name.is_absolute() or ".." in name.parts:
        raise UserError(
            f"{archive}: rejected, {shown(member.name)} in it is not a plain file inside the archive's folder."
        )
    target = folder / name
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    content = tar.extractfile(member)
    assert content is not None  # a plain file has content
    with content, target.open("wb") as file:
        shutil.copyfileobj(content, file, 1 << 20)
        flush_to_disk(file)  # so that a power cut can't leave the folder in place with empty files


def download(
    file: File,
    folder: Path,
    places: tuple[str, ...],
    *,
    timeout: float = TIMEOUT,
    waits: tuple[float, ...] = WAITS,
    token: str = "",
) -> Iterator[DownloadProgress]:
    """Download `file` to `folder`, via a .part that a later call resumes.

    `token` is sent as a bearer token to the places, but not to other hosts to which they redirect. Raises UserError if
    no place has the file, if the downloaded file is a different one (its .part is removed), or if the disk is full (its
    .part is kept).
    """
    transfer = _Transfer(file, folder / f"{file.name}.part", timeout, waits, token)
    # A wrong file is fetched once more from the start, from the next place first, in case this place's file is wrong.
    for order in (places, places[1:] + places[:1]):
        yield from transfer.complete(order)
        with writing(transfer.part):
            found = checksum(transfer.part)
            if found.startswith(file.sha256):
                transfer.part.replace(folder / file.name)
                return
            transfer.part.unlink()
        yield transfer.progress("its checksum is wrong")
    raise UserError(
        f"{file.name}: the download is not the published file: its SHA-256 should {file.hash_in_words}, but is "
        f"{found}. Try again later, {_or_by_hand(file, folder, places)}"
    )


def checksum(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def writing(path: Path) -> AbstractContextManager[None]:
    """Turn a failed write (full disk, no permission) into a UserError that says how to continue."""
    return disk_errors(
        path,
        ". Make room or choose another folder; the partial download is kept, and the same command resumes it.",
    )


def _or_by_hand(file: File, folder: Path, places: tuple[str, ...]) -> str:
    return f"or download {places[0]}{file.name} by hand, put it into {folder} and repeat the command."


class _Failed(Exception):
    """This place does not have the file for us."""


class _Lost(Exception):
    """The connection is lost; it may work again."""


class _Transfer:
    """The state of a download: its .part, and what is known about the current server."""

    def __init__(self, file: File, part: Path, timeout: float, waits: tuple[float, ...], token: str):
        self.file, self.part, self.timeout, self.waits, self.token = file, part, timeout, waits, token
        self.size = file.size  # 0 until a server has stated it
        self.received = 0
        self.etag: str | None = None
        self.ranges = True

    def progress(self, words: str = "") -> DownloadProgress:
        return DownloadProgress(self.file.name, self.have(), self.size, self.received, words)

    def have(self) -> int:
        """How many bytes the .part holds."""
        return self.part.stat().st_size if self.part.exists() else 0

    def complete(self, places: tuple[str, ...]) -> Iterator[DownloadProgress]:
        """Complete the .part from the first place that can. Raises UserError if none can."""
        troubles = []
        for place in places:
            self.etag, self.ranges = None, True
            host = urlsplit(place).netloc
            try:
                yield from self._from(place + self.file.name)
                return
            except _Failed as error:
                troubles.append(f"{host} {error}")
                if place != places[-1]:  # else the error says it
                    yield self.progress(troubles[-1])
        total = f" of {self.size:,}" if self.size else ""
        kept = f" {self.have():,}{total} bytes are kept in {self.part}." if self.have() else ""
        raise UserError(
            f"{self.file.name} can't be downloaded: {'; '.join(troubles)}.{kept} Check the network and repeat the "
            f"command to resume, {_or_by_hand(self.file, self.part.parent, places)}"
        )

    def _from(self, url: str) -> Iterator[DownloadProgress]:
        """Complete the .part from one place; the count of retries starts again whenever the .part has grown."""
        farthest, tries = self.have(), 0
        while True:
            try:
                yield from self._request(url)
                return
            except _Lost as error:
                if self.have() > farthest:
                    farthest, tries = self.have(), 0
                if tries == len(self.waits):
                    raise _Failed(str(error)) from error
                yield self.progress(f"{urlsplit(url).netloc} {error}; retrying in {self.waits[tries]:g} s")
                time.sleep(self.waits[tries])
                tries += 1

    def _request(self, url: str) -> Iterator[DownloadProgress]:
        """One request, for what is missing."""
        have = self.have()
        if self.size and have == self.size:
            return
        headers = dict(HEADERS)
        if 0 < have < (self.size or have + 1) and self.ranges:
            headers["Range"] = f"bytes={have}-"
            if self.etag:
                headers["If-Range"] = self.etag
        request = Request(url, headers=headers)
        if self.token:
            request.add_unredirected_header("Authorization", f"Bearer {self.token}")
        with self._open(request) as response, writing(self.part):
            start = self._start(response, have)
            with self.part.open("ab" if start else "wb") as part:
                done = start
                while done < self.size:  # never more than the file's size, whatever is sent
                    chunk = self._read(response, self.size - done)
                    part.write(chunk)
                    done += len(chunk)
                    self.received += len(chunk)
                    yield DownloadProgress(self.file.name, done, self.size, self.received)
                flush_to_disk(part)

    def _open(self, request: Request) -> http.client.HTTPResponse:
        try:
            return urlopen(request, timeout=self.timeout)
        except HTTPError as error:
            error.close()
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and self.ranges:
                self.ranges = False
                raise _Lost("can't resume where the download stopped") from error
            raise (_Lost if error.code in _MAY_PASS else _Failed)(f"answers {error.code} {error.reason}") from error
        except (OSError, http.client.HTTPException) as error:
            raise self._trouble(error) from error

    def _start(self, response: http.client.HTTPResponse, have: int) -> int:
        """Where the answer starts: at `have`, or at 0 if the server sends everything again."""
        start, total = 0, response.headers.get("Content-Length", "")
        if response.status == http.HTTPStatus.PARTIAL_CONTENT:
            found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
            if not found or int(found[1]) != have:
                self.ranges = False
                raise _Lost("sent a different part than requested")
            start, total = have, found[2]
        if not self.size and not total.isdigit():
            raise _Failed("does not say how large the file is")
        self.size = self.size or int(total)
        if total.isdigit() and int(total) != self.size:
            raise _Failed(f"has a different file, of {int(total):,} bytes instead of {self.size:,}")
        etag = response.headers.get("ETag", "")
        self.etag = etag if etag.startswith('"') else None  # a weak one does not promise the same bytes
        return start

    def _read(self, response: http.client.HTTPResponse, most: int) -> bytes:
        try:
            chunk = response.read1(min(CHUNK, most))
        except (OSError, http.client.HTTPException) as error:
            raise self._trouble(error) from error
        if not chunk:
            raise _Lost("closed the connection")
        return chunk

    def _trouble(self, error: Exception) -> Exception:
        """The exception for a failed connection: _Lost if a retry may help, else _Failed."""
        reason = error.reason if isinstance(error, URLError) else error
        if isinstance(reason, TimeoutError):
            return _Lost(f"sent nothing for {self.timeout:g} s")
        words = str(getattr(reason, "strerror", None) or reason or type(reason).__name__)
        if isinstance(reason, ssl.SSLCertVerificationError):
            return _Failed(f"has an invalid certificate ({reason.verify_message})")
        if isinstance(reason, socket.gaierror) or getattr(reason, "errno", None) in _UNREACHABLE:
            # Before the first byte there is likely no network at all, so don't retry.
            return (_Lost if self.received else _Failed)(f"can't be reached ({words})")
        return _Lost(f"lost the connection ({words})")
