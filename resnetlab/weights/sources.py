"""Weights by name: those in the package, torchvision's, the Hugging Face hub's; fetched once, checked, kept.

pretrained:cifar_resnet56               a file in the package
torchvision:resnet50                    a row of weights.published, kept where torchvision keeps its own
timm/resnet50.a1_in1k                   a repository of timm's on the hub, kept in the cache
hf:OWNER/NAME, hf:OWNER/NAME@REVISION   any repository; a revision is a branch, tag or commit
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from resnetlab.data.fetch import DownloadProgress, check_file, download, held, writing
from resnetlab.data.imagenet import class_names
from resnetlab.data.open import File
from resnetlab.errors import UserError, did_you_mean, shown
from resnetlab.nets import zoo
from resnetlab.nets.zoo import Spec
from resnetlab.run_files import source_path
from resnetlab.weights import hub_files, packaged
from resnetlab.weights.architectures import CONFIG, StatedClasses, read_config, stated_classes
from resnetlab.weights.files import INDEX
from resnetlab.weights.hub_files import MODEL, OLD_MODEL, REPOSITORY, preprocessing
from resnetlab.weights.metadata import Preprocessing
from resnetlab.weights.published import ADDRESS, TORCHVISION, TorchvisionFile

MIRROR = "RESNETLAB_TORCHVISION_URL"  # an address that has torchvision's files, in place of its own
TIMM = re.compile(r"timm/[\w.-]+(@[\w./-]+)?", re.ASCII)

_log = logging.getLogger(__name__)


class Kind(NamedTuple):
    """A kind of published weights: where they are stored, and how they are fetched."""

    place: Callable[[str], Path]  # a file, or a folder of the hub
    # Raises UserError if that fails; yields nothing if they are there already.
    fetch: Callable[[str], Iterator[DownloadProgress]]


def located(source: str | Path) -> Path:
    """The run folder or weight file that a source names; published weights are fetched first if necessary.

    A source that is not the name of weights is a path. Raises UserError for an unknown name, and for weights that can't
    be fetched.
    """
    if not (named := _named(source)):
        return source_path(source)
    kind, name = named
    started = False
    for progress in KINDS[kind].fetch(name):
        if not started:
            _log.warning("%s: downloading %s", source, progress.file)
        started = True
    return KINDS[kind].place(name)


def fetch_weights(source: str | Path) -> Iterator[DownloadProgress]:
    """Fetch the weights that a name stands for, yielding progress: nothing if they are here, or for a path.

    A download that stopped is resumed. Raises UserError as `located` does.
    """
    if named := _named(source):
        yield from KINDS[named[0]].fetch(named[1])


def is_name(source: str | Path) -> bool:
    """Whether a source is the name of published weights, and not a path."""
    return _named(source) is not None


def short_name(source: str | Path) -> str:
    """The name for files made from a source: the last part of its name or path; for a run given by its name, without
    the hash.
    """
    if named := _named(source):
        return named[1].rpartition("/")[2].replace("@", "-")
    path, name = source_path(source).resolve(), Path(source).name
    if path.is_file():
        return path.stem
    return name if name and path.name.startswith(f"{name}-") else path.name


def absent_hint(source: str | Path) -> str:
    """A hint for a missing path: how to write the name of a network's weights or of a repository of the hub."""
    text = os.fspath(source)
    if text in zoo.names():
        every = [(kind, name) for kind, names in _PUBLISHED.items() for name in names()]
        named = ", ".join(f"{kind}:{name}" for kind, name in every if name.split(".")[0] == text)
        return f": it is the name of a network; {f'weights for it are {named}' if named else 'train it first'}"
    if re.match(r"[A-Za-z]+:", text):
        return f" (names of weights begin with {', '.join(f'{kind}:' for kind in KINDS)})"
    owner = text.partition("/")[0]
    if not REPOSITORY.fullmatch(text) or owner in (".", "..", "runs") or os.path.lexists(owner):
        return ""
    return f" (a repository of the Hugging Face hub is written hf:{text})"


# The names of the weights of a kind, NETWORK or NETWORK.VERSION.
_PUBLISHED: dict[str, Callable[[], Iterable[str]]] = {"pretrained": packaged.names, "torchvision": lambda: TORCHVISION}


def imagenet_classes(source: str | Path, spec: Spec) -> tuple[str, ...] | None:
    """ImageNet's class names for a network whose file has none, if its source implies that it knows them; else None."""
    kind, name = _named(source) or ("", "")
    knows = kind == "torchvision" or (kind == "hf" and re.search(r"_in1k(@|$)", name))
    classes = tuple(class_names().values())
    return classes if knows and spec.num_classes == len(classes) else None


def stated_preprocessing(source: str | Path, file: Path, image_size: int | None) -> Preprocessing | None:
    """How the publisher of a source prepares images, by our table for torchvision, or the config.json beside `file`.

    image_size: given if it is not the file's own. None if nothing is stated.
    """
    kind, name = _named(source) or ("", "")
    if kind == "torchvision":
        return TORCHVISION[name].preprocessing
    return preprocessing(file.parent, image_size) if _has_config(file) else None


def stated_names(file: Path) -> tuple[StatedClasses, ...]:
    """The names of classes in the config.json beside a file, as timm and transformers write them; or none."""
    return stated_classes(read_config(file.with_name(CONFIG))) if _has_config(file) else ()


def _has_config(file: Path) -> bool:
    return file.name.removesuffix(INDEX) in (MODEL, OLD_MODEL)


def _named(source: str | Path) -> tuple[str, str] | None:
    """The kind and the name of published weights; None for a path."""
    if not isinstance(source, str | os.PathLike):
        raise UserError(f"{shown(source)} is not a run folder, weight file or name of weights.")
    text = os.fspath(source)
    kind, colon, name = text.partition(":")
    if colon and kind in KINDS:
        return kind, name
    return ("hf", text) if TIMM.fullmatch(text) and not os.path.lexists(text) else None


def _in_package(name: str) -> Iterator[DownloadProgress]:
    packaged.path_of(name)
    return iter(())


def _torchvision_file(name: str) -> TorchvisionFile:
    if name not in TORCHVISION:
        raise UserError(
            f"torchvision:{shown(name)[1:-1]}: no such weights, or none of a network that is here: choose one of "
            f"{', '.join(TORCHVISION)}.{did_you_mean(name, TORCHVISION)}"
        )
    return TORCHVISION[name]


def _torchvision_place(name: str) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / _torchvision_file(name).name


def _from_torchvision(name: str) -> Iterator[DownloadProgress]:
    """Fetch a file of torchvision's; if it is there already, check it."""
    published, path = _torchvision_file(name), _torchvision_place(name)
    file = File(published.name, 0, published.sha256)
    if not path.exists():
        with writing(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        address = os.environ.get(MIRROR) or ADDRESS
        with held(path.parent, waits=True):
            if not path.exists():  # what another process may have brought meanwhile
                yield from download(file, path.parent, (address.rstrip("/") + "/",))
                return
    check_file(f"torchvision:{name}", path, file)


KINDS: dict[str, Kind] = {
    "pretrained": Kind(packaged.path_of, _in_package),
    "torchvision": Kind(_torchvision_place, _from_torchvision),
    "hf": Kind(hub_files.place, hub_files.fetch),
}
