"""Views of a test image: ten crops and scales against plain references; read ahead alike by any number of workers."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnetlab.data import tta
from resnetlab.data.crops import centre_crop
from resnetlab.data.decoding import decode
from resnetlab.data.files import Files
from resnetlab.data.folder import scan
from resnetlab.data.open import open_data
from resnetlab.data.tta import VIEWS, at_scales, five_crops, one_crop, read_views, sides
from resnetlab.errors import UserError


def encoded(width: int, height: int, seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    made = io.BytesIO()
    Image.fromarray(pixels).save(made, "PNG")
    return made.getvalue()


@pytest.mark.parametrize(("width", "height"), [(64, 37), (37, 64), (37, 37), (39, 37), (37, 39)])
def test_five_crops_of_an_image_whose_short_side_is_256_224ths(width: int, height: int) -> None:
    """37 = round(32 x 256/224), so nothing is resized here."""
    content = encoded(width, height)
    image = decode(content)
    top_left, top_right, bottom_left, bottom_right, centre = five_crops(content, 32)
    assert np.array_equal(top_left, image[:32, :32])
    assert np.array_equal(top_right, image[:32, -32:])
    assert np.array_equal(bottom_left, image[-32:, :32])
    assert np.array_equal(bottom_right, image[-32:, -32:])
    assert np.array_equal(centre, centre_crop(content, (), 32))
    assert np.array_equal(one_crop(content, 32)[0], centre)


def test_scales() -> None:
    assert sides(224) == [224, 256, 384, 480, 640]
    assert sides(32) == [32, 37, 55, 69, 91]
    content = encoded(90, 60)
    assert [view.shape for view in at_scales(content, 32)] == [
        (32, 48, 3),
        (37, 55, 3),
        (55, 82, 3),
        (69, 103, 3),
        (91, 136, 3),
    ]
    resized = Image.fromarray(decode(content)).resize((136, 91), Image.Resampling.BILINEAR)
    assert np.abs(at_scales(content, 32)[4].astype(int) - np.asarray(resized)).max() <= 1


def test_of_a_strip_the_middle_is_taken() -> None:
    strip = encoded(32 * 9, 32)
    first = at_scales(strip, 32)[0]
    assert np.array_equal(first, decode(strip)[:, 80 : 80 + 128])
    assert max(view.shape[1] / view.shape[0] for view in at_scales(strip, 32)) <= 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    for side in ("train", "val"):
        for label in "ab":
            (root / side / label).mkdir(parents=True)
            for i in range(6):
                (root / side / label / f"{i}.png").write_bytes(encoded(40 + 3 * i, 50, seed=i))
    return root


@pytest.mark.parametrize("name", VIEWS)
def test_workers_change_nothing(folder: Path, name: str) -> None:
    files = open_data(str(folder)).test
    assert isinstance(files, Files)
    alone, ahead = (list(read_views(files, VIEWS[name], 16, workers)) for workers in (0, 2))
    assert len(alone) == len(ahead) == 12
    for i, (one, other) in enumerate(zip(alone, ahead, strict=True)):
        wanted = VIEWS[name].crops(files.read(i), 16)
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
        assert all(np.array_equal(a, b.transpose(2, 0, 1)) for a, b in zip(one, wanted, strict=True))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_read_is_named(tmp_path: Path, workers: int) -> None:
    for side in ("train", "val"):
        for label in "ab":
            (tmp_path / "own" / side / label).mkdir(parents=True)
            (tmp_path / "own" / side / label / "1.png").write_bytes(encoded(40, 50))
    (tmp_path / "own/val/b/2.png").write_bytes(b"no picture")
    (tmp_path / "own/val/b/3.png").symlink_to("nowhere")
    files = open_data(str(tmp_path / "own")).test
    assert isinstance(files, Files)
    with pytest.raises(UserError, match=r"val/b/2.png: can't be read \(not an image"):
        list(read_views(files, VIEWS["10-crop"], 16, workers))
    with pytest.raises(UserError, match=r"val/b/3.png: can't be read \(No such file"):
        list(read_views(files[3:], VIEWS["10-crop"], 16, workers))


def test_an_error_ends_the_processes_though_it_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = []

    def decoded(*_: object) -> Iterator[str]:
        try:
            yield "not an image"
        finally:
            ended.append(True)

    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(encoded(8, 8))
    files = Files.all_of(scan(tmp_path, ["a"]))
    monkeypatch.setattr(tta, "over_images", decoded)
    with pytest.raises(UserError) as kept:
        next(read_views(files, VIEWS["1-crop"], 16, workers=1))
    assert ended, kept.traceback
