"""Reads anybody's weight files without executing code: safetensors, torch's own (also old ones), NumPy's npz.

Weights may be split into several files, as by Hugging Face's libraries: an index states the file of each tensor.
Whether tensors fit is checked before anything is loaded, so that nothing is loaded partially.
"""

from __future__ import annotations

import json
import re
import warnings
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor
from torch.serialization import safe_globals

from resnetlab.errors import UserError, first_of, printable, shown
from resnetlab.run_files import RESULT, SETTINGS
from resnetlab.storage import Damaged, check_regular, is_there, read_json, read_regular
from resnetlab.weights.architectures import StatedClasses, stated_architecture, stated_classes
from resnetlab.weights.checksums import check_sums
from resnetlab.weights.wrapping import TRAINED, choose, is_average

MOST_BYTES = 16 * 2**30  # the largest ResNet files in use are below 2 GiB
MOST_HEADER = 100 * 10**6  # bytes, safetensors' own limit
DEEPEST = 4  # levels of nested dictionaries in which a network is searched
MOST_BLOBS = 3  # of a layer of Caffe's
INDEX = ".index.json"  # the end of the name of an index
SHARD = re.compile(r"(.+)-\d{5}-of-(\d{5})\.(safetensors|bin)")

BUILTINS = ("bool", "complex", "dict", "float", "frozenset", "int", "list", "range", "set", "slice", "str", "tuple")
# Types of settings and numbers that trainings save beside a network: each is replaced by an empty object, and nothing
# of theirs is imported or called.
INERT = (
    *("argparse.Namespace", "datetime.datetime", "datetime.timedelta", "types.SimpleNamespace", "uuid.UUID"),
    *(
        f"{module}.{kind}"  # torch.save writes Python 2's name of the module
        for module in ("builtins", "__builtin__")
        for kind in BUILTINS
    ),
    "__builtin__.xrange",
    *(f"pathlib{part}.{kind}" for part in ("", "._local") for kind in ("PosixPath", "WindowsPath", "PurePosixPath")),
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *("numpy.dtype", "numpy.ndarray"),
    *(f"numpy.dtypes.{kind}DType" for kind in ("Float16", "Float32", "Float64", "Int32", "Int64", "Bool", "UInt8")),
)


class Inert:
    """A stand-in for a setting in a file: it accepts any arguments, and keeps none of them."""

    def __new__(cls, *_: object) -> Inert:
        return super().__new__(cls)

    def __init__(self, *_: object):
        pass

    def __setstate__(self, _: object) -> None:
        pass


def _list(*_: object) -> list[object]:
    return []


def _dict(*_: object) -> dict[object, object]:
    return {}


FILLED = {"collections.deque": _list, "collections.defaultdict": _dict}  # by what torch agrees to fill in their place


@dataclass(frozen=True)
class Contents:
    """The contents of a weight file: a network's tensors by name, and what is stated about them."""

    tensors: dict[str, Tensor]
    header: dict[str, str] = field(default_factory=dict)  # texts of a safetensors file's header, by key
    left_out: tuple[str, ...] = ()  # names of values among them that are not tensors
    choice: str = ""  # which of several networks was taken, in words
    is_average: bool = False  # whether these are averaged weights that were chosen from several networks
    architecture: str = ""  # the name of the network that the file states
    classes: tuple[StatedClasses, ...] = ()
    in_order: bool = True  # whether the tensors are in the network's order; safetensors sorts them by name


