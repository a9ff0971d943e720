"""A run: a folder named by the hash of what defines it (spec, recipe, data, seed), and its settings."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from resnetlab.data.crops import CROPS
from resnetlab.data.images import Data, Purpose
from resnetlab.data.loading import SHIFTING
from resnetlab.data.normalisation import parse_normalisation
from resnetlab.data.open import open_data
from resnetlab.data.resizing import Resizing
from resnetlab.errors import UserError, shown
from resnetlab.machine import machine
from resnetlab.nets.spec import SIZES
from resnetlab.nets.zoo import Spec
from resnetlab.nets.zoo import spec as named_spec
from resnetlab.paths import expanded
from resnetlab.run_files import (
    FORMAT,
    SETTINGS,
    START_ANEW,
    newest_run,
    read_begun,
    read_epochs,
    read_result,
    read_settings,
)
from resnetlab.storage import Damaged, disk_errors, is_there, write_json
from resnetlab.training.finetune import Pretrained, check_size, read_pretrained
from resnetlab.training.layer_groups import check_layer_groups
from resnetlab.training.muon import check_muon
from resnetlab.training.precision import resolved
from resnetlab.training.recipe import NORMALISATIONS, NOT_IN_ID, Recipe
from resnetlab.training.usual_torch import usual_torch

ID_FORMAT = 1  # version of what is hashed; it stays, so that the same command finds runs of format 1
FOR_FILES = tuple(name for name, crop in CROPS.items() if crop.draws)  # values of `augment` that crop at random


@dataclass(frozen=True)
class Run:
    """One training: a network, a recipe and a data set, and its folder below `root`."""

    spec: Spec
    recipe: Recipe
    data: Data
    root: Path
    pretrained: Pretrained | None = None  # what it takes from the weights that it starts from
    name: str = ""  # given by the user; names the folder unless that exists already; not part of the id

    @cached_property
    def id(self) -> str:
        """The hash of what defines the run; the places of data and source and the network's name are not part of it."""
        # Fields at their default are left out, so that a field added later changes no id.
        default = Recipe().to_dict()
        recipe = {k: v for k, v in self.recipe.to_dict().items() if k not in NOT_IN_ID and v != default.get(k)}
        spec = {k: v for k, v in self.spec.to_dict().items() if k != "name"}
        defines = {"format": ID_FORMAT, "spec": spec, "recipe": recipe, "data": self.data.fingerprint}
        defines |= {"start": self.pretrained.digest} if self.pretrained else {}
        return hashlib.sha256(json.dumps(defines, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def resizing(self) -> Resizing | None:
        """How its test images are resized, if its source states that; None for the usual way."""
        return self.pretrained.resizing if self.pretrained else None

    @property
    def folder(self) -> Path:
        """The run's folder: the one of its name, or else the run of this id that was written last, if there is one."""
        words = re.sub(r"(?:[^\w.]|_)+", "_", f"{self.spec.name or 'net'}-{self.data.title}").strip("_")
        own = self.root / f"{self.name or words[:60]}-{self.id}"
        return own if is_there(own / SETTINGS) else newest_run(self.root, self.id) or own

    def result(self) -> dict[str, Any] | None:
        """The result of the finished run (`train` writes it), or None while it is unfinished.

        Raises UserError if the file is damaged, or its metrics are.
        """
        if found := read_result(self.folder):
            read_epochs(self.folder)  # checked
        return found

    def settings(self, threads: int, device: str, ranks: int = 1) -> dict[str, Any]:
        """The contents of run.json."""
        return {
            "format": FORMAT,
            "id": self.id,
            "spec": self.spec.to_dict(),
            "recipe": self.recipe.to_dict(),
            "data": {
                "name": self.data.name,
                "title": self.data.title,
                "fingerprint": self.data.fingerprint,
                "shape": list(self.data.shape) if self.data.shape else None,
                "train_images": len(self.data.train),
                "test_images": len(self.data.test),
            },
            "classes": list(self.data.classes),
            **({"start": self.pretrained.to_dict()} if self.pretrained else {}),
            "resolved": resolved(self.recipe, self.spec, device),
            "threads": threads,
            "ranks": ranks,
            "machine": machine(device),
        }


@usual_torch()
def make_run(
    recipe: Recipe, root: str | Path, data: Data | None = None, *, purpose: Purpose = "train", name: str = ""
) -> Run:
    """Resolve a recipe: read its data and source, fit its network to the data's channels, size and classes, and turn
    a share to hold out into a number of images.

    `data`, if given, is the recipe's data, already read; else it is opened to train, which may write a split file, or
    only to "read". `name` names the run's folder. Raises UserError for a network, data set, source, name or
    combination that is not possible.
    """
    check_name(name)
    root = expanded(root)
    spec = named_spec(recipe.net) if recipe.net else None
    data = data or open_data(recipe.data, purpose)
    if not len(data.train):
        raise UserError(f"{recipe.data}: has no training images{f', {data.part}' if data.part else ''}.")
    pretrained = read_pretrained(recipe, data) if recipe.start else None
    spec = pretrained.spec if pretrained else spec
    assert spec is not None  # a recipe without a network has a start
    if data.shape is None:
        channels, size = 3, recipe.image_size or spec.input_size
    else:
        channels, size, _ = data.shape
        if recipe.image_size not in (None, size):
            raise UserError(
                f"image_size={recipe.image_size}: the images of {data.title} have {size} pixels; leave it out."
            )
        if recipe.augment in FOR_FILES:
            others = ", ".join(repr(name) for name in CROPS if name not in FOR_FILES)
            raise UserError(f"augment={recipe.augment!r} crops image files; {data.title} allows only {others}.")
    if recipe.augment in SHIFTING and recipe.crop_padding > size:
        raise UserError(f"crop_padding={recipe.crop_padding}: the images have {size} pixels; give 0 to {size}.")
    fitted = replace(spec, in_channels=channels, num_classes=len(data.classes), input_size=size)
    if not pretrained:
        _check_stated_sizes(recipe.net, spec, fitted, data)
    check_layer_groups(recipe, fitted)
    check_muon(recipe, fitted)
    if recipe.normalise not in NORMALISATIONS:
        parse_normalisation(recipe.normalise, channels, NORMALISATIONS)  # raises UserError if it doesn't fit
    if pretrained:
        check_size(pretrained, recipe, size)
        if recipe.normalise == "source" and not pretrained.normalisation:  # as evaluation does with such files
            recipe = recipe.override(normalise="channel_mean_std" if data.shape else "imagenet")
    if recipe.validation_share:
        if len(data.train) < 3:
            raise UserError(
                f"validation_share={recipe.validation_share:g}: {data.title} has {len(data.train)} training images, "
                "too few to hold one out; add images, or give --validation-share 0."
            )
        recipe = recipe.override(validation_images=max(1, round(recipe.validation_share * len(data.train))))
    data.check_hold_out(recipe.validation_images)
    try:
        root.exists()
    except OSError as error:
        raise UserError(
            f"{str(root)[:80]}: can't hold runs ({error.strerror}); choose another folder with --runs."
        ) from error
    return Run(fitted, recipe, data, root, pretrained, name)


def _check_stated_sizes(net: str, spec: Spec, fitted: Spec, data: Data) -> None:
    """Raise UserError if the network's name states other channels, classes or pixels than the data have."""
    for name in SIZES:
        stated, found = getattr(spec, name), getattr(fitted, name)
        if f"{name}=" in net and stated != found:
            raise UserError(
                f"net={shown(net)}: the data decide {name}, which is {found} for {data.title}; leave it out."
            )


def check_name(name: str) -> None:
    """Raise UserError for a name that a run's folder can't have; "" is none."""
    if name and not re.fullmatch(r"\w[\w.-]{0,59}", name):
        raise UserError(
            f"name {shown(name)} can't be the name of a run: use up to 60 letters, digits, '_', '-' and '.', and begin "
            "with a letter, a digit or '_'."
        )


def open_folder(run: Run, threads: int, device: str, ranks: int = 1) -> dict[str, Any]:
    """Make the run's folder, or check the one that is there; return its settings.

    Raises UserError for a folder of another version or one whose settings are damaged.
    """
    path = run.folder / SETTINGS
    if is_there(path):
        found = read_begun(run.folder)
        if found["id"] != run.id:
            raise Damaged(path, f"damaged, it belongs to run {shown(found['id'])}", START_ANEW)
        return found
    settings = run.settings(threads, device, ranks)
    with disk_errors(run.folder):
        run.folder.mkdir(parents=True, exist_ok=True)
        try:
            write_json(path, settings, new=True)
        except FileExistsError:  # another process has begun the same run by now
            return open_folder(run, threads, device, ranks)
    return settings


def as_begun(run: Run, settings: dict[str, Any]) -> Run:
    """The run as its folder states that it began: earlier versions resized test images in their own way, whatever the
    source states, and their unfinished runs continue to do so. Raises Damaged.
    """
    if not run.pretrained:
        return run
    stated = settings.get("start", {}).get("resizing")
    try:
        resizing = Resizing.from_dict(stated) if stated else None
    except ValueError as error:
        raise Damaged(run.folder / SETTINGS, f"damaged, start.{error}", START_ANEW) from error
    return replace(run, pretrained=replace(run.pretrained, resizing=resizing))


def migrate(folder: Path) -> None:
    """Mark a folder as having this format, before a checkpoint is written that older versions can't read.

    Files of earlier formats stay readable as they are.
    """
    settings = read_settings(folder)
    if settings["format"] != FORMAT:
        with disk_errors(folder):
            write_json(folder / SETTINGS, settings | {"format": FORMAT})
