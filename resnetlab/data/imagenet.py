"""ImageNet, ILSVRC2012: from the official tars, read in place, or from unpacked folders; both are the same data."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import tarfile
import zlib
from functools import cache, lru_cache
from importlib import resources
from pathlib import Path

import numpy as np

from resnetlab.data.files import Files
from resnetlab.data.folder import check_classes, check_is_folder, class_folders, scan
from resnetlab.data.images import Data, Purpose
from resnetlab.data.source import ArchiveFiles, FolderFiles, Source, StringArray
from resnetlab.data.tars import Index, index_of
from resnetlab.data.walk import images_below
from resnetlab.errors import UserError, shown

TRAIN_TAR, VAL_TAR = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
DEVKIT = "ILSVRC2012_devkit_t12"
TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
_NUMBERED = re.compile(r"(?:.*/)?ILSVRC2012_val_(\d{8})\.JPEG")

_log = logging.getLogger(__name__)


@cache
def class_names() -> dict[str, str]:
    """The 1,000 WordNet ids in the order of the labels, with a short English name of each.

    No two names are the same: the two cranes are "crane bird" and "crane", the two maillots "maillot" and "maillot
    tank suit".
    """
    table = resources.files("resnetlab.data").joinpath("imagenet_classes.tsv").read_text(encoding="utf-8")
    return dict(line.split("\t") for line in table.splitlines())


def read_imagenet(kind: str, folder: Path, purpose: Purpose = "train", *_: object) -> Data:
    """Read ILSVRC2012, or some of its classes, from a folder with both of

    - training images: `train/WNID/*.JPEG`, or ILSVRC2012_img_train.tar, a tar of the tars of the classes;
    - validation images: `val/WNID/*.JPEG`; or `val/*.JPEG` or ILSVRC2012_img_val.tar, with the devkit beside it.

    Only training needs the training images. Without them the classes are those of the validation folders, or all
    1,000; otherwise they are those of the training images, in the order of their WordNet ids. Images are named
    "WNID/FILE" and sorted by that, so that all layouts give the same fingerprint. Nothing is unpacked; an index of the
    tars is saved (`tars.index_of`). Raises UserError, naming the file, if it is missing, truncated, damaged, or does
    not fit.
    """
    check_is_folder(folder, f"{kind} needs the folder with {TRAIN_TAR} and its siblings, or with train and val")
    wanted = {"train": TRAIN_TAR, "val": VAL_TAR}
    missing = [tar for name, tar in wanted.items() if not ((folder / name).is_dir() or (folder / tar).is_file())]
    alone = missing == [TRAIN_TAR] and purpose != "train"
    if missing and not alone:
        found = sorted(path.name for path in folder.iterdir())
        words = f"found: {', '.join(found[:8])}{', ...' if len(found) > 8 else ''}" if found else "it is empty"
        raise UserError(
            f"{folder}: not an {kind} folder, it lacks {' and '.join(missing)} "
            f"(or, unpacked, {' and '.join(name for name, tar in wanted.items() if tar in missing)}); {words}."
        )
    names = class_names()
    if alone:
        inside = class_folders(folder / "val") if (folder / "val").is_dir() else []
        classes = inside or list(names)
        images = Files.all_of(_val(folder, classes))
        return Data(kind, images[:0], images, tuple(names[wnid] for wnid in classes), "val alone")
    if (folder / "train").is_dir():
        classes = check_classes(folder / "train", class_folders(folder / "train"))
        _check_known(folder / "train", classes)
        train: Source = scan(folder / "train", classes)
    else:
        classes, train = _train_tar(folder / TRAIN_TAR)
    test = _val(folder, classes)
    if len(classes) < len(names):
        _log.warning("%s: %d of ImageNet's 1,000 classes", folder, len(classes))
    return Data(kind, Files.all_of(train), Files.all_of(test), tuple(names[wnid] for wnid in classes))


def _check_known(place: Path, wnids: list[str]) -> None:
    if unknown := [wnid for wnid in wnids if wnid not in class_names()]:
        raise UserError(
            f"{place}: {shown(unknown[0])} is not one of ImageNet's 1,000 WordNet ids, such as n01440764; "
            "for a folder of other classes, use folder:DIR."
        )


def _train_tar(tar: Path) -> tuple[list[str], Source]:
    index = index_of(tar)
    labels = [name.partition("/")[0] for name in index.names]
    wnids = sorted(set(labels))
    if len(wnids) < 2 or not all("/" in name for name in index.names):
        raise UserError(f"{tar}: not the tar of training images, which holds n01440764.tar and so on.")
    _check_known(tar, wnids)
    return wnids, _inside(tar, index, *_ordered(index.names, labels, wnids))


def _val(folder: Path, classes: list[str]) -> Source:
    """The validation images, labelled by their folders or by the devkit."""
    val, tar = folder / "val", folder / VAL_TAR
    if not val.is_dir():
        index = index_of(tar)
        return _inside(tar, index, *_ordered(index.names, _labels(folder, tar, classes, index.names), classes))
    if wnids := class_folders(val):
        _check_known(val, wnids)
        if unknown := [wnid for wnid in wnids if wnid not in classes]:
            raise UserError(f"{val / unknown[0]}: this class has no training images; move it away.")
        return scan(val, classes, may_lack=True)
    found = images_below(val, [])
    paths = StringArray(path for path, _ in found)
    order, names, labels = _ordered(paths, _labels(folder, val, classes, paths), classes)
    sizes = np.array([size for _, size in found], dtype=np.int64)[order]
    return FolderFiles(val, names, labels, sizes, StringArray(paths[i] for i in order.tolist()))


def _ordered(names: StringArray, wnids: list[str], classes: list[str]) -> tuple[np.ndarray, StringArray, np.ndarray]:
    """Order images, the i-th of class `wnids[i]`, by "WNID/FILE": their rows in that order, those names, labels."""
    label_of = {wnid: i for i, wnid in enumerate(classes)}
    full = [f"{wnid}/{name.rpartition('/')[2]}" for wnid, name in zip(wnids, names, strict=True)]
    order = sorted(range(len(full)), key=full.__getitem__)
    labels = np.array([label_of[wnids[i]] for i in order], dtype=np.int32)
    return np.array(order, dtype=np.int64), StringArray(full[i] for i in order), labels


def _inside(tar: Path, index: Index, order: np.ndarray, names: StringArray, labels: np.ndarray) -> ArchiveFiles:
    which = np.zeros(len(order), dtype=np.int32)
    return ArchiveFiles((tar,), names, labels, index.sizes[order], which, index.starts[order])


def _labels(folder: Path, place: Path, classes: list[str], names: StringArray) -> list[str]:
    """The WordNet id of each validation image in `place`: line i of the ground truth is that of the i-th image."""
    source, wnids = _ground_truth(folder, place)
    if len(wnids) != len(names):
        raise UserError(
            f"{source}: has the ground truth of {len(wnids):,} images, but {place} has {len(names):,}; "
            "download the incomplete one again."
        )
    if unknown := sorted({wnid for wnid in wnids if wnid not in classes}):
        raise UserError(
            f"{place}: it has images of {unknown[0]}, which has no training images; for a subset of the classes, "
            "make a folder val with a folder for each of them."
        )
    found: dict[int, str] = {}
    for name in names:
        match = _NUMBERED.fullmatch(name)
        number = int(match[1]) if match else 0
        if not 1 <= number <= len(wnids):
            raise UserError(f"{place}: {name} is not one of ILSVRC2012_val_00000001.JPEG to {len(wnids):08d}.")
        if number in found:  # then another one is missing
            raise UserError(f"{place}: {name} is there twice; download it again.")
        found[number] = wnids[number - 1]
    return list(found.values())


def _ground_truth(folder: Path, place: Path) -> tuple[Path, list[str]]:
    """The place of the devkit, and the WordNet id that it states for each validation image.

    Its numbers are ILSVRC2012_IDs, whose order differs from that of the labels; meta.mat states the class of each.
    """
    source, (truth, meta) = _devkit(folder, place)
    try:
        wnid_of = _wnids(meta)
    except ValueError as error:
        raise UserError(f"{source}: its {META} is damaged ({error}); fetch it again.") from error
    numbers = truth.decode("latin-1").split()
    for line, number in enumerate(numbers, 1):
        if not (number.isdecimal() and wnid_of.get(int(number)) in class_names()):
            raise UserError(f"{source}: {TRUTH} is damaged, line {line} is {shown(number)}, not an ILSVRC2012_ID.")
    return source, [wnid_of[int(number)] for number in numbers]


_READ_META = """
import io, json, sys
import numpy as np
from scipy.io import loadmat
synsets = np.atleast_1d(loadmat(io.BytesIO(sys.stdin.buffer.read()), squeeze_me=True)["synsets"])
pairs = zip(synsets["ILSVRC2012_ID"], synsets["WNID"], strict=True)
print(json.dumps([[int(number), str(wnid)] for number, wnid in pairs]))
"""
_META_SECONDS = 120  # far more than it takes


@lru_cache(maxsize=1)
def _wnids(meta: bytes) -> dict[int, str]:
    """ILSVRC2012_ID -> WordNet id, from the content of meta.mat. Raises ValueError if it is damaged.

    It runs in a process of its own: the compiled part of scipy's reader crashes on some damaged files, and must not
    take a training down with it.
    """
    command = [sys.executable, "-P", "-c", _READ_META]
    try:
        done = subprocess.run(command, input=meta, capture_output=True, timeout=_META_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise ValueError("reading it takes too long") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise ValueError(said[-1][:200] if done.returncode > 0 and said else "its reader crashes on it")
    return dict(json.loads(done.stdout))


def _devkit(folder: Path, place: Path) -> tuple[Path, list[bytes]]:
    """The place of the devkit, with the contents of its ground truth and meta.mat; it may be packed or unpacked."""
    for inside in (folder / DEVKIT / "data", folder / "data", folder):
        if (inside / TRUTH).is_file() and (inside / META).is_file():
            return inside, [(inside / name).read_bytes() for name in (TRUTH, META)]
    packed = folder / f"{DEVKIT}.tar.gz"
    if not packed.is_file():
        raise UserError(
            f"{place}: its images are not in class folders, and their labels are missing: put {packed.name} "
            f"into {folder}."
        )
    try:
        with tarfile.open(packed) as tar:
            files = [tar.extractfile(f"{DEVKIT}/data/{name}") for name in (TRUTH, META)]
            return packed, [file.read() if file else b"" for file in files]
    except KeyError as error:
        raise UserError(f"{packed}: not the devkit ({error.args[0]}); fetch it again.") from error
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        if isinstance(error, OSError) and error.strerror:  # the system's, not gzip's
            raise UserError(f"{packed}: can't be read ({error.strerror}).") from error
        words = str(error).partition("\n")[0].rstrip(":")  # tarfile lists all that it tried, a line each
        raise UserError(f"{packed}: damaged ({words}); fetch it again.") from error
