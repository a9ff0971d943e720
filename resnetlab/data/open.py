"""The table of data sets: their names, readers and published files; and `open_data`, which uses it.

torch and the readers are imported when data is opened, so that help is quick.
"""

from __future__ import annotations

import contextlib
import os
import pkgutil
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from resnetlab.errors import UserError, did_you_mean, shown
from resnetlab.paths import expanded

if TYPE_CHECKING:
    from resnetlab.data.images import Data, Purpose


@dataclass(frozen=True)
class File:
    """A published file. `unpacks_to` is the folder in it, if it is a .tar.gz."""

    name: str
    size: int  # 0: what its server says
    sha256: str  # or its first digits, if no more is published
    unpacks_to: str = ""

    @property
    def hash_in_words(self) -> str:
        """The condition on its SHA-256 in words: "be ..." or "begin with ..."."""
        return f"be {self.sha256}" if len(self.sha256) == 64 else f"begin with {self.sha256}"


@dataclass(frozen=True)
class Published:
    """The files of a data set, and the addresses under which they are published, tried in this order."""

    places: tuple[str, ...]
    files: tuple[File, ...]


@dataclass(frozen=True)
class Counts:
    """The size of a published data set: its images and classes, and C H W if it is read into memory."""

    train: int
    test: int
    classes: int
    shape: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Reader:
    """A row of the table: how one kind of data is read, and where it comes from.

    `read` and `missing` are MODULE:FUNCTION. `read` takes the kind, the folder, and the `purpose` and `trained_on` of
    `open_data`, and returns Data; `missing` takes the kind and the folder to which a published archive is unpacked, and
    returns the names of the files that it lacks.
    """

    read: str
    folder: str = ""  # what DIR is in KIND:DIR, in words; "": there is no DIR, since the images come with a package
    in_memory: bool = False  # whether all images are read into memory, uncropped; image files are cropped to one size
    published: Published | None = None  # where `resnetlab data fetch` finds it
    missing: str = ""
    counts: Counts | None = None  # if they are always the same


def _cifar(archive: str, size: int, sha256: str, unpacks_to: str, classes: int) -> Reader:
    places = ("https://www.cs.toronto.edu/~kriz/", "https://cave.cs.toronto.edu/kriz/")
    return Reader(
        "resnetlab.data.cifar:read_cifar",
        "the folder with its batches",
        in_memory=True,
        published=Published(places, (File(archive, size, sha256, unpacks_to),)),
        missing="resnetlab.data.cifar:missing_batches",
        counts=Counts(50_000, 10_000, classes, (3, 32, 32)),
    )


def _mnist(places: tuple[str, ...], *files: tuple[int, str]) -> Reader:
    """The row of a data set in four files called as MNIST's are; files: the size and SHA-256 of each, in order."""
    names = [f"{side}-{what}.gz" for side in ("train", "t10k") for what in ("images-idx3-ubyte", "labels-idx1-ubyte")]
    return Reader(
        "resnetlab.data.idx:read_mnist",
        "the folder with its IDX files",
        in_memory=True,
        published=Published(places, tuple(File(name, *file) for name, file in zip(names, files, strict=True))),
        counts=Counts(60_000, 10_000, 10, (1, 28, 28)),
    )


