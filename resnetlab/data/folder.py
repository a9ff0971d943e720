"""A folder of images, a folder to each class: `train` and `val`, or one of classes, whose split is written down."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import stat
from array import array
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from resnetlab.data.files import Files, LooseFiles, Names
from resnetlab.data.images import Data, Purpose
from resnetlab.data.own import what_it_wrote
from resnetlab.errors import UserError, shown

# Of the formats that Pillow opens, those in which people keep photographs and drawings.
EXTENSIONS = frozenset(
    {"jpg", "jpeg", "jpe", "jfif", "png", "bmp", "gif", "webp", "tif", "tiff", "ppm", "pgm", "pbm", "avif"}
)
# What programs and disks leave in folders of images, beside all that starts with a dot; some of it are thumbnails.
IGNORED = frozenset(
    {
        *("thumbs.db", "desktop.ini", "__macosx", "@eadir", "__pycache__"),
        *("lost+found", "$recycle.bin", "#recycle", "@recycle", "system volume information"),
    }
)
TRAIN, TEST = "train", ("val", "valid", "validation", "test")
SPLIT_WORDS = frozenset({TRAIN, *TEST, "training", "testing", "dev", "eval"})
SPLIT, SEED, SHARE = "resnetlab-split.json", 0, 0.2
# Which part is tested, in words, where neither a folder nor a file says it.
ALL, DRAWN = f"neither {TRAIN} nor {SPLIT} is there", "drawn, a fifth of each class"
LAYOUT = "a folder of images for each class is needed, DIR/train/CLASS/* and DIR/val/CLASS/*, or DIR/CLASS/*"

_log = logging.getLogger(__name__)


def read_folder(kind: str, folder: Path, purpose: Purpose = "train", trained_on: Collection[str] = frozenset()) -> Data:
    """Read "folder": `train` and one of `val`, `valid`, `validation`, `test`; or folders of classes, which are split.

    The classes are the names of the folders, in the order of code points. `purpose` and `trained_on` are those of
    `open_data`: unless to train, `val` or the like may stand alone; to evaluate, folders of classes without a split
    are tested whole. Raises UserError, naming the folder, for one that is missing or unreadable, another layout, fewer
    than two classes, a class without images, and a damaged `resnetlab-split.json`.
    """
    check_is_folder(folder, LAYOUT)
    inside, least = class_folders(folder), 1 if purpose == "evaluate" else 2
    if folders := class_folders(folder / TRAIN) if TRAIN in inside else []:
        classes = check_classes(folder / TRAIN, folders)
        train = scan(folder / TRAIN, classes)
        test_folder = _test_folder(folder, inside)
        if unknown := [name for name in class_folders(test_folder) if name not in classes]:
            raise UserError(
                f"{test_folder / unknown[0]}: a class that {folder / TRAIN} lacks; the two need the same names."
            )
        test = scan(test_folder, classes, may_lack=True)
        return Data(kind, Files.all_of(train), Files.all_of(test), class_names(classes), test_folder.name)
    if purpose != "train" and any(name in TEST for name in inside) and set(inside) <= SPLIT_WORDS:
        test_folder = _test_folder(folder, inside)
        classes = check_classes(test_folder, class_folders(test_folder), least)
        test = scan(test_folder, classes, may_lack=True)
        return _parts(kind, test, classes, np.ones(len(test.names), dtype=bool), f"{test_folder.name} alone")
    for name in inside:
        if name in TEST and set(inside) <= SPLIT_WORDS:
            raise UserError(f"{folder}: it has {name!r} but no {TRAIN!r} with classes in it; {LAYOUT}.")
        if name.lower() in SPLIT_WORDS and folders_in(folder / name):
            raise UserError(f"{folder / name}: part of a split, by its name; call the two parts 'train' and 'val'.")
        if TRAIN in (below := folders_in(folder / name)) and set(below) & set(TEST):
            raise UserError(
                f"{folder}: not a folder of classes, {name!r} is a data set by itself; give {folder / name}."
            )
    classes = check_classes(folder, inside, least)
    source = scan(folder, classes, may_lack=purpose == "evaluate")
    is_split = (folder / SPLIT).exists()
    if purpose == "evaluate" and trained_on and not is_split:
        with contextlib.suppress(UserError):  # too few images to draw from
            drawn = _parts(kind, source, classes, split(folder, source, classes, "read"), "drawn as in the training")
            if drawn.fingerprint in trained_on:  # and where it was trained, the split could not be written down
                return drawn
    tested = split(folder, source, classes, purpose)
    if is_split or purpose == "train":
        return _parts(kind, source, classes, tested, f"by {SPLIT}")
    if purpose == "evaluate":
        place = folder.absolute()
        sides = place.name == TRAIN and any((place.parent / name).is_dir() for name in TEST)
        return _parts(kind, source, classes, tested, f"the training images of {place.parent.name}" if sides else ALL)
    return replace(_parts(kind, source, classes, tested, DRAWN), drawn=True)


def _parts(kind: str, source: LooseFiles, classes: list[str], tested: np.ndarray, part: str) -> Data:
    """A data set of one source, some or all of whose images are tested on, bool N."""
    train, test = (Files(source, np.flatnonzero(rows)) for rows in (~tested, tested))
    return Data(kind, train, test, class_names(classes), part)


def check_is_folder(folder: Path, needs: str) -> None:
    """Raise UserError unless there is such a folder."""
    if not folder.exists():
        raise UserError(f"{folder}: no such folder; {needs}.")
    if not folder.is_dir():
        raise UserError(f"{folder}: a file, not a folder; {needs}. Unpack it first if it is an archive.")


def folders_in(folder: Path) -> list[str]:
    """The names of the folders in a folder, in the order of code points; links to folders count, ignored ones don't.

    Raises UserError if it can't be read.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(e.name for e in entries if not is_ignored(e.name) and os.path.isdir(e.path))
    except OSError as error:
        raise _unreadable(folder, error) from error


