"""What the study `depth` measures: the first steps of nets that are too deep to be trained in full."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as tf

from resnetlab.data.loading import Batch
from resnetlab.studies.frame.measurement import MeasurementContext
from resnetlab.training.recipe import Recipe
from resnetlab.training.step import make_stepper

FIRST_1202, FIRST_152 = "cifar_resnet1202", "resnet152_v1"
# Of each the rate that its large first gradients allow (the best of 0.0003 to 0.01, tried on the digits with seed 0),
# and the side that images are brought to.
FIRST: dict[str, dict[str, Any]] = {
    FIRST_1202: {"lr": 0.001, "size": None},
    FIRST_152: {"lr": 0.003, "size": 32},
}


def measure_first_steps(subject: MeasurementContext) -> dict[str, Any]:
    """Train the net of the settings for some steps; each batch's loss (None if not finite) and error in %.

    Settings: net, steps, batch, lr (constant), and size, the side in pixels that images are brought to, or None.
    """
    s = subject.settings
    images, labels = subject.batch(5_000, "train")
    recipe = Recipe(
        net=s["net"],
        lr=s["lr"],
        batch_size=s["batch"],
        schedule="constant",
        seed=subject.seed,
        channels_last=True,
    )
    step = make_stepper(subject.built(s["net"]).train(), recipe, subject.device)
    draws = torch.Generator().manual_seed(subject.seed)
    losses, errors = [], []
    for _ in range(s["steps"]):
        chosen = torch.randperm(len(images), generator=draws)[: s["batch"]].to(subject.device)
        x = images[chosen]  # N C H W
        if s["size"]:
            x = tf.interpolate(x, size=s["size"], mode="bilinear")
        result = step(Batch(step.laid_out(x), labels[chosen], None), recipe.lr)
        loss = float(result.loss) / len(chosen)
        losses.append(loss if math.isfinite(loss) else None)
        errors.append(100 * int(result.wrong) / len(chosen))
    return {"losses": losses, "errors": errors}
