"""Finds the images in a folder, with the same rules for all commands on what to search, ignore and leave out."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

from resnetlab.data.own import what_it_wrote
from resnetlab.errors import UserError, counted, shown, some

# Of the formats that Pillow opens, those in which people keep photographs and drawings.
EXTENSIONS = frozenset(
    {"jpg", "jpeg", "jpe", "jfif", "png", "bmp", "gif", "webp", "tif", "tiff", "ppm", "pgm", "pbm", "avif"}
)
SPLIT = "resnetlab-split.json"  # our own file, which names the test images of a folder; ignored silently
# Files and folders that programs and disks leave among images, besides hidden ones; some of them are thumbnails.
IGNORED = frozenset(
    {
        SPLIT,
        *("thumbs.db", "desktop.ini", "__macosx", "@eadir", "__pycache__"),
        *("lost+found", "$recycle.bin", "#recycle", "@recycle", "system volume information"),
    }
)

_log = logging.getLogger(__name__)


class NoImages(UserError):
    """A folder without images."""


def folders_in(folder: Path) -> list[str]:
    """The names of the folders in a folder, in the order of code points; links to folders count, ignored ones don't.

    Raises UserError if it can't be read.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(e.name for e in entries if not is_ignored(e.name) and os.path.isdir(e.path))
    except OSError as error:
        raise unreadable(folder, error) from error


def is_ignored(name: str) -> bool:
    """Whether a file or folder is hidden, or left by a program that shows or packs folders."""
    return name.startswith(".") or name.lower() in IGNORED


def is_image(name: str) -> bool:
    """Whether a file's name ends as an image's does."""
    return os.path.splitext(name)[1][1:].lower() in EXTENSIONS


Identity = tuple[int, int]  # of a folder, however many links lead to it: its device and inode


def identity(folder: str | Path) -> Identity:
    """A folder's identity. Raises OSError."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def images_below(
    folder: Path, others: list[str], elsewhere: dict[Identity, str] | None = None
) -> list[tuple[str, int]]:
    """The images in a folder and its subfolders, as (path in it, bytes), sorted; other files are added to `others`.

    Each folder is searched once, however many links lead to it. elsewhere: folders that belong to something else, with
    their paths; those that are searched are added. Raises UserError for one of them, and for what can't be read.
    """
    found: list[tuple[str, int]] = []
    seen: dict[Identity, str] = {}
    waiting = [""]
    for inside in waiting:  # grows
        place = os.path.join(folder, inside)
        try:
            which = identity(place)
            if which in seen:
                continue
            if elsewhere and (other := elsewhere.get(which)) and os.path.realpath(other) == os.path.realpath(place):
                links = [path for path in (place.rstrip("/"), other) if os.path.realpath(path) != os.path.abspath(path)]
                link, to = (other, place.rstrip("/")) if links == [other] else (place.rstrip("/"), other)
                raise UserError(f"{link}: leads to {to}, whose images would be of two classes; remove the link.")
            seen[which] = place.rstrip("/")
            if inside and (ours := what_it_wrote(place, is_image)):
                _log.warning("%s: skipped, %s that resnetlab wrote", place.rstrip("/"), ours)
                continue
            with os.scandir(place) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    if is_ignored(entry.name):
                        continue
                    mode, size = _mode_and_size(entry)
                    path = f"{inside}{entry.name}"
                    if stat.S_ISDIR(mode):
                        waiting.append(path + "/")
                    elif stat.S_ISREG(mode) and is_image(entry.name):
                        found.append((path, size))
                    else:
                        others.append(path)
        except OSError as error:
            raise unreadable(Path(place), error) from error
    if elsewhere is not None:
        elsewhere |= seen
    return sorted(found)


def images_in(folder: Path) -> list[Path]:
    """The images in a folder and its subfolders, in the order of their paths; a warning names files left out.

    Raises NoImages if there are none, and UserError for a folder that can't be read.
    """
    others: list[str] = []
    found = sorted(folder / path for path, _ in images_below(folder, others))
    if not found:
        raise NoImages(no_images(folder, others))
    tell_left_out(folder, others)
    return found


def tell_left_out(folder: Path, others: list[str]) -> None:
    if others:
        _log.warning("%s: %s skipped, not images: %s", folder, counted(len(others), "file"), some(map(shown, others)))


def _mode_and_size(entry: os.DirEntry[str]) -> tuple[int, int]:
    try:
        status = entry.stat()
    except OSError:
        return stat.S_IFREG, 0  # a broken link counts as a file, so that reading it reports it
    return status.st_mode, status.st_size


def no_images(folder: Path, others: list[str]) -> str:
    nothing = "only empty folders and hidden files" if os.listdir(folder) else "it is empty"
    found = f"{counted(len(others), 'file')} of other kinds: {some(map(shown, others))}" if others else nothing
    return f"{folder}: no images in it, {found}; images are recognised by extension: {' '.join(sorted(EXTENSIONS))}."


def unreadable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path}: can't be read ({error.strerror}); make it readable or move it away.")
