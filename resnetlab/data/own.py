"""Folders that resnetlab wrote itself, known by what lies in them: among folders of images they are no classes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

MARK = ".resnetlab"  # put into folders of pictures, which are like any others by their contents
# A file by which another such folder is known, and what the folder is; no images lie beside it.
FILES = {
    "run.json": "a run",
    "evaluation.json": "the report of an evaluation",
    "index.safetensors": "a pack",
    "index.safetensors.part": "an unfinished pack",
}


def what_it_wrote(folder: str | Path, is_image: Callable[[str], bool]) -> str:
    """What a folder is that resnetlab wrote, in words; "" for any other, and for one that can't be read."""
    found, folders = "", list[str]()
    try:
        if os.path.exists(os.path.join(folder, MARK)):
            return "pictures"
        with os.scandir(folder) as entries:
            for entry in entries:  # of a class the first few, until there is an image
                if is_image(entry.name):
                    return ""
                found = found or FILES.get(entry.name, "")
                if entry.is_dir():
                    folders.append(entry.path)
    except OSError:
        return ""
    return found or ("runs" if any(os.path.exists(os.path.join(f, "run.json")) for f in folders) else "")


def mark(folder: Path) -> None:
    """Mark a folder, so that the pictures in it are taken for no class. Raises OSError."""
    (folder / MARK).write_text("resnetlab wrote these pictures; a folder of images is read without them.\n")
