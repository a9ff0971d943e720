"""Thumbnails: small pictures of what is in memory or in files, and none of what can't be read."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from resnetlab.data.files import Files
from resnetlab.data.images import Images
from resnetlab.data.source import FolderFiles, StringArray
from resnetlab.data.thumbnail import THUMBNAIL, thumbnail


def shown(uri: str, kind: str) -> np.ndarray:
    head, _, content = uri.partition(",")
    assert head == f"data:image/{kind};base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_in_memory_loses_nothing(channels: int) -> None:
    pixels = torch.randint(0, 256, (2, channels, 8, 9), dtype=torch.uint8)
    picture = shown(thumbnail(Images(pixels, torch.zeros(2).long()), 1), "png")
    assert np.array_equal(picture.reshape(8, 9, channels), pixels[1].permute(1, 2, 0).numpy())


def test_a_file_is_made_small_and_what_cannot_be_read_has_none(tmp_path: Path) -> None:
    Image.new("RGB", (900, 600), "red").save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    names = StringArray(["a.png", "b.png", "gone.png"])
    files = Files.all_of(FolderFiles(tmp_path, names, np.zeros(3, np.int32), np.ones(3, np.int64)))
    assert shown(thumbnail(files, 0), "jpeg").shape == (THUMBNAIL * 2 // 3, THUMBNAIL, 3)
    assert thumbnail(files, 1) == thumbnail(files, 2) == ""
