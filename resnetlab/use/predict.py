"""Predicts the classes of image files: an unreadable file is reported, and the rest are predicted."""

from __future__ import annotations

import glob
import logging
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from resnetlab.data.decoding import Unreadable, reason
from resnetlab.data.walk import NoImages, images_in, is_ignored
from resnetlab.errors import UserError
from resnetlab.paths import expanded
from resnetlab.storage import content_of
from resnetlab.use.classifier import Classifier

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prediction:
    """The likeliest classes of an image, with their probabilities, or the reason why it can't be read."""

    file: str
    classes: tuple[tuple[str, float], ...] = ()
    error: str = ""


def find_images(names: Iterable[str]) -> list[Path]:
    """The files that the names stand for: files, all images below a folder, or the matches of a pattern.

    Folders are searched like those of a data set. Missing files are included, so that they can be reported. Raises
    UserError if nothing is found, and for a folder that can't be read.
    """
    return [path for path, _ in labelled_images(names)]


def labelled_images(names: Iterable[str]) -> list[tuple[Path, str]]:
    """As `find_images`, each file with the name of its folder, which is its class, if a folder was searched."""
    found: list[tuple[Path, str]] = []
    empty: list[str] = []
    for name in names:
        if re.match(r"https?://", str(name)):
            raise UserError(f"{name}: addresses are not fetched; download the picture, and give its file.")
        path = expanded(name)
        if os.path.isdir(path):
            found += _in_folder(path, empty)
        elif glob.has_magic(name) and not os.path.exists(path) and (matched := _matching(path, empty)):
            found += matched
        else:
            found.append((path, ""))
    if not found:
        raise UserError(empty[0] if empty else "no image given: name files, folders of images, or patterns.")
    for words in empty:
        _log.warning(words)
    return found


def _matching(pattern: Path, empty: list[str]) -> list[tuple[Path, str]]:
    """The matches of a pattern, each file once; ignored names, such as hidden ones, only if the pattern has them."""
    found: dict[str, tuple[Path, str]] = {}
    walked = set[str]()
    # Shortest first: links may lead to a folder by several paths, and ** follows circles of links.
    for path in sorted(map(Path, glob.glob(str(pattern), recursive=True)), key=lambda path: (len(path.parts), path)):
        real = os.path.realpath(path)
        if real in walked or any(is_ignored(part) for part in path.parts if part not in pattern.parts):
            continue
        if os.path.isdir(real):
            walked.add(real)
        for file, label in _in_folder(path, empty) if real in walked else [(path, "")]:
            place = os.path.join(os.path.realpath(file.parent), file.name)
            if place not in found or len(file.parts) < len(found[place][0].parts):
                found[place] = file, label
    return sorted(found.values())


def _in_folder(folder: Path, empty: list[str]) -> list[tuple[Path, str]]:
    try:
        paths = images_in(folder)
    except NoImages as error:
        empty.append(str(error))
        return []
    return [(path, Path(os.path.abspath(path)).parent.name) for path in paths]


def predict(classifier: Classifier, files: Iterable[Path], *, top: int = 5, batch: int = 32) -> Iterator[Prediction]:
    """Predict the `top` likeliest classes of each file, in order, `batch` at a time."""
    remaining = iter(files)
    while group := list(islice(remaining, batch)):
        read = [prepared(classifier, path) for path in group]
        whole = [pixels for pixels in read if isinstance(pixels, Tensor)]
        rows = iter(classifier.probabilities(torch.stack(whole)) if whole else ())
        for path, pixels in zip(group, read, strict=True):
            if isinstance(pixels, Tensor):
                yield Prediction(str(path), likeliest(next(rows), classifier.classes, top))
            else:
                yield Prediction(str(path), error=pixels)


def likeliest(probabilities: Tensor, classes: tuple[str, ...], top: int) -> tuple[tuple[str, float], ...]:
    """The `top` classes of one image by probability, K; ties keep the order of the classes."""
    values, places = probabilities.sort(descending=True, stable=True)
    found = zip(places.tolist()[:top], values.tolist()[:top], strict=True)
    return tuple((classes[place], value) for place, value in found)


def prepared(classifier: Classifier, path: Path) -> Tensor | str:
    """The prepared image, or the reason why it can't be read."""
    try:
        return classifier.prepare(content_of(path))
    except (Unreadable, OSError, ValueError) as error:  # ValueError: a name that file systems reject
        return reason(error)
