"""A full disk, a read-only one, no permission: one line that says so, nothing half, and then it goes on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from commands import SUBJECTS
from conftest import Prepared, Promised
from injecting import Fault, as_anybody, mounted, run, small_files

pytestmark = pytest.mark.faults
LEFT = 4096
REASONS = ("No space left on device", "File too large", "Read-only file system", "Permission denied")


@contextmanager
def full(folder: Path) -> Iterator[tuple[Path, Fault, Callable[[], object]]]:
    """A disk with LEFT bytes left, and what makes room; where none can be mounted, files can't be larger than that."""
    try:
        with mounted(folder) as _:
            filler = folder / "filler"
            with filler.open("wb") as file:
                left = os.statvfs(folder)
                file.write(bytes(left.f_bavail * left.f_frsize - LEFT))
            (folder / "here").mkdir()
            yield folder / "here", lambda: None, filler.unlink
    except PermissionError:
        folder = folder.with_name("limited")
        folder.mkdir()
        yield folder, small_files, lambda: None


@contextmanager
def read_only(folder: Path) -> Iterator[tuple[Path, Fault, Callable[[], object]]]:
    """A disk that is mounted read-only, and what mounts it otherwise."""
    try:
        with mounted(folder) as remount:
            (folder / "here").mkdir()
            remount("ro")
            yield folder / "here", lambda: None, lambda: remount("rw")
    except PermissionError as error:
        pytest.skip(f"no disk can be mounted here: {error}")


@contextmanager
def forbidden(folder: Path) -> Iterator[tuple[Path, Fault, Callable[[], object]]]:
    """A folder without the permission to write into it, for root too; and what gives it."""
    folder.mkdir()
    folder.chmod(0o555)
    yield folder, as_anybody, lambda: folder.chmod(0o755)


PLACES: dict[str, Callable[[Path], AbstractContextManager[tuple[Path, Fault, Callable[[], object]]]]] = {
    "full disk": full,
    "read-only disk": read_only,
    "no permission": forbidden,
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", SUBJECTS)
def test_a_place_that_takes_nothing(
    name: str, place: str, source: Path, after_install: Prepared, tmp_path: Path, promised: Promised
) -> None:
    subject = SUBJECTS[name]
    arguments = subject.arguments(source)
    promise = "exit code 2 and one line with place and reason; nothing half; with room the same command completes"
    with promised(place, name, promise) as row, PLACES[place](tmp_path / "disk") as (folder, fault, mend):
        refused = run(folder, *arguments, fault=after_install(fault)).refused()
        assert any(reason in refused for reason in REASONS), refused
        subject.check(folder)
        if not (place == "full disk" and fault is small_files):
            assert not [p for p in folder.rglob("*.part") if name != "data fetch"], "a part is left"
        mend()
        run(folder, *arguments, fault=after_install(lambda: None)).went_well()
        subject.check(folder)
        row.seen = refused.replace(f"{tmp_path}/", "").replace(f"{source.parent}/", "")
