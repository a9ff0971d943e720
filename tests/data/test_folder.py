"""Folders of images: which layouts, classes and files count, the split that is written down, and what is refused."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from PIL import Image

from resnetlab import storage
from resnetlab.cli.main import main
from resnetlab.data.files import Files
from resnetlab.data.folder import SPLIT
from resnetlab.data.images import Data, Purpose
from resnetlab.data.open import open_data
from resnetlab.data.source import StringArray
from resnetlab.errors import UserError


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


@pytest.mark.parametrize("test", ["val", "valid", "validation", "test"])
def test_train_and_one_of_four_names(tmp_path: Path, test: str) -> None:
    write(tmp_path, "train/cat/b.png", "train/ant/a.png", "train/cat/a.png", f"{test}/cat/x.png")
    data = read(tmp_path)
    assert (data.name, data.classes, data.shape) == ("folder", ("ant", "cat"), None)
    assert names(data.train) == ["ant/a.png", "cat/a.png", "cat/b.png"]
    assert names(data.test) == ["cat/x.png"]  # a class may be without test images
    assert (data.train.labels.tolist(), data.test.labels.tolist()) == ([0, 1, 1], [1])
    assert isinstance(data.train, Files)
    assert data.train.read(2) == (tmp_path / "train/cat/b.png").read_bytes()
    assert data.train.source.sizes.tolist() == [(tmp_path / "train" / n).stat().st_size for n in names(data.train)]
    assert data.train.place(0) == str(tmp_path / "train/ant/a.png")


def test_classes_are_in_the_order_of_code_points(tmp_path: Path) -> None:
    classes = ["Zebra", "ant", "10", "9", "éland", "日本", "a b", "_x"]
    write(tmp_path, *(f"train/{name}/1.jpg" for name in classes), *(f"val/{name}/1.jpg" for name in classes))
    assert read(tmp_path).classes == ("10", "9", "Zebra", "_x", "a b", "ant", "éland", "日本")


def test_a_bare_path_is_a_folder_of_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "some: flowers", "train/a/1.png", "train/b/1.png", "val/a/1.png")
    assert open_data(str(tmp_path / "some: flowers")).fingerprint == read(tmp_path / "some: flowers").fingerprint
    monkeypatch.chdir(tmp_path)
    assert open_data("some: flowers").classes == ("a", "b")


def test_images_by_their_endings_at_any_depth_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = [f"a/{i}.{e}" for i, e in enumerate(["jpg", "JPEG", "Png", "bmp", "gif", "webp", "TIF", "ppm", "avif"])]
    nested = ["a/deep/er/x.jpg", "a/deep.jpg/y.jpg"]
    left_out = ["a/notes.txt", "a/photo.heic", "a/raw.cr2"]
    ignored = ["a/.hidden.jpg", "a/._0.jpg", "a/.DS_Store", "a/Thumbs.db", "a/__MACOSX/1.jpg", "a/.cache/1.jpg"]
    top = [".git/1.jpg", "__MACOSX/1.jpg", "readme.txt", "cover.jpg"]
    write(tmp_path, *(f"train/{p}" for p in wanted + nested + left_out + ignored + top), "train/b/1.jpg", "val/a/1.jpg")
    os.mkfifo(tmp_path / "train/a/pipe.jpg")
    with socket.socket(socket.AF_UNIX) as bound:
        monkeypatch.chdir(tmp_path / "train/a")  # a socket's path has 107 bytes at most
        bound.bind("socket.jpg")
    data = read(tmp_path)
    assert names(data.train) == [*sorted(wanted + nested), "b/1.jpg"]
    assert data.classes == ("a", "b")
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"{tmp_path / 'train'}: 5 files skipped, not images: {said[0].partition('images: ')[2]}"]
    assert "'a/notes.txt', 'a/photo.heic', 'a/pipe.jpg', ..." in said[0]


def test_links_are_followed_once(tmp_path: Path) -> None:
    write(tmp_path, "pool/1.png", "pool/2.png", "train/b/3.png", "val/b/1.png")
    (tmp_path / "train/a").symlink_to(tmp_path / "pool")  # a class that is a link
    (tmp_path / "pool/loop").symlink_to(tmp_path / "pool")
    (tmp_path / "pool/up").symlink_to(tmp_path / "train")
    (tmp_path / "train/b/linked.png").symlink_to(tmp_path / "pool/1.png")
    (tmp_path / "train/b/lost.png").symlink_to(tmp_path / "nowhere.png")
    data = read(tmp_path)
    assert isinstance(data.train, Files)
    of_b = [name for name in names(data.train) if name.startswith("b/")]
    assert of_b == ["b/3.png", "b/linked.png", "b/lost.png"]
    assert names(data.train)[:2] == ["a/1.png", "a/2.png"]
    assert not any("loop" in name for name in names(data.train))
    with pytest.raises(FileNotFoundError):  # a link to nowhere stays in, so that reading tells
        data.train.read(names(data.train).index("b/lost.png"))


def test_an_empty_file_stays_in(tmp_path: Path) -> None:
    write(tmp_path, "train/a/1.png", "train/b/1.png", "val/a/1.png")
    (tmp_path / "train/a/0.png").touch()
    data = read(tmp_path)
    assert isinstance(data.train, Files)
    assert (names(data.train)[0], data.train.source.sizes[0], data.train.read(0)) == ("a/0.png", 0, b"")


@pytest.mark.skipif(sys.platform == "darwin", reason="its file system refuses names that are no UTF-8")
def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    for part in (b"train", b"val"):
        for place in (b"caf\xe9", b"tea"):
            folder = os.path.join(os.fsencode(tmp_path), part, place)
            os.makedirs(folder)
            for file in (b"\xff.png", b"1.png"):
                with open(os.path.join(folder, file), "xb") as opened:
                    Image.new("RGB", (2, 2)).save(opened, "PNG")
    data = read(tmp_path)
    assert data.classes == ("caf\\xe9", "tea")
    assert isinstance(data.train, Files)
    assert data.train.read(1).startswith(b"\x89PNG")
    assert os.fsencode(data.train.place(1)) == os.path.join(os.fsencode(tmp_path), b"train", b"caf\xe9", b"\xff.png")
    single = read(tmp_path / "train")  # such names stand in the file of the split, too
    assert read(tmp_path / "train").fingerprint == single.fingerprint
    assert len(single.test) == 2


def test_the_split_is_of_a_fifth_of_each_class_and_written_down(tmp_path: Path) -> None:
    write(
        tmp_path,
        *(f"a/{i}.png" for i in range(20)),
        *(f"b/{i}.png" for i in range(2)),
        *(f"c/{i}.png" for i in range(7)),
    )
    first = read(tmp_path)
    assert first.test.labels.bincount().tolist() == [4, 1, 1]
    assert first.train.labels.bincount().tolist() == [16, 1, 6]
    assert not set(names(first.train)) & set(names(first.test))
    # Pinned: the draw is a function of the names, on every machine.
    assert [n for n in names(first.test) if n.startswith("a/")] == ["a/0.png", "a/11.png", "a/12.png", "a/5.png"]
    written = json.loads((tmp_path / SPLIT).read_text())
    assert (written["seed"], written["share"], written["test"]) == (0, 0.2, names(first.test))
    assert os.listdir(tmp_path).count(SPLIT) == 1
    assert len(os.listdir(tmp_path)) == 4  # no part of a file is left
    assert read(tmp_path).fingerprint == first.fingerprint


def test_images_that_are_added_are_trained_on(tmp_path: Path) -> None:
    write(tmp_path, *(f"{c}/{i}.png" for c in "ab" for i in range(10)))
    before = names(read(tmp_path).test)
    write(tmp_path, *(f"a/new{i}.png" for i in range(50)), *(f"c/{i}.png" for i in range(5)))
    (tmp_path / before[0]).unlink()
    after = read(tmp_path)
    assert [n for n in names(after.test) if not n.startswith("c/")] == before[1:]
    assert after.test.labels.bincount().tolist() == [1, 2, 1]  # a class that is new is drawn from
    assert set(before) < set(json.loads((tmp_path / SPLIT).read_text())["test"])
    again = read(tmp_path)
    assert again.fingerprint == after.fingerprint


def test_a_class_whose_accents_are_written_otherwise(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, "train/a/1.png", "train/\u00e9/1.png", "val/a/1.png", "val/e\u0301/2.png")
    data = read(tmp_path)
    assert data.classes == ("a", "\u00e9")
    assert (names(data.test), data.test.labels.tolist()) == (["a/1.png", "e\u0301/2.png"], [0, 1])
    assert isinstance(data.test, Files)
    assert data.test.read(1).startswith(b"\x89PNG")
    words = "'e\\u0301' is the class '\\xe9', with its accents encoded differently"
    assert messages(caplog) == [f"{tmp_path / 'val'}: {words}"]
    write(tmp_path, "val/\u00e9/1.png")
    with pytest.raises(UserError, match=r"'e\\u0301' is the class of another folder there, .*; move its images there"):
        read(tmp_path)


def test_classes_that_look_the_same_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, *(f"train/{c}/1.png" for c in ("\u00e9", "e\u0301")), "val/\u00e9/1.png", "val/e\u0301/2.png")
    data = read(tmp_path)
    assert (data.classes, data.test.labels.tolist()) == (("e\u0301", "\u00e9"), [0, 1])
    assert messages(caplog) == [
        f"{tmp_path / 'train'}: the classes 'e\\u0301' and '\\xe9' differ only in how their accents are "
        "encoded; should they be one?"
    ]


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return found


def test_a_line_says_which_test_images_are_gone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, *(f"{c}/{i}.png" for c in "ab" for i in range(20)))
    before = names(read(tmp_path).test)
    written = (tmp_path / SPLIT).read_bytes()
    assert messages(caplog) == []
    for name in before[:2]:
        (tmp_path / name).unlink()
    for _ in range(2):  # each time, and nothing is drawn or written
        assert names(read(tmp_path).test) == before[2:]
        line = f"missing: 2 of its 8 test images, {before[0]!r}, {before[1]!r} (put them back, or delete the file to "
        line += "draw a new split)"
        assert messages(caplog) == [f"{tmp_path / SPLIT}: {line}"]
    assert (tmp_path / SPLIT).read_bytes() == written


def test_a_class_that_lost_all_test_images_is_drawn_from_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, *(f"{c}/{i}.png" for c in "ab" for i in range(20)))
    before = names(read(tmp_path).test)
    for name in before[:4]:
        (tmp_path / name).unlink()
    after = read(tmp_path)
    assert names(after.test)[3:] == before[4:]
    assert after.test.labels.tolist() == [0] * 3 + [1] * 4
    said = messages(caplog)
    assert "missing: 4 of its 8 test images, 'a/0.png', 'a/11.png', 'a/12.png', ..." in said[0]
    words = "no test images are left for 'a': new ones are drawn, which earlier runs may have trained on"
    assert said[1] == f"{tmp_path / SPLIT}: {words}"
    assert json.loads((tmp_path / SPLIT).read_text())["test"] == sorted({*before, *names(after.test)})
    assert read(tmp_path).fingerprint == after.fingerprint
    assert len(messages(caplog)) == 1  # what is gone; the draw is done
    write(tmp_path, *before[:4])  # put back, they are test images as before
    assert set(before) <= set(names(read(tmp_path).test))
    assert messages(caplog) == []


def test_a_class_that_lost_all_but_one_image_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, *(f"{c}/{i}.png" for c in "ab" for i in range(2)))
    (tmp_path / names(read(tmp_path).test)[0]).unlink()
    with pytest.raises(UserError, match="a: only one image; a class needs two"):
        read(tmp_path)


def test_a_split_of_which_nothing_is_left_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, *(f"{c}/{i}.png" for c in "ab" for i in range(5)))
    for name in names(read(tmp_path).test):
        (tmp_path / name).rename(tmp_path / name.replace("/", "/other"))
    with pytest.raises(UserError, match=f"{SPLIT}: none of the test images that it names exist; delete it"):
        read(tmp_path)


def test_test_images_that_are_renamed_stay_test_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As another format, and with accents as a Mac writes them: runs before have not trained on them."""
    write(tmp_path, *(f"{c}/caf\u00e9 {i}.jpg" for c in ("a", "\u00e9") for i in range(10)))
    before = names(read(tmp_path).test)
    (tmp_path / "\u00e9").rename(tmp_path / "e\u0301")
    for path in (tmp_path / "a").iterdir():
        path.rename(path.with_suffix(".PNG"))
    for path in (tmp_path / "e\u0301").iterdir():
        path.rename(path.with_name(path.name.replace("\u00e9", "e\u0301")))
    after = read(tmp_path)
    wanted = [name.replace("a/", "!/").replace("\u00e9", "e\u0301").replace("!/", "a/") for name in before]
    wanted = [name.replace("e\u0301", "\u00e9").replace(".jpg", ".PNG") if name[0] == "a" else name for name in wanted]
    assert names(after.test) == wanted
    said = messages(caplog)
    assert len(said) == 1
    assert "renamed, and still test images: 4 of its 4 images, 'a/caf\u00e9" in said[0]
    assert ".jpg' is now 'a/caf\u00e9" in said[0]
    assert "'\\xe9/caf\\xe9" in said[0], "escaped where both look the same"
    assert json.loads((tmp_path / SPLIT).read_text())["test"] == sorted({*before, *wanted})
    assert read(tmp_path).fingerprint == after.fingerprint
    assert messages(caplog) == [], "written down"
    write(tmp_path, *(name for name in before if name[0] == "a"))  # both are there: none of them is trained on
    assert set(names(read(tmp_path).test)) >= {name for name in [*before, *wanted] if name[0] == "a"}