def class_folders(folder: Path) -> list[str]:
    """As `folders_in`, without those that resnetlab wrote (runs, reports, packs): a line says which were left out."""
    found = []
    for name in folders_in(folder):
        if ours := what_it_wrote(folder / name, is_image):
            _log.warning("%s: passed over, %s that resnetlab wrote", folder / name, ours)
        else:
            found.append(name)
    return found


def is_ignored(name: str) -> bool:
    """Whether a file or folder is hidden, or left by a program that shows or packs folders."""
    return name.startswith(".") or name.lower() in IGNORED


def is_image(name: str) -> bool:
    """Whether a file's name ends as an image's does."""
    return os.path.splitext(name)[1][1:].lower() in EXTENSIONS


def class_names(names: Iterable[str]) -> tuple[str, ...]:
    """Names of folders as text that can be printed and stored: a byte that is no UTF-8 becomes its number, escaped."""
    return tuple(os.fsencode(name).decode("utf-8", "backslashreplace") for name in names)


def check_classes(folder: Path, classes: list[str], least: int = 2) -> list[str]:
    """Return the names of its folders, if there are two or more, or `least`. Raises UserError."""
    if not classes:
        with os.scandir(folder) as entries:
            images = sorted(e.name for e in entries if is_image(e.name))
        found = f"images such as {images[0]} lie in it directly" if images else "there are no folders in it"
        raise UserError(f"{folder}: not a folder of classes, {found}; {LAYOUT}.")
    if len(classes) < least:
        raise UserError(
            f"{folder}: one class only, {classes[0]!r}; two at least are needed. {LAYOUT[0].upper()}{LAYOUT[1:]}."
        )
    return classes


def scan(folder: Path, classes: list[str], may_lack: bool = False) -> LooseFiles:
    """Find the images of each class, at any depth in its folder: by class, then by path, both by code points.

    With `may_lack` a class may be without images or without a folder. Raises UserError for one that isn't, and if
    there is no image at all or a folder can't be read.
    """
    labels, sizes, others = array("i"), array("q"), list[str]()

    def names() -> Iterator[str]:
        for label, name in enumerate(classes):
            if may_lack and not (folder / name).exists():
                continue
            left_out = list[str]()
            found = images_below(folder / name, left_out)
            if not found and not may_lack:
                raise UserError(_no_images(folder / name, left_out) + " Put some there, or move the folder away.")
            others.extend(f"{name}/{path}" for path in left_out)
            for path, size in found:
                labels.append(label)
                sizes.append(size)
                yield f"{name}/{path}"

    found = Names(names())
    if not len(found):
        raise UserError(_no_images(folder, others))
    if others:
        _log.warning("%s: %s left out, no images by their names: %s", folder, _files(len(others)), _some(others))
    return LooseFiles(folder, found, np.array(labels, dtype=np.int32), np.array(sizes, dtype=np.int64))


