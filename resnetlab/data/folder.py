"""A folder of images with a folder for each class: `train` and `val`, or only classes, whose split is saved."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from resnetlab.data.files import Files
from resnetlab.data.images import Data, Purpose
from resnetlab.data.own import what_it_wrote
from resnetlab.data.source import FolderFiles, StringArray
from resnetlab.data.standing import standing, text
from resnetlab.data.walk import (
    SPLIT,
    folders_in,
    identity,
    images_below,
    is_image,
    no_images,
    tell_left_out,
    unreadable,
)
from resnetlab.errors import UserError, did_you_mean, shown, some, whole_text
from resnetlab.paths import one_form
from resnetlab.storage import is_there, read_regular, write_json

TRAIN, TEST = "train", ("val", "valid", "validation", "test")
SPLIT_WORDS = frozenset({TRAIN, *TEST, "training", "testing", "dev", "eval"})
SEED, SHARE = 0, 0.2
# The tested part, in words, if neither a folder nor a file states it.
ALL, DRAWN = f"neither {TRAIN} nor {SPLIT} exists", "drawn, a fifth of each class"
LAYOUT = "each class needs a folder of images, DIR/train/CLASS/* and DIR/val/CLASS/*, or DIR/CLASS/*"
# What data of other kinds has in its folder, and the kind.
OTHER_KINDS = {
    "index.safetensors": "pack",
    "dataset_dict.json": "hf",
    "data_batch_1": "cifar10",
    "cifar-10-batches-py": "cifar10",
    "cifar-100-python": "cifar100",
    "train-images-idx3-ubyte": "mnist",
    "train-images-idx3-ubyte.gz": "mnist",
}

_log = logging.getLogger(__name__)


def read_folder(kind: str, folder: Path, purpose: Purpose = "train", trained_on: Collection[str] = frozenset()) -> Data:
    """Read "folder": `train` and one of `val`, `valid`, `validation`, `test`; or folders of classes, which are split.

    The classes are the names of the folders, in the order of code points. `purpose` and `trained_on` are those of
    `open_data`: only training needs `train` beside `val` or the like; to evaluate, folders of classes without a split
    are tested as a whole. Raises UserError, naming the folder, if it is missing or unreadable or has another layout,
    fewer than two classes, a class without images, or a damaged `resnetlab-split.json`.
    """
    check_is_folder(folder, LAYOUT)
    inside, least = class_folders(folder), 1 if purpose == "evaluate" else 2
    for mark, other in OTHER_KINDS.items():
        if (folder / mark).is_file() or inside == [mark]:
            raise UserError(f"{folder}: it has {mark}, as data of another kind; give {other}:{folder}.")
    if folders := class_folders(folder / TRAIN) if TRAIN in inside else []:
        classes = check_classes(folder / TRAIN, folders)
        train = scan(folder / TRAIN, classes)
        test_folder = _test_folder(folder, inside)
        called = _called(test_folder, class_folders(test_folder), folder / TRAIN, classes)
        test = scan(test_folder, called, may_lack=True)
        return Data(kind, Files.all_of(train), Files.all_of(test), class_names(classes), test_folder.name)
    alone = SPLIT_WORDS if purpose == "evaluate" else {*TEST}  # to read, "training" beside is a mistake, as to train
    if purpose != "train" and any(name in TEST for name in inside) and set(inside) <= alone:
        test_folder = _test_folder(folder, inside)
        classes = check_classes(test_folder, class_folders(test_folder), least)
        test = scan(test_folder, classes, may_lack=True)
        return _parts(kind, test, classes, np.ones(len(test.names), dtype=bool), f"{test_folder.name} alone")
    _check_parts(folder, inside)
    for name in inside:
        if name in TEST and set(inside) <= SPLIT_WORDS:
            raise UserError(f"{folder}: it has {shown(name)} but no {TRAIN!r} with classes in it; {LAYOUT}.")
        if TRAIN in (below := folders_in(folder / name)) and set(below) & set(TEST):
            raise UserError(
                f"{folder}: not a folder of classes, {shown(name)} is a data set itself; give {folder / name}."
            )
    classes = check_classes(folder, inside, least)
    source = scan(folder, classes, may_lack=purpose == "evaluate")
    return _with_split(kind, source, classes, purpose, trained_on)


def _with_split(
    kind: str, source: FolderFiles, classes: list[str], purpose: Purpose, trained_on: Collection[str]
) -> Data:
    """Folders of classes as a data set, whose test images are those of the saved split, drawn, or all."""
    folder = source.folder
    is_split = (folder / SPLIT).exists()
    if purpose == "evaluate" and trained_on and not is_split:
        with contextlib.suppress(UserError):  # too few images to draw from
            drawn = _parts(kind, source, classes, split(source, classes, "read"), "drawn as in training")
            if drawn.fingerprint in trained_on:  # the training could not save the split
                return drawn
    tested = split(source, classes, purpose)
    if is_split or purpose == "train":  # the split may not have been saved, though
        return _parts(kind, source, classes, tested, f"by {SPLIT}" if (folder / SPLIT).exists() else DRAWN)
    if purpose == "evaluate":
        place = folder.absolute()
        sides = place.name == TRAIN and any((place.parent / name).is_dir() for name in TEST)
        return _parts(kind, source, classes, tested, f"the training images of {place.parent.name}" if sides else ALL)
    return replace(_parts(kind, source, classes, tested, DRAWN), drawn=True)


def _check_parts(folder: Path, inside: list[str]) -> None:
    """Raise UserError if folders that should be classes are parts of a split: Train, or training_set and test_set."""

    def has_no_images(name: str) -> bool:
        with os.scandir(folder / name) as entries:
            return not any(is_image(entry.name) for entry in entries)

    named = [name for name in inside if SPLIT_WORDS.intersection(re.split(r"[\W\d_]+", name.lower()))]
    exact = [name for name in named if name.lower() in SPLIT_WORDS]
    parts = [name for name in named if folders_in(folder / name) and (name in exact or has_no_images(name))]
    if {*parts} - {*TEST} and (len(parts) > 1 or {*parts} & {*exact}):
        raise UserError(f"{folder / parts[0]}: seems to be part of a split; name the two parts 'train' and 'val'.")
    if len(inside) > 1 and all(map(has_no_images, inside)):
        below = {tuple(folders_in(folder / name)) for name in inside}
        if len(below) == 1 and len(alike := next(iter(below))) > 1:
            words = "%s are taken as classes, but each has the folders %s; if those are the classes, merge them"
            _log.warning("%s: " + words, folder, some(map(shown, inside)), some(map(shown, alike)))
    for name in exact:
        if len(inside) > 1 and not set(inside) <= SPLIT_WORDS:
            _log.warning("%s: taken as a class; if its images are to be tested, move it away", folder / name)


def _parts(kind: str, source: FolderFiles, classes: list[str], tested: np.ndarray, part: str) -> Data:
    """A data set of one source; `tested`, bool N, marks its test images, which may be all."""
    train, test = (Files(source, np.flatnonzero(rows)) for rows in (~tested, tested))
    return Data(kind, train, test, class_names(classes), part)


def check_is_folder(folder: Path, needs: str) -> None:
    """Raise UserError unless there is such a folder."""
    if not folder.exists():
        raise UserError(f"{folder}: no such folder; choose the data with --data; {needs}.")
    if not folder.is_dir():
        raise UserError(f"{folder}: a file, not a folder; {needs}. Unpack it first if it is an archive.")


def class_folders(folder: Path) -> list[str]:
    """As `folders_in`, without folders that resnetlab wrote (runs, reports, packs), which are named in warnings."""
    found = []
    for name in folders_in(folder):
        if ours := what_it_wrote(folder / name, is_image):
            _log.warning("%s: skipped, %s that resnetlab wrote", folder / name, ours)
        else:
            found.append(name)
    return found


def class_names(names: Iterable[str]) -> tuple[str, ...]:
    """Names of folders as text that can be printed and stored: bytes that are not UTF-8 become escapes."""
    return tuple(map(whole_text, names))


def check_classes(folder: Path, classes: list[str], least: int = 2) -> list[str]:
    """Return the classes if there are at least `least`. Raises UserError."""
    if not classes:
        with os.scandir(folder) as entries:
            images = sorted(e.name for e in entries if is_image(e.name) and not e.name.startswith("."))
        found = f"images such as {images[0]} lie directly in it" if images else "it has no folders"
        raise UserError(f"{folder}: not a folder of classes, {found}; {LAYOUT}.")
    if len(classes) < least:
        below = folders_in(folder / classes[0])  # as archives are unpacked into a folder of their own
        inner = f" If {some(map(shown, below))} are the classes, give {folder / classes[0]}." if len(below) > 1 else ""
        words = f"only one class, {shown(classes[0])}; at least two are needed. {LAYOUT[0].upper()}{LAYOUT[1:]}."
        raise UserError(f"{folder}: {words}{inner}")
    forms: dict[str, str] = {}
    for name in classes:
        if (other := forms.setdefault(one_form(name), name)) != name:
            words = "the classes %s and %s differ only in how their accents are encoded; should they be one?"
            _log.warning("%s: " + words, folder, ascii(other), ascii(name))
    return classes


def _called(folder: Path, found: list[str], train: Path, classes: list[str]) -> list[str]:
    """The name of each class of `train` in `folder`, which may be in another normal form of Unicode.

    Systems differ in how they write é, as one character or as e with an accent. Raises UserError for a class that
    `train` lacks.
    """
    others = {one_form(name): name for name in found if name not in classes}
    called = [name if name in found else others.pop(one_form(name), name) for name in classes]
    for name, other in zip(classes, called, strict=True):
        if name != other:
            _log.warning(
                "%s: %s is the class %s, with its accents encoded differently", folder, ascii(other), ascii(name)
            )
    if others:
        form, name = next(iter(others.items()))
        if form in map(one_form, classes):
            raise UserError(
                f"{folder / name}: {ascii(name)} is the class of another folder there, with its accents encoded "
                "differently; move its images there."
            )
        hint = did_you_mean(name, classes)
        raise UserError(f"{folder / name}: this class is missing from {train}; both need the same class names.{hint}")
    return called


def _also(classes: Sequence[str]) -> str:
    """The other classes of which an error is true, too, so that they are not found one at a time."""
    return f" The same is true of {some(map(shown, classes))}." if classes else ""


def scan(folder: Path, classes: list[str], may_lack: bool = False) -> FolderFiles:
    """Find the images of each class, at any depth in its folder: by class, then by path, both by code points.

    With `may_lack` a class may lack images or its folder; otherwise that raises UserError, as does a folder without any
    image, one that can't be read, and a link by which the images of a class would be those of another one, too.
    """
    labels, sizes, others = array("i"), array("q"), list[str]()

    def names() -> Iterator[str]:
        try:
            elsewhere = {identity(folder): str(folder)}  # and the folders of the classes before
        except OSError as error:
            raise unreadable(folder, error) from error
        for label, name in enumerate(classes):
            if may_lack and not (folder / name).exists():
                continue
            left_out = list[str]()
            found = images_below(folder / name, left_out, elsewhere)
            if not found and not may_lack:
                more = [other for other in classes[label + 1 :] if not images_below(folder / other, [])]
                words = no_images(folder / name, left_out) + _also(more)
                raise UserError(f"{words} Put some there, or move the folder away.")
            others.extend(f"{name}/{path}" for path in left_out)
            for path, size in found:
                labels.append(label)
                sizes.append(size)
                yield f"{name}/{path}"

    found = StringArray(names())
    if not len(found):
        raise UserError(no_images(folder, others))
    tell_left_out(folder, others)
    return FolderFiles(folder, found, np.array(labels, dtype=np.int32), np.array(sizes, dtype=np.int64))


def split(source: FolderFiles, classes: list[str], purpose: Purpose) -> np.ndarray:
    """The test images, bool N: those that `resnetlab-split.json` names, and drawn ones of classes that it lacks.

    20 % of a class are drawn, at least one image, by the smallest hashes of their names; for training, they are added
    to the file. For an evaluation nothing is drawn: nobody trained on a class that the file lacks, so all of it is
    tested. Test images thus stay test images when images are added: added images are trained on. A renamed image stays
    a test image (`standing`); a warning names missing ones, and a class that has lost all of its test images gets new
    ones. If the file can't be written, the draw is the same as long as the images are. Raises UserError for a damaged
    file, a class with one image, a class with only test images left, and if all classes have lost their test images.
    """
    folder = source.folder
    written = read_split(folder / SPLIT)
    now = standing(written, source.names)
    known = {one_form(name.partition("/")[0]) for name in written}  # also by images that are gone
    added = {name for name in classes if one_form(text(name)) not in known}
    tested = np.fromiter((text(name) in now.test for name in source.names), dtype=bool)
    bounds = np.searchsorted(source.labels, np.arange(len(classes) + 1)).tolist()
    rows = {name: slice(*ends) for name, ends in zip(classes, pairwise(bounds), strict=True)}
    if purpose == "evaluate":
        for name in added:
            tested[rows[name]] = True
    lacking = [name for name in classes if not tested[rows[name]].any()]
    empty = [name for name in lacking if not tested[rows[name]].size]
    lost = [name for name in lacking if name not in added and name not in empty]
    drawn = [] if purpose == "evaluate" else _draw(source, rows, tested)
    if len(lost) == len(classes) or not tested.any():
        raise UserError(
            f"{folder / SPLIT}: none of the test images that it names exist; delete it to draw a new split."
        )
    said = now.words(len(written))
    if lost:
        then = ": new ones are drawn, which earlier runs may have trained on"
        if purpose == "evaluate":
            then = ", whose other images may be training images: only other classes are tested"
        said.append(f"no test images are left for {some(map(shown, lost))}{then}")
    for words in said:
        _log.warning("%s: %s", folder / SPLIT, words)
    if empty:
        _log.warning("%s: no images of %s, so only other classes are tested", folder, some(map(shown, empty)))
    if purpose == "train" and (drawn or now.renamed):
        write_split(folder / SPLIT, sorted({*written, *drawn, *now.renamed}))
    return tested


def _draw(source: FolderFiles, rows: Mapping[str, slice], tested: np.ndarray) -> list[str]:
    """Mark SHARE of each class that has no test image, and return the names of these images.

    rows: those of each class; tested: bool N. Raises UserError for a class with one image, or with test images only.
    """
    folder, drawn = source.folder, list[str]()
    for name, own in rows.items():
        if not tested[own].any():
            if tested[own].size < 2:
                more = [other for other in rows if tested[rows[other]].size < 2 and other != name]
                raise UserError(
                    f"{folder / name}: only one image; a class needs two, one for training and one for testing: add "
                    "images, or move the folder away."
                    f"{_also(more)}"
                )
            chosen = sorted(range(own.start, own.stop), key=lambda row: _lot(source.names[row]))
            chosen = chosen[: max(1, round(SHARE * len(chosen)))]
            tested[chosen] = True
            drawn += [text(source.names[row]) for row in chosen]
        if tested[own].all():
            raise UserError(
                f"{folder / name}: {SPLIT} makes all its images test images. Add some, or delete {folder / SPLIT} "
                "to draw a new split."
            )
    return drawn


def _lot(name: str) -> bytes:
    return hashlib.sha256(b"test images:%d:" % SEED + os.fsencode(name)).digest()


def read_split(path: Path) -> frozenset[str]:
    """The test images that the file names; none if there is no file. Raises UserError if it is damaged."""
    if not is_there(path):
        return frozenset()
    content = read_regular(path, MOST_SPLIT, _RESTORE.rstrip("."))
    try:
        written = json.loads(content)
        if not isinstance(written, dict):
            raise ValueError(f"it is {shown(written)}, not an object")
        names = written["test"]
        if (written["seed"], written["share"]) != (SEED, SHARE):
            raise ValueError(f"its seed and share are not {SEED} and {SHARE}")
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise ValueError("'test' should be a list of names")
    except KeyError as error:
        raise UserError(f"{path}: damaged, it lacks {error}; {_RESTORE}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: damaged ({error}); {_RESTORE}") from error
    return frozenset(names)


MOST_SPLIT = 2**30  # bytes: names of some ten million images
_RESTORE = "restore it, or delete it to draw a new split."


def write_split(path: Path, names: list[str]) -> None:
    """Save the names of the test images; if that fails, warn."""
    about = "resnetlab trains on the images that this file doesn't name; delete it to have the split drawn anew."
    try:
        write_json(path, {"about": about, "seed": SEED, "share": SHARE, "test": names})
    except OSError as error:
        words = "the split can't be saved (%s); it stays the same as long as the images do"
        _log.warning("%s: " + words, path, error.strerror)


def _test_folder(folder: Path, inside: list[str]) -> Path:
    found = [name for name in TEST if name in inside and folders_in(folder / name)]
    if len(found) == 1:
        return folder / found[0]
    if found:
        raise UserError(
            f"{folder}: {' and '.join(found)} exist, but only one can hold the test images: to evaluate, give "
            f"{folder / found[0]} or the other; to train, make a folder with links (ln -s) to its {TRAIN} and to the "
            "one you want."
        )
    flat = [name for name in TEST if name in inside]
    words = f"{flat[0]} has no class folders" if flat else f"it has {TRAIN} but none of {', '.join(TEST)}"
    raise UserError(f"{folder}: {words}; {LAYOUT}.")
