"""What classes a network sees in image files: a file that can't be read is told, and the rest is done."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from resnetlab.data.decoding import Unreadable
from resnetlab.data.folder import is_image
from resnetlab.use.classifier import Classifier


@dataclass(frozen=True)
class Prediction:
    """The likeliest classes of an image, with their probabilities, or why it has none."""

    file: str
    classes: tuple[tuple[str, float], ...] = ()
    error: str = ""


def find_images(names: Iterable[str]) -> Iterator[Path]:
    """The files that are meant: files themselves, all images below a folder, or what a pattern matches.

    What is not there is yielded too, so that it can be told.
    """
    for name in names:
        path = Path(name)
        if path.is_dir():
            below = (Path(folder) / file for folder, _, files in os.walk(path) for file in files)
            yield from sorted(file for file in below if is_image(file.name))
        elif not path.exists() and glob.has_magic(name):
            matched = sorted(glob.glob(name, recursive=True))
            yield from find_images(matched) if matched else [path]
        else:
            yield path


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
    """The `top` classes of one image by probability, K; of equal ones the first."""
    values, places = probabilities.sort(descending=True, stable=True)
    found = zip(places.tolist()[:top], values.tolist()[:top], strict=True)
    return tuple((classes[place], value) for place, value in found)


def prepared(classifier: Classifier, path: Path) -> Tensor | str:
    """The prepared image, or why there is none."""
    try:
        return classifier.prepare(path.read_bytes())
    except Unreadable as error:
        return str(error)
    except OSError as error:
        return error.strerror or str(error)
    except ValueError as error:  # a name that no file system takes
        return str(error)
