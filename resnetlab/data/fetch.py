"""Fetch a data set: download its files, check them, unpack them; finished data is left alone."""

from __future__ import annotations

import contextlib
import gzip
import os
import pkgutil
import shutil
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from resnetlab.data.download import TIMEOUT, WAITS, Progress, checksum, download, writing
from resnetlab.data.open import PUBLISHED, READERS, File, Published
from resnetlab.errors import UserError, check_choice
from resnetlab.storage import flush_to_disk, try_lock


def fetch(
    name: str,
    dest: Path,
    *,
    sources: Mapping[str, Published] = PUBLISHED,
    timeout: float = TIMEOUT,
    waits: tuple[float, ...] = WAITS,
) -> Iterator[Progress]:
    """Bring the data set `name` into the folder `dest`, yielding progress; what is there already is checked only.

    An archive stays beside what was unpacked from it, and may be deleted. `timeout` is the seconds without a byte
    after which a connection counts as lost, `waits` the seconds before each further try.

    Raises UserError for an unknown name, no network, a file that is not the published one, a full disk.
    """
    check_choice("name", name, sources)
    with writing(dest):
        dest.mkdir(parents=True, exist_ok=True)
    with _locked(dest):
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
                _check_file(name, path, file)
                there = not file.unpacks_to
            else:
                before = received
                for progress in download(file, dest, sources[name].places, timeout=timeout, waits=waits):
                    received = before + progress.received
                    yield Progress(file.name, progress.done, file.size, received, progress.words)
            if file.unpacks_to and not there:
                yield Progress(file.name, file.size, file.size, received, "unpacking")
                _unpack(name, path, dest / file.unpacks_to)
            yield Progress(file.name, file.size, file.size, received, "is there already" if there else "finished")


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder: two processes never write one .part. Raises UserError if another one has it."""
    with writing(folder):
        handle = os.open(folder, os.O_RDONLY)
    try:
        if not try_lock(handle):
            raise UserError(f"{folder}: another process is downloading to this folder; wait for it or stop it.")
        yield
    finally:
        os.close(handle)


def _check_file(name: str, path: Path, file: File) -> None:
    """Raise UserError unless the file that is there is the published one."""
    try:
        found = checksum(path)
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}).") from error
    if found != file.sha256:
        raise UserError(
            f"{path}: exists, but is not the published file of {name}: its SHA-256 should be {file.sha256}, but is "
            f"{found}. Move it away or choose another folder, then repeat the command."
        )


def _lacking(name: str, folder: Path) -> list[str]:
    """The files that are missing from what was unpacked."""
    return list(pkgutil.resolve_name(READERS[name].missing)(name, folder))


def _unpack(name: str, archive: Path, folder: Path) -> None:
    """Unpack the folder of that name from a .tar.gz, beside the archive; it appears whole or not at all.

    Raises UserError for a damaged archive, and for one with anything but plain files and folders inside it.
    """
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
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
    # tarfile's own filters came with Python 3.11.4, and let links through that these archives have no use for.
    name = PurePosixPath(member.name)
    if not (member.isfile() or member.isdir()) or name.is_absolute() or ".." in name.parts:
        raise UserError(f"{archive}: rejected, {member.name!r} in it is not a plain file inside the archive's folder.")
    target = folder / name
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    content = tar.extractfile(member)
    assert content is not None  # a plain file has content
    with content, target.open("wb") as file:
        shutil.copyfileobj(content, file, 1 << 20)
        flush_to_disk(file)  # so that the folder's name never stands for files that a power cut emptied