def test_a_split_file_is_the_same_in_every_locale(tmp_path: Path) -> None:
    write(tmp_path, *(f"{c}/\u00e9{i}.png" for c in ("\u871c", "b") for i in range(5)))
    first = read(tmp_path)
    written = (tmp_path / SPLIT).read_bytes()
    code = f"from resnetlab.data.open import open_data; print(open_data({str(tmp_path)!r}).fingerprint)"
    environment = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == (first.fingerprint, "")
    assert (tmp_path / SPLIT).read_bytes() == written


def test_a_split_file_that_was_edited_elsewhere_is_read(tmp_path: Path) -> None:
    write(tmp_path, *(f"{c}/{i}.png" for c in "ab" for i in range(5)))
    first = read(tmp_path)
    (tmp_path / SPLIT).write_text((tmp_path / SPLIT).read_text(), encoding="utf-8-sig")
    assert read(tmp_path).fingerprint == first.fingerprint


def test_a_folder_that_cannot_be_written_is_split_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, *(f"{c}/{i}.png" for c in "ab" for i in range(10)))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(storage, "flush_to_disk", refuse)
        unwritten = read(tmp_path)
    assert not (tmp_path / SPLIT).exists()
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / SPLIT}: the split can't be saved (Permission denied); it stays the same as long as the images do"
    ]
    assert read(tmp_path).fingerprint == unwritten.fingerprint


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"seed": 0, "share": 0.2}',
        b'{"seed": 0, "share": 0.2, "test": []}',
        b'{"seed": 0, "share": 0.2, "test": [1]}',
        b'{"seed": 0, "share": 0.2, "test": "a/1.png"}',
        b'{"seed": 1, "share": 0.2, "test": ["a/1.png"]}',
        b"\xff\xfe\x00",
        b"[" * 100_000,
    ],
)
def test_a_damaged_split_is_named(tmp_path: Path, content: bytes) -> None:
    write(tmp_path, "a/1.png", "a/2.png", "b/1.png", "b/2.png")
    (tmp_path / SPLIT).write_bytes(content)
    for purpose in get_args(Purpose):
        with pytest.raises(UserError, match=f"{SPLIT}: damaged.*; restore it, or delete it") as caught:
            read(tmp_path, purpose)
    assert len(str(caught.value)) < 500
    assert (tmp_path / SPLIT).read_bytes() == content


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([], "not a folder of classes, it has no folders; each class needs a folder of images"),
        (["1.png", "2.png"], "images such as 1.png lie directly in it; each class needs a folder of images"),
        (["a/1.png", "a/2.png"], "only one class, 'a'; at least two"),
        (["train/a/1.png", "val/a/1.png"], "train: only one class, 'a'"),
        (["a/1.png", "a/2.png", "b/1.png"], "b: only one image; a class needs two"),
        (["a/1.png", "a/2.png", "b/"], "b: no images in it, it is empty; .* Put some there"),
        (
            ["train/a/1.png", "train/b/x.txt", "val/a/1.png"],
            "b: no images in it, 1 file of other kinds: 'x.txt'; images",
        ),
        (["train/a/1.png", "train/b/1.png", "val/c/1.png"], "val/c: this class is missing from .*train"),
        (["train/a/1.png", "train/b/1.png"], "it has train but none of val, valid, validation, test"),
        (["train/a/1.png", "train/b/1.png", "val/1.png"], "val has no class folders"),
        (["train/a/1.png", "train/b/1.png", "val/a/1.txt"], "val: no images in it, 1 file of other kinds: 'a/1.txt'"),
        (
            ["train/a/1.png", "train/b/1.png", "val/a/1.png", "test/a/1.png"],
            "val and test exist, .* links .ln -s. to its train",
        ),
        (["val/a/1.png", "val/b/1.png"], "it has 'val' but no 'train'"),
        (["Train/a/1.png", "Test/a/1.png"], "Test: seems to be part of a split; name the two parts 'train' and 'val'"),
        (["x/train/a/1.png", "x/val/a/1.png"], "'x' is a data set itself; give .*x"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, paths: list[str], message: str) -> None:
    write(tmp_path, *paths)
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path)
    assert str(caught.value).startswith(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_class_called_train(tmp_path: Path) -> None:
    write(tmp_path, "bus/1.png", "bus/2.png", "train/1.png", "train/2.png")
    assert read(tmp_path).classes == ("bus", "train")


def test_a_class_with_test_images_only(tmp_path: Path) -> None:
    write(tmp_path, *(f"{c}/{i}.png" for c in "ab" for i in range(2)))
    kept = [n for n in names(read(tmp_path).train) if n.startswith("a/")]
    (tmp_path / kept[0]).unlink()
    with pytest.raises(UserError, match=f"a: {SPLIT} makes all its images test images. Add some, or delete"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("folder:{}/nowhere", "nowhere: no such folder"),
        ("{}/nowhere", "nowhere: no such folder"),
        ("folder:{}/a.zip", "a.zip: a file, not a folder; .* Unpack it first"),
        ("{}/a.zip", "a.zip: a file, not a folder; .* Unpack it first"),
        ("folder", "write folder:DIR, where DIR is the folder of images"),
        ("folder:" + "a" * 5000, r"can't be read \(File name too long\)"),
        ("~nosuchuser/x", "no home folder is known for '~nosuchuser'; write the whole path"),
        ("flowers", "give digits, .* or just DIR, a folder of images"),
        ("a\0b/c", "no such folder"),
    ],
)
def test_a_folder_that_is_not_there_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK")
    with pytest.raises(UserError, match=message):
        open_data(text.format(tmp_path))


