"""A stand-in for absent data, so that a dry run can count and time what does not depend on the images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from resnetlab.data.images import Data, Images
from resnetlab.data.open import known_counts
from resnetlab.errors import UserError
from resnetlab.nets.zoo import spec as named_spec
from resnetlab.training.finetune import read_pretrained
from resnetlab.training.layer_groups import check_layer_groups
from resnetlab.training.muon import check_muon
from resnetlab.training.recipe import Recipe
from resnetlab.training.run import Run


@dataclass(frozen=True)
class StandIn:
    """A run on made-up images, and what is known of the real ones: None if only the data would tell."""

    run: Run
    missing: str  # why the data can't be opened, in a line
    train: int | None  # images
    test: int | None
    held_out: int | None
    classes: int | None

    def unknown(self) -> list[str]:
        """What is unknown without the data."""
        lines = ["the run's folder"]
        if self.train is None:
            lines.append("the number of images")
            lines += [] if self.run.recipe.iterations else ["the length of the run"]
        if self.classes is None:
            lines.append(f"the number of classes ({self.run.spec.num_classes} are assumed)")
        if self.run.pretrained:
            lines.append("whether the head is kept")
        return lines


def stand_in(recipe: Recipe, root: Path, missing: UserError) -> StandIn:
    """The run of a recipe whose data is absent, as `missing` says. Raises UserError for faults of the recipe itself."""
    known = known_counts(recipe.data)
    spec = named_spec(recipe.net) if recipe.net else None
    channels, size, _ = known.shape if known and known.shape else (3, recipe.image_size or 0, 0)
    names = tuple(map(str, range(known.classes if known else spec.num_classes if spec else 2)))
    pretrained = None
    if recipe.start:
        pretrained = read_pretrained(recipe, _made_up(recipe, (channels, size or 8, size or 8), names))
        pretrained = replace(pretrained, note=f"{pretrained.spec.name or 'a network'} from {recipe.start}")
        spec = pretrained.spec
    assert spec is not None  # a recipe without a network has a start
    side = size or spec.input_size
    fitted = replace(spec, in_channels=channels, num_classes=len(names), input_size=side)
    check_layer_groups(recipe, fitted)
    check_muon(recipe, fitted)
    train = known.train if known else None
    held_out = recipe.validation_images
    if recipe.validation_share and train is not None:
        held_out = max(1, round(recipe.validation_share * train))
    return StandIn(
        Run(fitted, recipe, _made_up(recipe, (channels, side, side), names), root, pretrained),
        str(missing),
        None if train is None else train - held_out,
        known.test if known else None,
        None if recipe.validation_share and train is None else held_out,
        known.classes if known else None,
    )


def _made_up(recipe: Recipe, shape: tuple[int, int, int], classes: tuple[str, ...]) -> Data:
    """A batch that repeats one image, which takes the memory of one; training and test images are the same."""
    pixels = torch.randint(0, 256, (1, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    count = recipe.batch_size
    images = Images(pixels.expand(count, *shape), torch.arange(count) % len(classes))
    return Data(recipe.data.partition(":")[0], images, images, classes, "made up")
