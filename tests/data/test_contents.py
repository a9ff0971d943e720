"""What tells that images have changed: names and sizes, and the contents of formats whose size says nothing."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnetlab.cli.main import main
from resnetlab.data import contents
from resnetlab.data.contents import SIZE_SAYS_NOTHING, content_marks
from resnetlab.data.files import Files, written_since
from resnetlab.data.images import Data
from resnetlab.data.open import open_data
from resnetlab.data.pack import pack
from resnetlab.data.source import FolderFiles
from resnetlab.data.statistics import kept_statistics

WAYS = {  # how Pillow writes an ending, without compression
    "bmp": ("BMP", "RGB", {}),
    "ppm": ("PPM", "RGB", {}),
    "pgm": ("PPM", "L", {}),
    "pbm": ("PPM", "1", {}),
    "tif": ("TIFF", "RGB", {}),
    "tiff": ("TIFF", "L", {"compression": None}),
}
CLASSES, SIDES = ("a", "b"), ("train", "val")
LONG_AGO = 1.5e9


def write(folder: Path, ending: str, level: int = 9) -> Path:
    """Two classes of two images, of noise that depends on `level`."""
    form, mode, how = WAYS.get(ending.lower(), (None, "RGB", {}))
    for side in SIDES:
        for k, name in enumerate(CLASSES):
            (folder / side / name).mkdir(parents=True, exist_ok=True)
            for i in range(2):
                pixels = np.random.default_rng([level, k, i]).integers(0, 256, (32, 32, 3), np.uint8)
                Image.fromarray(pixels).convert(mode).save(folder / side / name / f"{i}.{ending}", form, **how)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "resnetlab" / "contents.sqlite"


def test_every_format_without_compression_is_tried() -> None:
    assert set(WAYS) == SIZE_SAYS_NOTHING


@pytest.mark.parametrize("ending", [*WAYS, "BMP"])
def test_other_pixels_in_files_of_the_same_names_and_sizes_are_other_data(tmp_path: Path, ending: str) -> None:
    folder = write(tmp_path / "d", ending)
    data = open_data(str(folder))
    assert isinstance(data.train, Files)
    sizes, before, statistics = data.train.source.sizes, data.fingerprint, kept_statistics(data.train, 32)
    write(folder, ending, level=8)
    assert open_data(str(folder)).fingerprint != before
    assert kept_statistics(data.train, 32) != statistics
    train = open_data(str(folder)).train
    assert isinstance(train, Files)
    assert train.source.sizes.tolist() == sizes.tolist()
    assert open_data(str(write(folder, ending))).fingerprint == before, "whenever it was written"
    assert open_data(str(write(tmp_path / "elsewhere", ending))).fingerprint == before, "wherever it lies"


def by_hand(data: Data, mark: bool) -> str:
    """The fingerprint as versions before this one made it, and with the hashes of contents."""
    hashed = hashlib.sha256(repr((data.name, data.classes)).encode())
    for side in (data.train, data.test):
        assert isinstance(side, Files)
        for i in range(len(side)):
            text = f"{side.name(i)}\0{len(side.read(i))}\0{side.labels[i]}"
            text += f"\0{hashlib.sha256(side.read(i)).hexdigest()[:32]}" if mark else ""
            hashed.update(f"{text}\n".encode())
    return hashed.hexdigest()[:16]


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "gif", "avif", "bmp", "tiff"])
def test_the_ids_of_compressed_formats_are_what_they_were(tmp_path: Path, cache: Path, ending: str) -> None:
    data = open_data(str(write(tmp_path / "d", ending)))
    assert data.fingerprint == by_hand(data, mark=ending in SIZE_SAYS_NOTHING)
    assert cache.exists() is (ending in SIZE_SAYS_NOTHING)


def test_no_file_is_read_twice_and_any_change_is_seen(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "SETTLED", -1.0)  # or what was just written would not be kept
    folder = write(tmp_path / "d", "bmp")
    read: list[str] = []
    whole = FolderFiles.read
    monkeypatch.setattr(FolderFiles, "read", lambda self, row: read.append(self.names[row]) or whole(self, row))
    first = open_data(str(folder)).fingerprint
    assert len(read) == 8
    assert open_data(str(folder)).fingerprint == first
    assert len(read) == 8
    changed = folder / "train" / "b" / "1.bmp"
    times = (changed.stat().st_atime_ns, changed.stat().st_mtime_ns)
    while time.time() < changed.stat().st_ctime + 0.1:
        time.sleep(0.01)  # until the clock of the file system has ticked
    changed.write_bytes(changed.read_bytes()[:-1] + b"\x01")
    os.utime(changed, ns=times)  # as a tool that keeps times does; the time of the change itself can't be kept
    assert open_data(str(folder)).fingerprint != first
    assert read[8:] == ["b/1.bmp"]
    cache.write_bytes(b"no database")  # then nothing is kept, and nothing fails
    assert open_data(str(folder)).fingerprint != first
    assert len(read) == 17
    cache.unlink()
    cache.mkdir()
    assert open_data(str(folder)).fingerprint != first


def test_what_was_written_just_now_is_not_kept(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "SETTLED", 10_000.0)
    folder = write(tmp_path / "d", "bmp")
    assert open_data(str(folder)).fingerprint == open_data(str(folder)).fingerprint
    with sqlite3.connect(cache) as kept:
        assert kept.execute("SELECT count(*) FROM marks").fetchone() == (0,)
    kept.close()


def test_an_image_that_cannot_be_read_has_a_mark_that_is_not_kept(tmp_path: Path) -> None:
    folder = write(tmp_path / "d", "bmp")
    (folder / "train" / "a" / "lost.bmp").symlink_to("nowhere.bmp")
    data = open_data(str(folder))
    assert isinstance(data.train, Files)
    marks = content_marks(data.train.source, data.train.rows.tolist())
    assert [mark for mark in marks.values() if len(mark) != 32] == ["unreadable"]


def test_a_pack_is_the_same_data_and_another_one_when_pixels_change(tmp_path: Path) -> None:
    folder = write(tmp_path / "d", "bmp")
    data = open_data(str(folder))
    pack(data, tmp_path / "packed", workers=1)
    assert open_data(f"pack:{tmp_path / 'packed'}").fingerprint == data.fingerprint
    write(folder, "bmp", level=8)
    assert open_data(str(folder)).fingerprint != data.fingerprint
    assert main(["data", "pack", str(folder), str(tmp_path / "packed")]) == 2  # not "already packed"


def test_how_many_files_were_written_since(tmp_path: Path) -> None:
    folder = write(tmp_path / "d", "png")
    for path in folder.rglob("*.png"):
        os.utime(path, (LONG_AGO, LONG_AGO))
    data = open_data(str(folder))
    assert isinstance(data.train, Files)
    assert written_since(data.train, LONG_AGO) == 0
    os.utime(folder / "train" / "a" / "0.png")
    assert written_since(data.train, LONG_AGO) == 1
    (folder / "train" / "a" / "1.png").unlink()
    assert written_since(data.train, LONG_AGO - 1) == 3


def test_what_was_finished_before_says_how_to_train_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "d", "png")
    monkeypatch.chdir(tmp_path)
    command = ["train", "digits", "--data", "d", "--net", "cifar_resnet8", "--image-size", "8", "--batch-size", "2"]
    command += ["--workers", "0", "--epochs", "1", "--warmup", "none"]
    assert main(command) == 0
    (made,) = (tmp_path / "runs").iterdir()
    for words in ("to train again, remove ", "1 of the data's files were written since then, with the same names and "):
        capsys.readouterr()
        assert main(command) == 0
        said = capsys.readouterr()
        assert said.out.startswith("already finished: ")
        assert words in said.err
        assert f"to train again, remove runs/{made.name} or give another --seed" in said.err
        os.utime(folder / "val" / "a" / "0.png", (time.time() + 60, time.time() + 60))
