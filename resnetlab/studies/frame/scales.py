"""The scales' recipes, which all studies train with, so that they can share runs."""

from __future__ import annotations

from resnetlab.errors import UserError, shown
from resnetlab.training.recipe import Recipe
from resnetlab.training.recipes import recipe

# The scales, and "weights": others' trained networks, measured in place of runs (--weights).
SCALES = ("quick", "cifar", "paper")
WEIGHTS = "weights"
# The scale "cifar": the paper's own recipe with a sixteenth of its steps, in the fastest precision and layout. Its rate
# drops at the same shares of the run, so that the curves have the shape of the paper's Figure 6.
CIFAR_EPOCHS = 10
SHORTER = {
    "epochs": CIFAR_EPOCHS,
    "iterations": None,
    "precision": "auto",
    "channels_last": "auto",
    "compile": "auto",
}


def base(scale: str, data: str | None) -> Recipe:
    """The recipe of a scale: quick: digits; paper: the paper's for CIFAR-10; cifar: the same, shorter.

    Raises UserError for data that the scale doesn't take.
    """
    if scale == "quick":
        if data is not None:
            raise UserError("scale 'quick' runs on the digits: leave out --data, or choose --scale cifar.")
        return recipe("digits")
    if data is not None and not data.startswith("cifar10:"):
        raise UserError(f"data {shown(data)}: the papers' figures are of CIFAR-10, so give --data cifar10:DIR.")
    found = recipe("cifar_paper", **(SHORTER if scale == "cifar" else {}))
    return found.override(data=data or found.data)


def for_depth(found: Recipe, depth: int) -> Recipe:
    """The recipe with the paper's rule for 110 layers and more (He 2015, section 4.2), unless it warms up anyway."""
    if depth < 110 or found.warmup != "none" or found.schedule == "onecycle":
        return found
    return warmed_up(found)


def warmed_up_2016(found: Recipe) -> Recipe:
    """The recipe with a rate of 0.01 in the first 400 steps (He 2016, appendix: all its runs on CIFAR)."""
    return found.override(warmup="constant", warmup_lr=0.01, warmup_steps=400)


def warmed_up(found: Recipe) -> Recipe:
    """The recipe with a tenth of the rate until the training error is below 80 %, as in the paper for 110 layers."""
    return found.override(warmup="train_error", warmup_lr=found.lr / 10, warmup_error=80.0, warmup_steps=0)
