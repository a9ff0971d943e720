"""A Hugging Face dataset saved with `save_to_disk`: its splits, and its columns of images and classes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from resnetlab.data.files import Files
from resnetlab.data.folder import TEST, TRAIN, check_is_folder
from resnetlab.data.images import Data, Purpose
from resnetlab.data.source import StringArray
from resnetlab.errors import UserError, shown

MARK = "dataset_dict.json"  # written by `DatasetDict.save_to_disk`
EMPTY = "the split is empty; save the dataset again, with images in it or without this split."


@dataclass(frozen=True)
class Rows:
    """Images that are the rows of a split, encoded in its Arrow files or in files of their own."""

    folder: Path
    split: Any  # a datasets.Dataset with one column
    column: str
    names: StringArray
    labels: np.ndarray
    sizes: np.ndarray

    def read(self, row: int) -> bytes:
        """The encoded image; nothing else is read."""
        image = self.split[row][self.column]
        if image is None:
            raise OSError("the row has no image")
        content = image["bytes"]
        return Path(image["path"]).read_bytes() if content is None else content

    def place(self, row: int) -> str:
        """The split's folder, and the row."""
        return f"{self.folder}: row {row}"

    def file(self, row: int) -> Path | None:
        """None: only the library knows which of the Arrow files has it."""
        return None


def read_huggingface(kind: str, folder: Path, purpose: Purpose = "train", *_: object) -> Data:
    """Read "hf": a DatasetDict with `train` and one of `val`, `valid`, `validation`, `test`; only training needs
    `train`.

    The columns are found by type: one Image, one ClassLabel, whose names are the classes. Raises UserError for a
    folder of another kind, if `datasets` is not installed, and for splits or columns that are missing or ambiguous,
    and for a single class, except to evaluate.
    """
    check_is_folder(folder, f"{kind} needs the folder that a DatasetDict was saved to")
    if not (folder / MARK).is_file():
        single = " It holds a single Dataset" if (folder / "dataset_info.json").is_file() else " There is no " + MARK
        raise UserError(
            f"{folder}: not an {kind} folder.{single}; save with "
            "DatasetDict({'train': ..., 'test': ...}).save_to_disk(DIR)."
        )
    try:
        import datasets
    except ImportError as error:
        raise UserError(f"{kind}:{folder} needs another package: pip install 'resnetlab[hf]' ({error}).") from error
    try:
        splits = datasets.load_from_disk(str(folder))
    except Exception as error:  # Arrow, JSON and file errors, each of many kinds
        if isinstance(error, IndexError) and (empty := _without_files(folder)):
            raise UserError(f"{empty}: {EMPTY}") from error
        mend = "make it readable" if isinstance(error, PermissionError) else "save it again"
        raise UserError(f"{folder}: can't be read as a dataset ({error}); {mend}.") from error
    found = [name for name in splits if name in TEST]
    if (TRAIN not in splits and purpose == "train") or len(found) != 1:
        raise UserError(
            f"{folder}: it has the splits {', '.join(splits)}; {TRAIN} and one of {', '.join(TEST)} are needed. Save "
            "it with the ones you want."
        )
    tested = splits[found[0]]
    image = _column(folder, tested, "Image")
    label = _column(folder, tested, "ClassLabel")
    classes = tuple(tested.features[label].names)
    if purpose != "evaluate" and len(classes) == 1:
        raise UserError(f"{folder}: only one class, {shown(classes[0])}; at least two are needed.")
    test = Files.all_of(_rows(folder / found[0], tested, image, label, classes))
    if TRAIN not in splits:
        return Data(kind, test[:0], test, classes, f"{found[0]} alone")
    for column in (image, label):
        if splits[TRAIN].features.get(column) != tested.features[column]:
            differs = f"is missing, or has another type or other classes than that of {found[0]}"
            raise UserError(f"{folder}: the column {shown(column)} of {TRAIN} {differs}; save it again.")
    train = Files.all_of(_rows(folder / TRAIN, splits[TRAIN], image, label, classes))
    return Data(kind, train, test, classes, found[0])


def _without_files(folder: Path) -> Path | None:
    """A split that was saved without rows: `datasets` writes no file for it, and can't load that."""
    states = sorted(folder.glob("*/state.json"))
    return next((state.parent for state in states if not any(state.parent.glob("*.arrow"))), None)


def _column(folder: Path, split: Any, wanted: str) -> str:
    found = [name for name, feature in split.features.items() if type(feature).__name__ == wanted]
    if len(found) != 1:
        has = f"several, {', '.join(found)}" if found else f"none among {', '.join(split.features)}"
        raise UserError(f"{folder}: exactly one column of type {wanted} is needed, but it has {has}. Save it with one.")
    return found[0]


def _rows(folder: Path, split: Any, image: str, label: str, classes: tuple[str, ...]) -> Rows:
    import pyarrow.compute as pc
    from datasets import Image

    labels = pc.fill_null(split.data.column(label), -1).to_numpy().astype(np.int32)
    if not len(labels):
        raise UserError(f"{folder}: {EMPTY}")
    if not (labels.min() >= 0 and labels.max() < len(classes)):
        row = int(np.flatnonzero((labels < 0) | (labels >= len(classes)))[0])
        raise UserError(f"{folder}: row {row} has no label; every image needs one.")
    images = split.data.column(image)
    # The lengths are read from the offsets that Arrow keeps, the images are not touched.
    sizes = pc.fill_null(pc.binary_length(pc.struct_field(images, "bytes")), -1).to_numpy().astype(np.int64)
    paths = pc.struct_field(images, "path")
    for row in np.flatnonzero(sizes < 0).tolist():
        path = paths[row].as_py()
        sizes[row] = os.path.getsize(path) if path and os.path.isfile(path) else 0
    plain = [name.replace("/", "_") for name in classes]
    names = StringArray(f"{plain[at]}/{row}" for row, at in enumerate(labels.tolist()))
    # A format that was set before saving is saved, too: it may leave the images out, or make tensors of them.
    plain_rows = split.with_format(None).select_columns([image]).cast_column(image, Image(decode=False))
    return Rows(folder, plain_rows, image, names, labels, sizes)