@pytest.mark.parametrize("where", ["", "train", "train/a", "train/a/deep"])
def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    write(tmp_path, "train/a/deep/1.png", "train/b/1.png", "val/a/1.png")
    scandir = os.scandir

    def refuse(path: str) -> object:  # root reads what no one may read
        if Path(path) == tmp_path / where:
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"can't be read \(Permission denied\); make it readable") as caught:
        read(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / where}")


def test_an_error_is_one_line_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, "a/1.png", "a/2.png")
    assert main(["train", "digits", "--data", str(tmp_path), "--runs", str(tmp_path / "runs")]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}: only one class, 'a'")


def test_the_index_takes_less_than_100_bytes_an_image(tmp_path: Path) -> None:
    count = 2_000
    for name in ("n01440764", "n02102040"):
        (tmp_path / name).mkdir()
        for i in range(count // 2):
            (tmp_path / name / f"ILSVRC2012_val_{i:08d}.JPEG").touch()
    read(tmp_path)  # what is loaded on the way is not the index
    tracemalloc.start()
    data = read(tmp_path)
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert isinstance(data.train, Files)
    assert isinstance(data.test, Files)
    source = data.train.source
    arrays = [source.names.ends, source.labels, source.sizes, data.train.rows, data.test.rows]
    assert sys.getsizeof(source.names.content) + sum(array.nbytes for array in arrays) < 80 * count
    assert kept < 100 * count


def test_names_are_a_list_of_texts() -> None:
    texts = ["a/1.png", "", "é", "\udcff"]
    held = StringArray(iter(texts))
    assert (len(held), list(held), held[2]) == (4, texts, "é")
    assert list(StringArray(held.content, held.ends)) == texts
    assert list(StringArray([])) == []


def test_real_photographs(real_images: Callable[[str], Path]) -> None:
    data = read(real_images("hymenoptera"))
    assert (len(data.train), len(data.test), data.classes) == (245, 153, ("ants", "bees"))
    assert data.test.labels.bincount().tolist() == [70, 83]
    assert isinstance(data.train, Files)
    assert data.train.read(0).startswith(b"\xff\xd8")


def test_a_fifo_in_place_of_the_split_is_named(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(3):
            (tmp_path / name / f"{i}.png").write_bytes(b"")
    os.mkfifo(tmp_path / SPLIT)
    with pytest.raises(UserError, match=r"resnetlab-split.json: damaged, it is a FIFO, not a regular file; restore it"):
        read(tmp_path)


def test_an_evaluation_names_a_class_without_a_test_image(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(5):
            (tmp_path / name / f"{i}.png").write_bytes(b"")
    read(tmp_path)
    for path in (tmp_path / "a").iterdir():
        path.rename(path.with_name(f"new-{path.name}"))
    caplog.clear()
    found = open_data(f"folder:{tmp_path}", "evaluate")
    assert {int(label) for label in found.test.labels} == {1}
    assert "no test images are left for 'a', whose other images may be training images" in caplog.messages[-1]