READERS: dict[str, Reader] = {
    "digits": Reader("resnetlab.data.digits:read_digits", in_memory=True, counts=Counts(1_437, 360, 10, (1, 8, 8))),
    "cifar10": _cifar(
        "cifar-10-python.tar.gz",
        170_498_071,
        "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        "cifar-10-batches-py",
        classes=10,
    ),
    "cifar100": _cifar(
        "cifar-100-python.tar.gz",
        169_001_437,
        "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
        "cifar-100-python",
        classes=100,
    ),
    "mnist": _mnist(
        ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
        (9_912_422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
        (28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
        (1_648_877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
        (4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
    ),
    # Its own place is plain HTTP, so what arrives is held to SHA-256, not to the MD5 that the publishers print.
    "fashion_mnist": _mnist(
        (
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
        (26_421_880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
        (29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
        (4_422_102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
        (5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
    ),
    "imagenet": Reader(
        "resnetlab.data.imagenet:read_imagenet",
        "the folder with the tars of ILSVRC2012, or with its images in train and val",
        counts=Counts(1_281_167, 50_000, 1000),
    ),
    "hf": Reader(
        "resnetlab.data.huggingface:read_huggingface", "the folder that a Hugging Face DatasetDict was saved to"
    ),
    "folder": Reader(
        "resnetlab.data.folder:read_folder", "the folder of images, which holds train/CLASS and val/CLASS, or CLASS"
    ),
    "pack": Reader("resnetlab.data.pack:read_pack", "the folder that resnetlab data pack made"),
}
NAMED_BY_FOLDER = ("folder", "hf")  # kinds whose data, packed or not, is named after its folder
PUBLISHED = {name: reader.published for name, reader in READERS.items() if reader.published}


def listed(words: list[str]) -> str:
    """Return the words as a sentence lists them: "a, b or c"."""
    return ", ".join(words[:-1]) + " or " + words[-1]


def data_names(*, of_files: bool = False) -> str:
    """The possible names of data, for help and messages; of_files: only of data in image files."""
    kinds = [
        f"{kind}:DIR" if reader.folder else kind
        for kind, reader in READERS.items()
        if not (of_files and is_in_memory(kind))
    ]
    return listed([*kinds, "just DIR, a folder of images"])


DATA_NAMES = data_names()


def is_in_memory(text: str) -> bool:
    """Whether the data that `text` names is read into memory, so that its images are not cropped in an evaluation."""
    reader = READERS.get(text.partition(":")[0])
    return reader is not None and reader.in_memory


def open_data(text: str, purpose: Purpose = "train", *, trained_on: Collection[str] = frozenset()) -> Data:
    """Read the data set that `text` names: KIND or KIND:DIR of the table, or just DIR, a folder of images.

    "train" needs training and test images, and saves a split that it draws. "evaluate" needs only test images and
    writes nothing: a folder without a split file is tested as a whole, unless a network to evaluate was trained on a
    part of it, as `trained_on` tells, the fingerprints of the networks' training data. "read" (to pack, audit or view)
    returns the sides of a training, and writes nothing either.

    Raises UserError for unknown names, missing or empty folders, and damaged files.
    """
    kind, folder = _kind_and_folder(text)
    reader = READERS[kind]
    path = expanded(folder) if reader.folder else Path()
    try:
        data: Data = pkgutil.resolve_name(reader.read)(kind, path, purpose, trained_on)
    except OSError as error:
        raise UserError(f"{error.filename or path}: can't be read ({error.strerror or error}).") from error
    assert (data.shape is not None) == reader.in_memory, f"in_memory of {kind!r} is not as its reader has it"
    return replace(data, own_name=_own_name(path)) if data.name in NAMED_BY_FOLDER else data


def is_absent(text: str) -> bool:
    """Whether the data's folder does not exist. Raises UserError for text that names no data."""
    kind, folder = _kind_and_folder(text)
    return bool(READERS[kind].folder) and not _exists(folder)


def known_counts(text: str) -> Counts | None:
    """The size of the data set that `text` names if it is always the same; else None."""
    return READERS[_kind_and_folder(text)[0]].counts


def _own_name(folder: Path) -> str:
    """The name of a folder of images; if it is one side of a data set, such as "train", with its parent's name."""
    from resnetlab.data.folder import SPLIT_WORDS, class_names

    place = Path(os.path.abspath(folder))  # a link keeps its own name
    parts = place.parts[-2:] if place.name.lower() in SPLIT_WORDS else place.parts[-1:]
    return "/".join(class_names(parts)) if place.name else ""


def _kind_and_folder(text: str) -> tuple[str, str]:
    kind, colon, folder = text.partition(":")
    if reader := READERS.get(kind):
        if colon and not reader.folder:
            raise UserError(f"data {shown(text)}: the {kind} come with the package, so write only {kind!r}.")
        if reader.folder and not folder:
            raise UserError(
                f"data {shown(text)} does not name a folder: write {kind}:DIR, where DIR is {reader.folder}."
            )
        return kind, folder
    if not (text and _exists(text)) and (colon or "/" not in text):
        wrong = ": no data set and no folder here has this name" if text and not colon else " can't be read"
        raise UserError(
            f"data {shown(text)}{wrong}; give {data_names()}.{did_you_mean(kind, [*READERS, *_folders_here()])}"
        )
    return "folder", text


def _folders_here() -> list[str]:
    with contextlib.suppress(OSError):
        return [entry.name for entry in os.scandir() if entry.is_dir()]
    return []


def _exists(text: str) -> bool:
    try:
        return expanded(text).exists()
    except (OSError, ValueError):  # UserError is one
        return False
