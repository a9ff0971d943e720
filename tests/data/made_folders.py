"""Folders of images for the tests of folder data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from resnetlab.data.files import Files
from resnetlab.data.images import Data, Purpose
from resnetlab.data.open import open_data


def write(folder: Path, *paths: str) -> Path:
    """Make a folder with images at these paths; a path that ends with "/" is an empty folder."""
    for path in paths:
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if path.endswith("/"):
            place.mkdir()
        else:
            Image.new("RGB", (2, 2), (len(path), 0, 0)).save(place, "PNG")
    return folder


def names(files: object) -> list[str]:
    assert isinstance(files, Files)
    return [files.name(i) for i in range(len(files))]


def read(folder: Path, purpose: Purpose = "train", **how: Any) -> Data:
    return open_data(f"folder:{folder}", purpose, **how)


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return found
