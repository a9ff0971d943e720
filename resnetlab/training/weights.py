"""Files of weights by anybody, read without executing code: safetensors, torch's own (old ones too), NumPy's npz."""

from __future__ import annotations

import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from resnetlab.errors import UserError, shown
from resnetlab.training.checkpoint import read_weights

MOST_BYTES = 16 * 2**30  # the largest ResNet file in use has below 2
NESTED = ("state_dict", "model_state_dict", "model", "net")  # under what name trainings save the network


def read_file(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a weight file by name, and the metadata of a safetensors file.

    What a file is, its content says. Raises UserError for one that is missing, damaged, too large or of another
    kind, and for one that torch could only open by executing what is in it.
    """
    try:
        if not path.is_file():
            raise UserError(f"{path}: not a file of weights.")
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(200)
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}).") from error
    if not size:
        raise UserError(f"{path}: is empty.")
    if size > MOST_BYTES:
        raise UserError(f"{path}: with {size / 2**30:,.0f} GiB too large for a network's weights.")
    if (
        head[8:9] == b"{" and int.from_bytes(head[:8], "little") < size
    ):  # first, since a length may look like the others
        return read_weights(path)
    if head.lstrip().startswith(b"<"):
        raise UserError(f"{path}: a web page, no weights; open it to see why the download failed.")
    if head.startswith(b"version https://git-lfs"):
        raise UserError(f"{path}: a pointer of Git LFS, no weights; fetch the file with 'git lfs pull'.")
    if head.startswith(b"PK"):
        return _read_zip(path), {}
    if head.startswith(b"\x80"):
        return _read_torch(path, size), {}
    if path.suffix == ".safetensors":
        return read_weights(path)
    raise UserError(f"{path}: not a file of weights (safetensors, torch or npz).")


def _read_zip(path: Path) -> dict[str, Tensor]:
    try:
        with zipfile.ZipFile(path) as archive:
            names, size = archive.namelist(), sum(entry.file_size for entry in archive.infolist())
    # NotImplementedError is what zipfile raises at a version or compression that it doesn't know.
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError) as error:
        raise UserError(f"{path}: not a whole file, it ends early or is damaged ({error}).") from error
    if size > MOST_BYTES:
        raise UserError(f"{path}: unpacks to {size / 2**30:,.0f} GiB, too large for a network's weights.")
    if any(name.endswith(".npy") for name in names):
        return _read_npz(path)
    if any("/code/" in name for name in names):
        raise UserError(f"{path}: a TorchScript program, no weights; save its state_dict() alone.")
    return _read_torch(path, size)


def _read_npz(path: Path) -> dict[str, Tensor]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    except Exception as error:  # as many kinds as there are ways to be damaged
        raise UserError(f"{path}: not a whole npz file of numbers ({_first_line(error)}).") from error


def _read_torch(path: Path, size: int) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings(action="ignore"):  # about kinds of storage that old files have
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # as many kinds as there are ways to be damaged
        if found := re.search(r"GLOBAL (\S+)", str(error)):  # a class or function that is no part of tensors
            raise UserError(
                f"{path}: refused, since opening it could execute code: it holds {found[1]}, and not tensors alone. "
                "Where you trust it, open it with the code that wrote it, and save its state_dict()."
            ) from error
        reason = _first_line(error.__context__ or error)
        raise UserError(f"{path}: not a whole torch file of tensors ({reason}).") from error
    return _tensors(path, content, size)


def _tensors(path: Path, content: Any, size: int) -> dict[str, Tensor]:
    """The network's tensors in what a file holds, which may lie below "state_dict" or the like."""
    for _ in range(4):
        name = next((n for n in NESTED if isinstance(content, dict) and isinstance(content.get(n), dict)), None)
        if name is None:
            break
        content = content[name]
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}, not tensors by name.")
    found: dict[str, Tensor] = {}
    for key, value in content.items():
        blobs = value if isinstance(value, list | tuple) else None  # a Caffe layer's
        for name, tensor in [(f"{key}.{i}", v) for i, v in enumerate(blobs)] if blobs else [(key, value)]:
            if not isinstance(name, str) or not isinstance(tensor, Tensor):
                raise UserError(f"{path}: {shown(name)} in it is a {type(tensor).__name__}, no tensor.")
            if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
                raise UserError(f"{path}: {name} in it is no plain tensor (sparse, quantised or without values).")
            if tensor.nbytes > size:
                raise UserError(f"{path}: {name} in it is larger than the file: {tuple(tensor.shape)}.")
            found[name] = tensor.detach()
    return found


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".:")
