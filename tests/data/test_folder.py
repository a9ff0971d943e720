"""Folders of images: which layouts, classes and files count, and what is refused."""

from __future__ import annotations

import os
import socket
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from made_folders import messages, names, read, write
from PIL import Image

from resnetlab.cli.main import main
from resnetlab.data.files import Files
from resnetlab.data.open import open_data
from resnetlab.data.source import StringArray
from resnetlab.data.walk import SPLIT
from resnetlab.errors import UserError


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


@pytest.mark.parametrize(
    ("link", "to", "found"),
    [
        ("a/up", "..", "a/up: leads to {}, whose"),
        ("self", ".", "self: leads to {}, whose"),
        ("c", "a", "c: leads to {}/a, whose"),
        ("a/other", "../b", "a/other: leads to {}/b, whose"),
        ("a/deep", "../b/deep", "a/deep: leads to {}/b/deep, whose"),
    ],
)
def test_no_link_gives_images_to_two_classes(tmp_path: Path, link: str, to: str, found: str) -> None:
    write(tmp_path, *(f"{name}/{i}.png" for name in ("a", "b", "b/deep") for i in range(3)))
    (tmp_path / link).symlink_to(to)
    with pytest.raises(UserError) as refused:
        read(tmp_path)
    assert found.format(tmp_path) in str(refused.value)
    assert not (tmp_path / SPLIT).exists()


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


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([], "not a folder of classes, it has no folders; each class needs a folder of images"),
        (["1.png", "2.png"], "images such as 1.png lie directly in it; each class needs a folder of images"),
        (["a/1.png", "a/2.png"], "only one class, 'a'; at least two"),
        (["train/a/1.png", "val/a/1.png"], "train: only one class, 'a'"),
        (
            ["x/a/1.png", "x/b/1.png", "__MACOSX/1.png"],
            "only one class, 'x'; .* If 'a', 'b' are the classes, give .*x[.]$",
        ),
        (["a/one/1.png"], r"DIR/CLASS/\*\.$"),
        (
            ["a/1.png", "a/2.png", "b/1.png"],
            "b: only one image; a class needs two.* testing: add images, or move the folder away.$",
        ),
        (
            ["a/1.png", "a/2.png", "b/1.png", "c/1.png", "d/1.png"],
            "b: only one image; .* The same is true of 'c', 'd'.$",
        ),
        (["a/1.png", "a/2.png", "b/", "c/1.png", "d/"], "b: no images in it, .* The same is true of 'd'. Put some"),
        (["a/1.png", "a/2.png", "b/"], "b: no images in it, it is empty; .* Put some there"),
        (
            ["train/a/1.png", "train/b/x.txt", "val/a/1.png"],
            "b: no images in it, 1 file of other kinds: 'x.txt'; images",
        ),
        (["train/a/1.png", "train/b/1.png", "val/c/1.png"], "val/c: this class is missing from .*train"),
        (["train/Cat/1.png", "train/b/1.png", "val/cat/1.png"], "val/cat: this class is missing .* Did you mean Cat"),
        (["train/a/1.png", "train/b/1.png"], "it has train but none of val, valid, validation, test"),
        (["train/a/1.png", "train/b/1.png", "val/1.png"], "val has no class folders"),
        (["train/a/1.png", "train/b/1.png", "val/a/1.txt"], "val: no images in it, 1 file of other kinds: 'a/1.txt'"),
        (
            ["train/a/1.png", "train/b/1.png", "val/a/1.png", "test/a/1.png"],
            "val and test exist, .* links .ln -s. to its train",
        ),
        (["val/a/1.png", "val/b/1.png"], "it has 'val' but no 'train'"),
        (["Train/a/1.png", "Test/a/1.png"], "Test: seems to be part of a split; name the two parts 'train' and 'val'"),
        (["training_set/a/1.png", "test_set/a/1.png"], "test_set: seems to be part of a split"),
        (["seg_train/seg_train/a/1.png", "seg_test/seg_test/a/1.png"], "seg_test: seems to be part of a split"),
        (["x/train/a/1.png", "x/val/a/1.png"], "'x' is a data set itself; give .*x"),
        (["index.safetensors", "train.tar"], "it has index.safetensors, as data of another kind; give pack:.*"),
        (["dataset_dict.json", "train/a/1.png"], "it has dataset_dict.json, as data of another kind; give hf:.*"),
        (["cifar-10-batches-py/data_batch_1"], "it has cifar-10-batches-py, as data of another kind; give cifar10:.*"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, paths: list[str], message: str) -> None:
    write(tmp_path, *paths)
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path)
    assert str(caught.value).startswith(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_class_called_train(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, "bus/1.png", "bus/2.png", "train/1.png", "train/2.png")
    assert read(tmp_path).classes == ("bus", "train")
    said = "taken as a class; if its images are to be tested, move it away"
    assert [record.getMessage() for record in caplog.records] == [f"{tmp_path}/train: {said}"]


def test_folders_that_all_have_the_same_folders_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, *(f"{fold}/{name}/{i}.png" for fold in ("fold1", "fold2") for name in ("a", "b") for i in range(2)))
    assert read(tmp_path).classes == ("fold1", "fold2")
    (said,) = messages(caplog)
    assert "'fold1', 'fold2' are taken as classes, but each has the folders 'a', 'b'; if those are the classes" in said


def test_classes_with_such_words_in_their_names(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One may have subfolders; two are classes as long as images lie in them directly."""
    write(tmp_path, "freight train/a/1.png", "freight train/a/2.png", "bus/1.png", "bus/2.png")
    assert read(tmp_path).classes == ("bus", "freight train")
    write(tmp_path, "test tube/x/1.png", "test tube/2.png")
    assert read(tmp_path).classes == ("bus", "freight train", "test tube")
    assert not caplog.records


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
        ("flowers", "no data set and no folder here has this name; give digits, .* or just DIR, a folder of images"),
        ("a\0b/c", "holds a null character, which no path has"),
    ],
)
def test_a_folder_that_is_not_there_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK")
    with pytest.raises(UserError, match=message):
        open_data(text.format(tmp_path))


def test_a_misspelt_folder_is_found_among_those_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my flowers").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"'my flwers': no data set and no folder .* Did you mean my flowers"):
        open_data("my flwers")


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
