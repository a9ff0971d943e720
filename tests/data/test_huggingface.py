"""Datasets of Hugging Face: splits, columns found by type, images undecoded; what does not fit is named."""

from __future__ import annotations

import builtins
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from resnetlab.data.files import Files
from resnetlab.data.huggingface import Rows
from resnetlab.data.images import Data
from resnetlab.data.open import open_data
from resnetlab.data.source import StringArray
from resnetlab.errors import UserError


def png(colour: int) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (2 + colour, 2), (colour, 0, 0)).save(content, "PNG")
    return content.getvalue()


def test_without_the_package_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dataset_dict.json").write_text("{}")
    imported = builtins.__import__

    def refuse(name: str, *arguments: Any) -> Any:
        if name == "datasets":
            raise ModuleNotFoundError("No module named 'datasets'")
        return imported(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(UserError, match=r"needs another package: pip install 'resnetlab\[hf\]'"):
        open_data(f"hf:{tmp_path}")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], r"not an hf folder. There is no dataset_dict.json; save with DatasetDict\("),
        (["dataset_info.json"], "not an hf folder. It holds a single Dataset; save with"),
    ],
)
def test_another_folder_is_named(tmp_path: Path, files: list[str], message: str) -> None:
    for name in files:
        (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match=message):
        open_data(f"hf:{tmp_path}")


def test_a_row_without_an_image_is_unreadable(tmp_path: Path) -> None:
    one = np.zeros(1, np.int32)
    rows = Rows(tmp_path, [{"photo": None}], "photo", StringArray(["dog/0"]), one, one)
    with pytest.raises(OSError, match="the row has no image"):
        rows.read(0)


def saved(folder: Path, train: dict[str, Any] | None = None, test: str = "test", **more: Any) -> Path:
    """Save a DatasetDict of three training images and one test image of the classes "dog" and "a/cat"."""
    datasets = pytest.importorskip("datasets", reason="needs the extra hf: pip install 'resnetlab[hf]'")
    features = {
        "photo": datasets.Image(),
        "kind": datasets.ClassLabel(names=["dog", "a/cat"]),
        "note": datasets.Value("string"),
    }
    features = datasets.Features(features | more)
    rows = {"photo": [{"bytes": png(i), "path": None} for i in range(3)], "kind": [1, 0, 1], "note": ["x"] * 3}
    rows |= {name: rows["photo" if name == "other" else "kind"] for name in more}
    rows |= train or {}
    splits = {"train": datasets.Dataset.from_dict(rows, features=features)}
    for name in test.split():
        splits[name] = datasets.Dataset.from_dict({k: v[:1] for k, v in rows.items()}, features=features)
    datasets.DatasetDict(splits).save_to_disk(str(folder / "saved"))
    return folder / "saved"


@pytest.mark.parametrize("test", ["test", "validation"])
def test_images_are_read_as_they_were_saved(tmp_path: Path, test: str) -> None:
    folder = saved(tmp_path, test=test)
    data = open_data(f"hf:{folder}")
    assert (data.name, data.classes, len(data.train), len(data.test)) == ("hf", ("dog", "a/cat"), 3, 1)
    assert isinstance(data.train, Files)
    assert data.train.labels.tolist() == [1, 0, 1]
    assert [data.train.read(i) for i in range(3)] == [png(0), png(1), png(2)]
    assert data.train.source.sizes.tolist() == [len(png(i)) for i in range(3)]
    assert [data.train.name(i) for i in range(3)] == ["a_cat/0", "dog/1", "a_cat/2"]
    assert data.train.place(2) == f"{folder / 'train'}: row 2"
    assert pickle.loads(pickle.dumps(data.train)).read(1) == png(1)  # as a loader's processes get it
    assert open_data(f"hf:{folder}").fingerprint == data.fingerprint