def read_file(path: Path, which: str = "last") -> Contents:
    """The tensors of a weight file by name; of several networks in it the one that `choose` takes for `which`.

    The content decides the format. Raises UserError for a file that is missing, damaged, too large or of another
    kind, and for one that torch could open only by executing its contents.
    """
    try:
        if not path.is_file():
            run = path.parent.parent
            if not is_there(path) and (run / SETTINGS).is_file():
                if is_there(run / RESULT):
                    raise UserError(f"{run}: the run is finished, but its weights have been removed from the folder.")
                raise UserError(f"{run}: the run has saved no weights yet; the command that started it continues it.")
            check_regular(path)
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(200)
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}).") from error
    if not size:
        raise UserError(f"{path}: is empty.")
    if size > MOST_BYTES:
        raise UserError(f"{path}: too large for a network's weights, with {size / 2**30:,.0f} GiB.")
    if (
        head[8:9] == b"{" and int.from_bytes(head[:8], "little") < size
    ):  # checked first, since the length may look like the start of another format
        tensors, header = read_safetensors(path)
        return Contents(tensors, header, architecture=stated_architecture(header), in_order=False)
    suffix = path.suffix.lower()
    if head.lstrip().startswith(b"<") and suffix != ".xml":
        raise UserError(f"{path}: a web page, not weights; open it to see why the download failed.")
    if head.startswith(b"version https://git-lfs"):
        raise UserError(f"{path}: a Git LFS pointer, not weights; fetch the file with 'git lfs pull'.")
    if suffix in (".onnx", ".xml", ".pt2"):
        raise UserError(f"{path}: an exported file; give the run folder or weight file that it was exported from.")
    if head.startswith(b"PK"):
        return _read_zip(path, which)
    if head.startswith(b"\x80"):
        return _read_torch(path, size, which)
    if suffix == ".safetensors":
        return Contents(*read_safetensors(path))
    if suffix == ".bin" and (graph := path.with_suffix(".xml")).exists():
        raise UserError(
            f"{path}: the weights of the exported network {graph.name}, and of no use without it; give that file."
        )
    raise UserError(f"{path}: not a weight file (safetensors, torch or npz).")


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file: tensors by name, and the texts in its header.

    Raises UserError for a file that is missing, truncated or of another kind.
    """
    return parse_safetensors(path, read_regular(path, MOST_BYTES))


def parse_safetensors(path: Path, content: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Parse the content of a safetensors file: tensors by name, and the texts in its header. Raises UserError."""
    try:
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    # KeyError: a number type that torch does not have; RuntimeError: a tensor that does not fit.
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, OverflowError) as error:
        raise UserError(f"{path}: not a complete safetensors file ({error}).") from error
    return tensors, header.get("__metadata__") or {}


def read_header(path: Path) -> dict[str, str]:
    """The texts in a safetensors file's header; its tensors are not read. Raises UserError as `read_file` does."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(size, MOST_HEADER)))
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a complete safetensors file ({error}).") from error
    return header.get("__metadata__") or {}


def _read_zip(path: Path, which: str) -> Contents:
    try:
        with zipfile.ZipFile(path) as archive:
            names, size = archive.namelist(), sum(entry.file_size for entry in archive.infolist())
    # zipfile raises NotImplementedError for an unknown version or compression.
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError) as error:
        raise UserError(f"{path}: not a complete file, it is truncated or damaged ({error}).") from error
    if size > MOST_BYTES:
        raise UserError(f"{path}: unpacks to {size / 2**30:,.0f} GiB, too large for a network's weights.")
    if any(name.endswith(".npy") for name in names):
        return Contents(_read_npz(path))
    if not any(name.endswith("data.pkl") for name in names):
        there = first_of([printable(name) for name in names], 3) or "nothing"
        raise UserError(f"{path}: a zip archive of {there}, not weights; unpack it, and give the file in it.")
    if any("/code/" in name for name in names):
        raise UserError(f"{path}: a TorchScript program, not weights; save only its state_dict().")
    check_sums(path)
    return _read_torch(path, size, which)


def _read_npz(path: Path) -> dict[str, Tensor]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(_native(arrays[name])) for name in arrays.files}
    except Exception as error:  # as many kinds as there are ways to be damaged
        raise UserError(f"{path}: not a complete npz file of numbers ({_first_line(error)}).") from error


def _native(array: np.ndarray) -> np.ndarray:
    """The same numbers in this machine's byte order, the only one that torch has."""
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _read_torch(path: Path, size: int, which: str) -> Contents:
    inert: list[Any] = [*((Inert, name) for name in INERT), *((made, name) for name, made in FILLED.items())]
    try:
        with warnings.catch_warnings(action="ignore"), safe_globals(inert):  # warnings: kinds of storage of old files
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # as many kinds as there are ways to be damaged
        if found := re.search(r"GLOBAL (\S+)", str(error)):  # a class or function that is no part of tensors
            raise UserError(
                f"{path}: rejected, since opening it could execute code: it holds {found[1]}, not only tensors. "
                "If you trust it, open it with the code that wrote it, and save its state_dict()."
            ) from error
        reason = _first_line(error.__context__ or error)
        if "Unsupported operand" in reason:  # of a pickle: torch.save writes protocol 2
            raise UserError(
                f"{path}: a pickle of another protocol than torch's, which is not opened, since that could execute "
                "code; save the network's state_dict() with torch.save."
            ) from error
        raise UserError(f"{path}: not a complete torch file of tensors ({reason}).") from error
    if not isinstance(content, dict):
        raise UserError(
            f"{path}: holds a {type(content).__name__}, not tensors by name; save the network's state_dict()."
        )
    networks = _networks(content)
    if not networks and any(isinstance(value, Inert) and str(key).endswith("weight") for key, value in content.items()):
        raise UserError(f"{path}: its arrays are NumPy's, which are read from .npz files only; save them as tensors.")
    if not networks and not any(isinstance(value, Tensor | list | tuple) for value in content.values()):
        there = ", ".join(shown(key) for key in list(content)[:4])
        raise UserError(f"{path}: holds no network's tensors, only {there or 'an empty dictionary'}.")
    if not networks:
        return Contents(_tensors(path, content, size))
    if which == "ema" and not any(map(is_average, networks)):  # averages may be among the tensors, under a prefix
        which = "last"
    try:
        taken, choice = choose(list(networks), which, TRAINED)
    except UserError as error:
        raise UserError(f"{path}: {error}.") from error
    inside = list(networks.values())[taken]
    others = tuple(str(key) for key, value in inside.items() if not isinstance(value, Tensor | list | tuple))
    kept = {key: value for key, value in inside.items() if isinstance(value, Tensor | list | tuple)}
    contents = Contents(_tensors(path, kept, size), {}, others, choice, which == "ema")
    return replace(contents, architecture=stated_architecture(content), classes=stated_classes(content))


