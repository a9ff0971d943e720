"""Recognises folders that resnetlab wrote, by their contents, so that they are not taken for classes of images."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from resnetlab.errors import UserError, shown

MARK = ".resnetlab"  # written into folders of pictures, whose contents look like any others
BESIDE = ".resnetlab-pictures"  # the same beside folders, which may be a data set: its images are ours, the folders not
RUN = "run.json"
# Files that identify other such folders, and what these are; no images lie beside them.
FILES = {
    RUN: "a run",
    "evaluation.json": "the report of an evaluation",
    "index.safetensors": "a pack",
    "index.safetensors.part": "an unfinished pack",
    "model.safetensors": "weights",
}
STRAY = 3  # maximum number of images, e.g. plots, among runs
MOST_BYTES = 1 << 24  # of the file that describes a run


def what_it_wrote(folder: str | Path, is_image: Callable[[str], bool]) -> str:
    """What kind of folder of resnetlab's this is, in words; "" for any other folder, and for an unreadable one."""
    images, found, folders = 0, "", list[str]()
    try:
        if os.path.exists(os.path.join(folder, MARK)):
            return "pictures"
        if _describes_a_run(os.path.join(folder, RUN)):
            return "a run"
        with os.scandir(folder) as entries:
            for entry in entries:  # for a class, this ends after a few
                images += is_image(entry.name)
                if images > STRAY:
                    return ""
                found = found or FILES.get(entry.name, "")
                if entry.is_dir():
                    folders.append(entry.path)
        if any(_describes_a_run(os.path.join(inside, RUN)) for inside in folders):
            return "runs"
    except OSError:
        return ""
    return "" if images else found


def _describes_a_run(path: str) -> bool:
    """Whether a file is the run.json of a run. Raises OSError if it can't be read."""
    if not os.path.isfile(path) or os.path.getsize(path) > MOST_BYTES:
        return False
    with open(path, "rb") as file, contextlib.suppress(ValueError, RecursionError):
        told = json.load(file)
        return isinstance(told, dict) and {"id", "spec", "recipe"} <= told.keys()
    return False


def check_place_for_pictures(folder: Path, is_image: Callable[[str], bool]) -> None:
    """Raise UserError for a folder that holds other images, with which pictures would mix, and OSError."""
    if not folder.is_dir() or any((folder / mark).exists() for mark in (MARK, BESIDE)):
        return
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    if images := list(filter(is_image, names)):
        raise UserError(
            f"{folder}: holds other images, such as {shown(images[0])}; choose a new folder with --out, so that the "
            "pictures are not taken for images of a data set."
        )


def make_place_for_pictures(folder: Path) -> None:
    """Make a folder for pictures, marked so that it is not taken for a class of a data set. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    mark = BESIDE if any(path.is_dir() for path in folder.iterdir()) else MARK
    (folder / mark).write_text("resnetlab wrote these pictures; data sets are read without them.\n")
