"""RandAugment and TrivialAugment: a random choice of 14 operations, with Pillow's results.

Both are pure functions of the images (uint8 N C H W) and of uniform draws in [0, 1) (N D). Operations, bins and
ranges are torchvision's: 31 bins, nearest sampling, 0 outside, shears about the top left corner (their level is
the tangent), rotations about the centre, translations by whole pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from resnetlab.data import operations as ops

RAND_AUGMENT_DRAWS = 2  # for each operation in turn: which, the sign
TRIVIAL_AUGMENT_DRAWS = 3  # which, the bin, the sign
BINS = 31


class Entry(NamedTuple):
    """An operation, its strength in the first and last bin of both spaces, and whether its sign is drawn."""

    operation: ops.Operation
    first: float
    last: float  # RandAugment's; a translation's is a share of the side
    widest: float  # TrivialAugment's; a translation's is in pixels
    signed: bool


def _enhancing(operation: ops.Operation) -> ops.Operation:
    """With strength s the factor is 1 + s."""
    return lambda x, strength: operation(x, 1 + strength)


OPERATIONS = {
    "identity": Entry(ops.identity, 0, 0, 0, False),
    "shear_x": Entry(ops.shear_x, 0, 0.3, 0.99, True),
    "shear_y": Entry(ops.shear_y, 0, 0.3, 0.99, True),
    "translate_x": Entry(ops.translate_x, 0, 150 / 331, 32, True),
    "translate_y": Entry(ops.translate_y, 0, 150 / 331, 32, True),
    "rotate": Entry(ops.rotate, 0, 30, 135, True),
    "brightness": Entry(_enhancing(ops.brightness), 0, 0.9, 0.99, True),
    "colour": Entry(_enhancing(ops.colour), 0, 0.9, 0.99, True),
    "contrast": Entry(_enhancing(ops.contrast), 0, 0.9, 0.99, True),
    "sharpness": Entry(_enhancing(ops.sharpness), 0, 0.9, 0.99, True),
    "posterize": Entry(lambda x, bits: ops.posterize(x, bits.round()), 8, 4, 2, False),
    "solarize": Entry(ops.solarize, 255, 0, 0, False),
    "autocontrast": Entry(lambda x, _: ops.autocontrast(x), 0, 0, 0, False),
    "equalize": Entry(lambda x, _: ops.equalize(x), 0, 0, 0, False),
}


def _apply(x: Tensor, choice: Tensor, levels: Tensor, bins: Tensor | int, sign: Tensor) -> Tensor:
    """Apply each image's choice with the strength of its bin (levels: operations x bins), negative if sign < 0.5."""
    signed = torch.tensor([e.signed for e in OPERATIONS.values()], device=choice.device)[choice]
    strength = levels.to(choice.device)[choice, bins]
    strength = torch.where(signed & (sign < 0.5), -strength, strength)
    return ops.apply_each(x, choice, strength, [e.operation for e in OPERATIONS.values()])


def _pick(draws: Tensor, count: int) -> Tensor:
    """Whole numbers 0 ... count - 1, each equally likely."""
    return (draws * count).long()


def rand_augment(x: Tensor, draws: Tensor, operations: int = 2, magnitude: int = 9) -> Tensor:
    """Apply operations drawn alike from 14, one after another, all of one magnitude 0 ... 30.

    x: uint8 N C H W; draws: N (RAND_AUGMENT_DRAWS * operations). Source: Cubuk et al. 2019 (1909.13719), section 3.
    """
    sides = {"translate_x": x.shape[3], "translate_y": x.shape[2]}
    ends = [e.last * sides.get(name, 1) for name, e in OPERATIONS.items()]
    levels = torch.stack([torch.linspace(e.first, end, BINS) for e, end in zip(OPERATIONS.values(), ends, strict=True)])
    for which, sign in draws[:, : RAND_AUGMENT_DRAWS * operations].T.unflatten(0, (operations, 2)):
        x = _apply(x, _pick(which, len(OPERATIONS)), levels, magnitude, sign)
    return x


def trivial_augment(x: Tensor, draws: Tensor) -> Tensor:
    """Apply one operation drawn from 14 with a strength drawn from 31 bins of the wide space.

    x: uint8 N C H W; draws: N TRIVIAL_AUGMENT_DRAWS. Source: Müller & Hutter 2021 (2103.10158), section 3.
    """
    levels = torch.stack([torch.linspace(e.first, e.widest, BINS) for e in OPERATIONS.values()])
    which, bins, sign = draws[:, :TRIVIAL_AUGMENT_DRAWS].unbind(1)
    return _apply(x, _pick(which, len(OPERATIONS)), levels, _pick(bins, BINS), sign)
