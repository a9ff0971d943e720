"""What the study `shattered` measures: gradients of random nets on a line, at random points, and of real images."""

from __future__ import annotations

from typing import Any

from torch import nn

from resnetlab.measuring.autocorrelation import (
    autocorrelation,
    brown_noise,
    relative_rank,
    spatial_autocorrelation,
    white_noise,
)
from resnetlab.measuring.fully_connected import (
    POINTS,
    VARIANTS,
    Gradients,
    gaussian_points,
    grid_points,
    input_gradients,
    pair_correlation,
)
from resnetlab.measuring.pixel_gradients import pixel_gradients
from resnetlab.studies.frame.measurement import MeasurementContext

ONE_UNIT = 4  # layers of a network with one unit of two


def noise(subject: MeasurementContext) -> dict[str, Any]:
    """Autocorrelation of brown and of white noise, as long as the sequences of gradients."""
    lags = subject.settings["lags"]
    return {
        "brown": autocorrelation(brown_noise(POINTS, subject.seed), lags),
        "white": autocorrelation(white_noise((POINTS,), subject.seed), lags),
    }


def grid(subject: MeasurementContext) -> dict[str, Any]:
    """By depth: autocorrelation of df/dx along the line (None if it has vanished), its norm, and shared units."""
    s = subject.settings
    made = _made(subject, None)
    return {
        "depths": s["depths"],
        "acf": [autocorrelation(g.values[:, 0], s["lags"]) for g in made],
        "norm": [g.values.norm().item() for g in made],
        "coactive": [g.coactive[-1] for g in made],
    }


def pairs(subject: MeasurementContext) -> dict[str, Any]:
    """By depth: correlation of gradients at pairs of independent points, and the units that pairs share."""
    made = _made(subject, subject.seed)
    return {
        "depths": subject.settings["depths"],
        "correlation": [pair_correlation(g.values) for g in made],
        "coactive": [g.coactive[-1] for g in made],
    }


def _made(subject: MeasurementContext, points: int | None) -> list[Gradients]:
    """The gradients of one variant by depth, at the line's points or at those of a seed."""
    at = (grid_points() if points is None else gaussian_points(points)).to(subject.device)
    variant = VARIANTS[subject.settings["variant"]]
    return [input_gradients(variant, depth, at, subject.seed) for depth in subject.settings["depths"]]


def pixels(subject: MeasurementContext) -> dict[str, Any]:
    """Autocorrelation over the image of the pixels' gradients, of the images and of white noise; effective ranks.

    Of an untrained network; two layers are the first convolution and the last layer, with no unit between them.
    """
    s = subject.settings
    net = subject.built(network(s["kind"], max(ONE_UNIT, s["depth"])))
    if s["depth"] < ONE_UNIT:
        net.layer1 = nn.Identity()
    return _of_pixels(subject, net)


def pixels_trained(subject: MeasurementContext) -> dict[str, Any]:
    """The same of a trained network."""
    return _of_pixels(subject, subject.net)


def network(kind: str, depth: int) -> str:
    """The zoo's name of a CIFAR network; of four layers there is one with a single unit."""
    return f"cifar_{kind}{depth}" if depth > ONE_UNIT else f"cifar_{kind}8(stages=((1, 16, 1),))"


def _of_pixels(subject: MeasurementContext, net: nn.Module) -> dict[str, Any]:
    s = subject.settings
    x, labels = subject.batch(s["images"], "train")
    gradients, images = pixel_gradients(net, x, labels).cpu(), x.cpu()
    return {
        "acf": spatial_autocorrelation(gradients, s["lags"]),
        "images": spatial_autocorrelation(images, s["lags"]),
        "white": spatial_autocorrelation(white_noise(tuple(images.shape), subject.seed), s["lags"]),
        "rank": relative_rank(gradients, subject.seed),
        "image_rank": relative_rank(images, subject.seed),
    }
