"""Explanations: for each image, a picture with a heat map of where a network finds its answer."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resnetlab.data.decoding import Unreadable, decode, reason
from resnetlab.data.own import check_place_for_pictures, make_place_for_pictures
from resnetlab.data.walk import is_image
from resnetlab.errors import UserError, check_choice
from resnetlab.paths import one_form
from resnetlab.storage import content_of, disk_errors, write_atomically
from resnetlab.use.classifier import Classifier
from resnetlab.use.explain import grad_cam, occlusion
from resnetlab.use.heat import encoded, side_by_side
from resnetlab.use.predict import find_images

MOST_BYTES = 200  # of a picture's name, to which a number, an extension and, while it is written, another one come


@dataclass(frozen=True)
class Explanation:
    """The picture that explains a class of an image, or why there is none."""

    file: str
    name: str = ""  # of the class
    probability: float = 0.0
    picture: Path = Path()
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        if self.error:
            return {"file": self.file, "error": self.error}
        answer = {"class": self.name, "probability": self.probability}
        return {"file": self.file, **answer, "picture": str(self.picture)}


def check_method(classifier: Classifier, method: str, unit: str | None, label: str | None) -> str | None:
    """The label as the network spells it; its accents may be encoded differently.

    Raises UserError for an exported file, an unknown label, and a unit for a method other than grad_cam.
    """
    _ = classifier.net  # raises UserError for an exported file
    if label is not None:
        if label not in classifier.classes:
            label = {one_form(name): name for name in classifier.classes}.get(one_form(label), label)
        check_choice("label", label, classifier.classes)
    if method == "occlusion" and unit is not None:
        raise UserError("--unit works with grad_cam only; leave it out, or use --method grad_cam.")
    return label


def explain_images(
    classifier: Classifier,
    names: Iterable[str],
    out: Path,
    *,
    method: str = "grad_cam",
    unit: str | None = None,
    label: str | None = None,
) -> Iterator[Explanation]:
    """Write a picture into `out` for each image that the names match (`find_images`), and yield what it shows.

    method: grad_cam, at `unit`, or occlusion. label: the class to explain, by default the likeliest. A picture never
    replaces a file: it gets a number if there is one of its name. Raises UserError if the folder can't be written.
    """
    paths = find_images(names)  # before any picture is written, perhaps to the same folder
    with disk_errors(out):
        check_place_for_pictures(out, is_image)
    written = False
    for path in paths:
        try:
            content = content_of(path)
            resized, photo = classifier.resized(content), decode(content)
        except (Unreadable, OSError, ValueError) as error:
            yield Explanation(str(path), error=reason(error))
            continue
        pixels = classifier.crop(resized)
        probabilities = classifier.probabilities(pixels[None])[0]
        chosen = int(probabilities.argmax()) if label is None else classifier.classes.index(label)
        heat = _heat(classifier, pixels, chosen, method, unit)
        suffix, drawn = encoded(side_by_side(photo, heat, classifier.crop_area(resized)), content)
        with disk_errors(out):
            if not written:
                make_place_for_pictures(out)
                written = True
            picture = _write_new(out, path.stem, suffix, drawn)
        yield Explanation(str(path), classifier.classes[chosen], float(probabilities[chosen]), picture)


def _heat(classifier: Classifier, pixels: Tensor, chosen: int, method: str, unit: str | None) -> Tensor:
    """The heat map of the class in an image, uint8 C H W: H W."""
    x, target = classifier.input(pixels[None]), torch.tensor([chosen], device=classifier.device)
    if method == "occlusion":
        patch = max(classifier.size // 7, 2)
        return occlusion(classifier.net, x, target, patch, max(patch // 2, 1))[0]
    return grad_cam(classifier.net, x, target, unit)[0]


def _write_new(out: Path, stem: str, suffix: str, content: bytes) -> Path:
    """Write a file with a name like this, and with a number if there is one already. Raises OSError."""
    if len(os.fsencode(stem)) > MOST_BYTES:
        stem = os.fsencode(stem)[:MOST_BYTES].decode(errors="ignore")
    for count in itertools.count(1):
        path = out / (f"{stem}-{count}{suffix}" if count > 1 else stem + suffix)
        with contextlib.suppress(FileExistsError):
            write_atomically(path, content, new=True)
            return path
    raise AssertionError