def _networks(content: dict[Any, Any]) -> dict[str, dict[Any, Any]]:
    """The dictionaries that hold convolutions' weights, by their keys, joined with dots."""
    found: dict[str, dict[Any, Any]] = {}
    seen: set[int] = set()  # a file may hold a dictionary that holds itself
    level = {"": content}
    for _ in range(DEEPEST + 1):
        found |= {name: inside for name, inside in level.items() if any(_is_conv(*item) for item in inside.items())}
        seen |= {id(inside) for inside in level.values()}
        level = {
            f"{name}.{key}".lstrip("."): value
            for name, inside in level.items()
            for key, value in inside.items()
            if isinstance(key, str) and isinstance(value, dict) and id(value) not in seen
        }
    return found


def _is_conv(name: object, value: object) -> bool:
    """Whether it is a convolution's weight, and not an optimiser's average of gradients, or a list of all weights."""
    if not isinstance(name, str):
        return False
    if isinstance(value, list | tuple) and 0 < len(value) <= MOST_BLOBS:
        return isinstance(value[0], Tensor) and value[0].ndim == 4
    return isinstance(value, Tensor) and value.ndim == 4 and bool(re.search(r"weight(_orig)?$|\.\d$", name))


def _tensors(path: Path, content: dict[Any, Any], size: int) -> dict[str, Tensor]:
    """A network's tensors by name, checked; the items of Caffe's lists are named by their numbers."""
    found: dict[str, Tensor] = {}
    for key, value in content.items():
        blobs = value if isinstance(value, list | tuple) else None  # a Caffe layer's
        for name, tensor in [(f"{key}.{i}", v) for i, v in enumerate(blobs)] if blobs else [(key, value)]:
            if not isinstance(name, str):
                raise UserError(f"{path}: a tensor's name is {shown(name)}, not a text; save the state_dict().")
            if not isinstance(tensor, Tensor):
                raise UserError(f"{path}: {shown(name)} in it is a {type(tensor).__name__}, not a tensor.")
            if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
                raise UserError(
                    f"{path}: {name} in it is not a plain tensor (it is sparse, quantised or without values)."
                )
            if tensor.nbytes > size:
                raise UserError(f"{path}: {name} in it is larger than the file: {tuple(tensor.shape)}.")
            found[name] = tensor.detach()
    return _unpruned(found)


def _unpruned(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with each pair that torch's pruning makes of one, NAME_orig and NAME_mask, multiplied; in order."""
    whole, masks = dict[str, Tensor](), set[str]()
    for key, tensor in found.items():
        name = key.removesuffix("_orig")
        mask = found.get(f"{name}_mask") if name != key else None
        if mask is not None and mask.shape == tensor.shape:
            masks.add(f"{name}_mask")
            key, tensor = name, tensor * mask
        whole[key] = tensor
    return {key: tensor for key, tensor in whole.items() if key not in masks}


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".:")


