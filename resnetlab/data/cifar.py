"""CIFAR-10 and CIFAR-100 from the official Python batches, read without executing their contents.

The files are pickles, and unpickling an unknown file can run any code. `read_batch` accepts only what these
files consist of: plain containers, text, numbers, and one array of bytes, whose parts it keeps as inert
values and never passes to numpy's own reconstruction.
"""

from __future__ import annotations

import io
import pickle
import shlex
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from resnetlab.data.images import Data, Images
from resnetlab.errors import UserError
from resnetlab.storage import content_of


class Layout(NamedTuple):
    """The files and keys of a CIFAR release."""

    folder: str
    train: tuple[str, ...]
    test: str
    labels: str
    meta: str
    class_names: str
    classes: int

    @property
    def files(self) -> tuple[str, ...]:
        """The files in the folder that are read."""
        return (*self.train, self.test, self.meta)


LAYOUTS = {
    "cifar10": Layout(
        "cifar-10-batches-py",
        tuple(f"data_batch_{i}" for i in range(1, 6)),
        "test_batch",
        "labels",
        "batches.meta",
        "label_names",
        10,
    ),
    "cifar100": Layout("cifar-100-python", ("train",), "test", "fine_labels", "meta", "fine_label_names", 100),
}


def read_cifar(kind: str, folder: Path, *_: object) -> Data:
    """Read "cifar10" or "cifar100" from `folder`, or from the release's own folder inside it.

    Returns 50,000 training and 10,000 test images of 3x32x32 (fewer if the batches hold fewer). Raises
    UserError, naming the file, for a missing, truncated or foreign one.
    """
    layout, fetch = LAYOUTS[kind], f"resnetlab data fetch {kind}"
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; to fetch {kind} into it: {fetch} {shlex.quote(str(folder))}")
    if not (folder / layout.train[0]).exists() and (folder / layout.folder).is_dir():
        folder = folder / layout.folder
    if missing := missing_batches(kind, folder):
        raise UserError(f"{folder}: not a {kind} folder, it lacks {', '.join(missing)}; to fetch it: {fetch} DIR")
    meta = folder / layout.meta
    classes = read_batch(meta).get(layout.class_names)
    names = [_text(c) for c in classes] if isinstance(classes, list) else []
    if len(names) != layout.classes or not all(isinstance(n, str) for n in names):
        raise UserError(f"{meta}: damaged, it should hold {layout.classes} names under {layout.class_names!r}.")
    parts = [_images(folder / name, layout) for name in layout.train]
    train = Images(torch.cat([p.pixels for p in parts]), torch.cat([p.labels for p in parts]))
    return Data(kind, train, _images(folder / layout.test, layout), tuple(names))


def missing_batches(kind: str, folder: Path) -> list[str]:
    """The names of the files that the folder of a release lacks."""
    return [name for name in LAYOUTS[kind].files if not (folder / name).is_file()]


def _images(path: Path, layout: Layout) -> Images:
    batch = read_batch(path)
    pixels, labels = batch.get("data"), batch.get(layout.labels)
    if not isinstance(pixels, np.ndarray) or pixels.ndim != 2 or pixels.shape[1] != 3072 or len(pixels) == 0:
        raise UserError(f"{path}: damaged, 'data' should hold rows of 3,072 bytes; fetch the file again.")
    if not isinstance(labels, list) or len(labels) != len(pixels):
        raise UserError(f"{path}: damaged, it should hold one of {layout.labels!r} per image; fetch the file again.")
    if not all(type(label) is int and 0 <= label < layout.classes for label in labels):
        raise UserError(f"{path}: damaged, labels should be 0 to {layout.classes - 1}; fetch the file again.")
    # Rows are the red, green and blue planes in turn: N 3072 -> N C H W.
    return Images(torch.from_numpy(pixels.reshape(-1, 3, 32, 32)), torch.tensor(labels, dtype=torch.int64))


def read_batch(path: Path) -> dict[str, Any]:
    """Read one batch file: its dictionary, with text keys and `data` as uint8 N 3072.

    Raises UserError for a file that is unreadable or truncated, or holds anything that these files don't.
    """
    try:
        raw = content_of(path)
        if not raw.endswith(pickle.STOP):
            raise EOFError("its end is missing")
        content = _BatchReader(io.BytesIO(raw)).load()
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}).") from error
    except _Foreign as error:
        raise UserError(
            f"{path}: not a CIFAR batch, it asks to run {error}; rejected, nothing was executed."
        ) from error
    except Exception as error:  # a damaged pickle fails in as many ways as there are opcodes
        raise UserError(f"{path}: truncated or damaged ({error}); fetch the file again.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a CIFAR batch, it does not hold a dictionary.")
    read = {_text(key): value for key, value in content.items() if isinstance(key, str | bytes)}
    if isinstance(read.get("data"), _Array):
        read["data"] = read["data"].numpy(path)
    return read


def _text(value: Any) -> Any:
    return value.decode("latin-1") if isinstance(value, bytes) else value


class _Foreign(Exception):
    """The pickle names something that no CIFAR file contains."""


class _Dtype:
    """Stands for numpy.dtype: keeps its arguments."""

    def __init__(self, code: Any = None, *_: Any):
        self.code = _text(code)

    def __setstate__(self, state: Any) -> None:
        pass  # byte order and alignment, which don't matter for bytes


class _Array:
    """Stands for numpy.ndarray: keeps shape, type and bytes as they were written."""

    shape: Any = None
    dtype: Any = None
    fortran: Any = False
    content: Any = b""

    def __setstate__(self, state: Any) -> None:
        _, self.shape, self.dtype, self.fortran, self.content = state

    def numpy(self, path: Path) -> np.ndarray:
        if not isinstance(self.dtype, _Dtype) or self.dtype.code not in ("u1", "|u1"):
            raise UserError(f"{path}: damaged, its images are not bytes; fetch the file again.")
        if not isinstance(self.content, bytes | bytearray):  # bytearray(10**14) would ask for so many bytes
            raise UserError(f"{path}: damaged, its images hold no bytes; fetch the file again.")
        try:
            flat = np.frombuffer(bytearray(self.content), dtype=np.uint8)  # a bytearray, so that it may be written
            return np.ascontiguousarray(flat.reshape(self.shape, order="F" if self.fortran else "C"))
        except (TypeError, ValueError, OverflowError) as error:
            raise UserError(f"{path}: truncated, {error}; fetch the file again.") from error


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.shape, array.dtype, array.fortran, array.content = shape, dtype, order == "F", content
    return array


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise _Foreign("_codecs.encode on something other than text")
    return text.encode("latin-1")


# The names in the official files (numpy.core), and in files rewritten by Python 3 and a newer numpy.
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _encode,
}


class _BatchReader(pickle._Unpickler):
    """An unpickler that knows only the inert stand-ins above.

    It is based on the unpickler written in Python: in the C version a few damaged bytes can request many gigabytes.
    """

    def __init__(self, file: io.BytesIO):
        super().__init__(file, encoding="bytes")

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _Foreign(f"{module}.{name}") from None

    def load_build(self) -> None:
        """Set an object's state, but only a stand-in's: set on a function, it would change that function everywhere."""
        found = self.stack[-2]  # type: ignore[attr-defined]
        if not isinstance(found, _Array | _Dtype):
            raise _Foreign(f"__setstate__ of a {type(found).__name__}")
        super().load_build()  # type: ignore[misc]

    dispatch = {**pickle._Unpickler.dispatch, pickle.BUILD[0]: load_build}  # type: ignore[dict-item]