def test_a_test_split_alone_is_evaluated(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    whole = open_data(f"hf:{folder}", "evaluate")
    assert (len(whole.train), len(whole.test), whole.part) == (3, 1, "test")
    (folder / "dataset_dict.json").write_text('{"splits": ["test"]}')
    data = open_data(f"hf:{folder}", "evaluate")
    assert (len(data.train), len(data.test), data.part) == (0, 1, "test alone")
    assert (data.classes, names_of(data)) == (whole.classes, names_of(whole))
    with pytest.raises(UserError, match="it has the splits test; train and one of"):
        open_data(f"hf:{folder}")


def names_of(data: Data) -> list[str]:
    assert isinstance(data.test, Files)
    return [data.test.name(i) for i in range(len(data.test))]


def test_images_in_files_of_their_own(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="needs the extra hf: pip install 'resnetlab[hf]'")
    paths = [tmp_path / f"{i}.png" for i in range(2)]
    for i, path in enumerate(paths):
        path.write_bytes(png(i))
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    part = datasets.Dataset.from_dict({"image": [*map(str, paths)], "label": [0, 1]}, features=features)
    part.save_to_disk(str(tmp_path / "saved" / "train"))
    folder = tmp_path / "saved"
    datasets.DatasetDict({"train": part, "test": part}).save_to_disk(str(folder))
    data = open_data(f"hf:{folder}")
    assert isinstance(data.test, Files)
    assert data.test.source.sizes.tolist() == [len(png(0)), len(png(1))]
    assert data.test.read(1) == png(1)


def test_splits_and_columns_that_are_not_clear_are_named(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="needs the extra hf: pip install 'resnetlab[hf]'")
    classes = datasets.ClassLabel(names=["x", "y"])
    cases: list[tuple[dict[str, Any], str]] = [
        ({"test": "test validation"}, "the splits train, test, validation; train and one of val, .* are needed"),
        ({"test": "unsupervised"}, "the splits train, unsupervised; train and one of"),
        ({"other": datasets.Image()}, "one column of type Image is needed, but it has several, photo, other"),
        ({"fine": classes}, "one column of type ClassLabel is needed, but it has several, kind, fine"),
        ({"photo": datasets.Value("string"), "train": {"photo": ["a"] * 3}}, "Image .* it has none among photo, kind"),
        ({"train": {"kind": [0, None, 1]}}, "train: row 1 has no label; every image needs one"),
    ]
    for i, (options, message) in enumerate(cases):
        with pytest.raises(UserError, match=message):
            open_data(f"hf:{saved(tmp_path / str(i), **options)}")


def test_splits_differ_only_in_columns_that_are_not_used(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="needs the extra hf: pip install 'resnetlab[hf]'")
    folder = saved(tmp_path)
    whole = open_data(f"hf:{folder}")
    train, test = (datasets.load_from_disk(str(folder))[name] for name in ("train", "test"))

    def opened(name: str, changed: Any) -> Data:
        datasets.DatasetDict({"train": changed, "test": test}).save_to_disk(str(tmp_path / name))
        return open_data(f"hf:{tmp_path / name}")

    assert opened("fewer", train.remove_columns("note")).classes == whole.classes
    assert len(opened("more", train.add_column("size", [1, 2, 3])).train) == 3
    others = train.cast_column("kind", datasets.ClassLabel(names=["dog", "bird"]))
    for name, changed, column in (("a", others, "kind"), ("b", train.rename_column("photo", "image"), "photo")):
        with pytest.raises(UserError, match=f"the column '{column}' of train is missing, or has .* that of test; save"):
            opened(name, changed)


def test_one_class_can_be_evaluated_and_not_trained(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="needs the extra hf: pip install 'resnetlab[hf]'")
    folder = saved(tmp_path, {"kind": [0, 0, 0]}, kind=datasets.ClassLabel(names=["dog"]))
    with pytest.raises(UserError, match="saved: only one class, 'dog'; at least two are needed"):
        open_data(f"hf:{folder}")
    assert open_data(f"hf:{folder}", "evaluate").classes == ("dog",)


def test_a_damaged_dataset_is_named(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    for arrow in (folder / "train").glob("*.arrow"):
        arrow.write_bytes(b"x")
    with pytest.raises(UserError, match="saved: can't be read as a dataset .*; save it again"):
        open_data(f"hf:{folder}")
    (folder / "dataset_dict.json").write_text("{")
    with pytest.raises(UserError, match="saved: can't be read as a dataset .*; save it again"):
        open_data(f"hf:{folder}")


def test_a_dataset_that_may_not_be_read_need_not_be_saved_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved(tmp_path)
    datasets = pytest.importorskip("datasets", reason="needs the extra hf: pip install 'resnetlab[hf]'")

    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", f"{path}/train/data-00000-of-00001.arrow")

    monkeypatch.setattr(datasets, "load_from_disk", refuse)
    with pytest.raises(UserError, match=r"Permission denied: '.*/train/data-.*\.arrow'\); make it readable\.$"):
        open_data(f"hf:{folder}")


def test_a_row_without_an_image_can_not_be_read(tmp_path: Path) -> None:
    data = open_data(f"hf:{saved(tmp_path, {'photo': [None, {'bytes': png(1), 'path': None}, None]})}")
    assert isinstance(data.train, Files)
    assert data.train.source.sizes.tolist() == [0, len(png(1)), 0]
    with pytest.raises(OSError, match="no image"):
        data.train.read(0)


@pytest.mark.parametrize("shape", [{"columns": ["kind"]}, {"type": "torch"}, {"type": "pandas"}])
def test_the_format_that_a_dataset_was_saved_with_changes_nothing(tmp_path: Path, shape: dict[str, Any]) -> None:
    folder = saved(tmp_path)
    datasets = pytest.importorskip("datasets", reason="needs the extra hf: pip install 'resnetlab[hf]'")
    datasets.load_from_disk(str(folder)).with_format(**shape).save_to_disk(str(tmp_path / "shaped"))
    data, plain = open_data(f"hf:{tmp_path / 'shaped'}"), open_data(f"hf:{folder}")
    assert isinstance(data.train, Files)
    assert [data.train.read(i) for i in range(3)] == [png(0), png(1), png(2)]
    assert data.fingerprint == plain.fingerprint


@pytest.mark.parametrize("part", ["train", "test"])
def test_an_empty_split_is_named(tmp_path: Path, part: str) -> None:
    folder = saved(tmp_path)
    datasets = pytest.importorskip("datasets", reason="needs the extra hf: pip install 'resnetlab[hf]'")
    splits = datasets.load_from_disk(str(folder))
    splits[part] = splits[part].select([])
    splits.save_to_disk(str(tmp_path / "empty"))
    with pytest.raises(UserError, match=f"empty/{part}: the split is empty; save the dataset again"):
        open_data(f"hf:{tmp_path / 'empty'}")
