"""The scales' recipes: what every study trains with, so that runs of one study serve the others."""

from __future__ import annotations

from resnetlab.errors import UserError
from resnetlab.training.recipe import Recipe
from resnetlab.training.recipes import recipe

# What can be asked for, and "weights": networks that others trained, measured in place of runs (--weights).
SCALES = ("quick", "cifar", "paper")
WEIGHTS = "weights"
CIFAR_EPOCHS = 10.0  # of the scale "cifar", in place of the paper's 164


def base(scale: str, data: str | None) -> Recipe:
    """The recipe of a scale: quick: digits; cifar: the paper's for CIFAR-10, CIFAR_EPOCHS long; paper: the paper's.

    Raises UserError for data that the scale doesn't take.
    """
    if scale == "quick":
        if data is not None:
            raise UserError("scale 'quick' runs on the digits: leave out --data, or choose --scale cifar.")
        return recipe("digits")
    if data is not None and not data.startswith("cifar10:"):
        raise UserError(f"data {data!r}: the papers' figures are of CIFAR-10, so give --data cifar10:DIR.")
    found = recipe("cifar_paper")
    found = found.override(data=data or found.data)
    if scale == "cifar":
        return found.override(epochs=CIFAR_EPOCHS, channels_last=True)  # the layout that is faster on CPUs
    return found


def for_depth(found: Recipe, depth: int) -> Recipe:
    """The paper's own rule for 110 layers and more on CIFAR-10 (He 2015, section 4.2)."""
    if depth < 110 or found.data == "digits":
        return found
    return found.override(warmup="train_error", warmup_lr=0.01, warmup_error=80.0, warmup_steps=0)