def check_fit(path: Path, name: str, wanted: dict[str, Tensor], found: dict[str, Tensor], hint: str = "") -> None:
    """Raise UserError, with what `misfit` says, unless the tensors fit. hint: the end of the message."""
    if words := misfit(wanted, found):
        raise UserError(f"{path}: does not fit {name or 'the network'}: {words}. Nothing was loaded.{hint}")


def misfit(wanted: dict[str, Tensor], found: dict[str, Tensor]) -> str:
    """The first keys, shapes and number types that differ from those wanted, in words; "" if none do.

    Also numbers that are not finite, and negative variances.
    """
    missing = [f"{k} {tuple(v.shape)}" for k, v in wanted.items() if k not in found]
    surplus = [f"{k} {tuple(found[k].shape)}" for k in sorted(found) if k not in wanted]
    shapes = [
        f"{k} is {tuple(found[k].shape)}, not {tuple(v.shape)}"
        for k, v in wanted.items()
        if k in found and found[k].shape != v.shape
    ]
    values = [f"{k} {wrong}" for k, v in wanted.items() if k in found and (wrong := value_trouble(k, v, found[k]))]
    parts = []
    for words, keys in (("it lacks", missing), ("it has the extra", surplus), ("in it", shapes), ("in it", values)):
        if keys:
            parts.append(f"{words} {first_of(keys, 3)}")
    return "; ".join(parts)


def value_trouble(name: str, wanted: Tensor, found: Tensor) -> str:
    """Why a tensor's numbers can't replace those of another tensor; "" if they can."""
    if found.is_meta:
        return "has no values"
    if not wanted.is_floating_point():
        return f"is of {found.dtype}, not {wanted.dtype}" if found.is_complex() else ""
    if not found.is_floating_point():
        return f"is of {found.dtype}, not {wanted.dtype}"
    as_wanted = found.to(wanted.dtype)
    # If any number is not finite, the extremes are not; checking each number would take ten times as long.
    if as_wanted.numel() and not torch.stack(as_wanted.aminmax()).isfinite().all():
        return "is not finite"
    return "is negative" if name.endswith("running_var") and (as_wanted < 0).any() else ""


class Index(TypedDict):
    """What an index holds: the name of a file in its folder, by the name of each tensor."""

    weight_map: dict[str, str]


def files_of(path: Path) -> list[Path]:
    """The files of weights: the file itself, or an index and its shards. Raises UserError."""
    if not path.name.endswith(INDEX):
        return [path]
    names = sorted(set(read_json(path, Index)["weight_map"].values()))
    for name in names:
        if not SHARD.fullmatch(name) or "/" in name or "\\" in name:
            raise Damaged(path, f"damaged, {shown(name)} in it is not the name of a part")
    return [path, *(path.with_name(name) for name in names)]


def read_all(path: Path, which: str) -> Contents:
    """As `read_file`, also for an index with all its parts. Raises UserError."""
    check_whole(path)
    index, *parts = files_of(path)
    if not path.name.endswith(INDEX):
        return read_file(path, which)
    there = sum(part.stat().st_size for part in parts if part.is_file())
    if there > MOST_BYTES:
        raise UserError(f"{path}: too large for a network's weights, with {there / 2**30:,.0f} GiB.")
    found = Contents({}, in_order=False)
    for part in parts:
        contents = read_file(part, which)
        if twice := found.tensors.keys() & contents.tensors.keys():
            raise Damaged(path, f"damaged, {shown(min(twice))} is in two of its parts")
        tensors, header = found.tensors | contents.tensors, found.header | contents.header
        found = replace(found, tensors=tensors, header=header, left_out=(*found.left_out, *contents.left_out))
    wanted = read_json(index, Index)["weight_map"]
    if missing := [name for name in wanted if name not in found.tensors]:
        raise Damaged(path, f"damaged, {shown(missing[0])} is in none of its parts")
    return found


def check_whole(path: Path) -> None:
    """Raise UserError if this is one of several files of a network."""
    part = SHARD.fullmatch(path.name)
    if part and int(part[2]) > 1:
        raise UserError(
            f"{path}: one of several files of a network; give their folder, or {part[1]}.{part[3]}{INDEX} beside it."
        )