def split(folder: Path, source: LooseFiles, classes: list[str], purpose: Purpose = "train") -> np.ndarray:
    """Which images are tested on, bool N: those that `resnetlab-split.json` names; of a class it lacks, drawn.

    Drawn are 20 % of the class, one at least, with the smallest hashes of their names; to train, they are written down.
    To evaluate, nothing is drawn: of a class that the file lacks nothing was trained on, so all of it is tested.
    So the test images stay what they are when images are added: an added one is trained on. Where the file can't be
    written the draw is the same, as long as the images are. Raises UserError for a damaged file, a class with one
    image, and one that has only test images left.
    """
    written = _read_split(folder / SPLIT)
    known = {name.partition("/")[0] for name in written}  # also by images that are gone
    tested = np.zeros(len(source.names), dtype=bool)
    drawn = []
    starts = np.searchsorted(source.labels, np.arange(len(classes) + 1))
    for name, start, end in zip(classes, starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        count = end - start
        if name in known:
            tested[start:end] = [source.names[row] in written for row in range(start, end)]
        elif purpose == "evaluate":
            tested[start:end] = True
        elif count > 1:
            rows = sorted(range(start, end), key=lambda row: _draw(source.names[row]))
            chosen = rows[: max(1, round(SHARE * count))]
            tested[chosen] = True
            drawn += [source.names[row] for row in chosen]
        else:
            raise UserError(
                f"{folder / name}: one image only; a class needs two, to train on one and test on the other."
            )
        if purpose != "evaluate" and tested[start:end].all():
            raise UserError(
                f"{folder / name}: all its images are test images by {SPLIT}. Add some, or delete {folder / SPLIT} "
                "to have the split drawn anew."
            )
    if not tested.any():
        raise UserError(f"{folder / SPLIT}: no test image that it names is left; delete it to have them drawn anew.")
    if drawn and purpose == "train":
        write_split(folder / SPLIT, sorted({*written, *drawn}))
    return tested


def _draw(name: str) -> bytes:
    return hashlib.sha256(b"test images:%d:" % SEED + os.fsencode(name)).digest()


def _read_split(path: Path) -> frozenset[str]:
    """The names of the test images in the file; none if there is no file. Raises UserError if it is damaged."""
    try:
        written = json.loads(path.read_bytes())
        names = written["test"]
        if (written["seed"], written["share"]) != (SEED, SHARE):
            raise ValueError(f"it is of another seed or share than {SEED} and {SHARE}")
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise ValueError("'test' should be a list of names")
    except FileNotFoundError:
        return frozenset()
    except OSError as error:
        raise _unreadable(path, error) from error
    except KeyError as error:
        raise UserError(f"{path}: damaged, it lacks {error}; {_RESTORE}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: damaged ({error}); {_RESTORE}") from error
    return frozenset(names)


_RESTORE = "restore it, or delete it to have the split drawn anew."


def write_split(path: Path, names: list[str]) -> None:
    """Write down which images are tested on; where that can't be, a line says so."""
    about = "resnetlab trains on the images that this file doesn't name; delete it to have the split drawn anew."
    text = json.dumps({"about": about, "seed": SEED, "share": SHARE, "test": names}, indent=1) + "\n"
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_text(text, encoding="ascii")
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        words = "the split can't be written down (%s); it stays the same as long as the images do"
        _log.warning("%s: " + words, path, error.strerror)


def images_below(folder: Path, others: list[str]) -> list[tuple[str, int]]:
    """The images in a folder and in those below it, as (path in it, bytes), sorted; other files go to `others`.

    Each folder is gone into once, whatever links lead to it.
    """
    found: list[tuple[str, int]] = []
    seen = set[tuple[int, int]]()
    waiting = [""]
    for inside in waiting:  # grows
        place = os.path.join(folder, inside)
        try:
            status = os.stat(place)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            if inside and (ours := what_it_wrote(place, is_image)):
                _log.warning("%s: passed over, %s that resnetlab wrote", place.rstrip("/"), ours)
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
            raise _unreadable(Path(place), error) from error
    return sorted(found)


def _mode_and_size(entry: os.DirEntry[str]) -> tuple[int, int]:
    try:
        status = entry.stat()
    except OSError:
        return stat.S_IFREG, 0  # a link to nowhere: counts as a file, so that reading it tells
    return status.st_mode, status.st_size


def _test_folder(folder: Path, inside: list[str]) -> Path:
    found = [name for name in TEST if name in inside and folders_in(folder / name)]
    if len(found) == 1:
        return folder / found[0]
    if found:
        raise UserError(
            f"{folder}: {' and '.join(found)} are both there, and one is tested on: to evaluate, give "
            f"{folder / found[0]} or the other; to train, another folder, with links (ln -s) to its {TRAIN} and to the "
            "one that is meant."
        )
    flat = [name for name in TEST if name in inside]
    words = f"{flat[0]} has no folders of classes in it" if flat else f"it has {TRAIN} but none of {', '.join(TEST)}"
    raise UserError(f"{folder}: {words}; {LAYOUT}.")


def _no_images(folder: Path, others: list[str]) -> str:
    found = f"{_files(len(others))} of other kinds: {_some(others)}" if others else "it is empty"
    return f"{folder}: no images in it, {found}; images are read by their endings: {' '.join(sorted(EXTENSIONS))}."


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count:,} files"


def _some(names: list[str]) -> str:
    return ", ".join(shown(name) for name in names[:3]) + (", ..." if len(names) > 3 else "")


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path}: can't be read ({error.strerror}); make it readable or move it away.")
