"""The operations on batches equal Pillow's on single images, bit for bit."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from resnetlab.data import operations as ops

SHAPES = [(1, 1), (2, 7), (3, 3), (5, 7), (8, 2), (16, 16), (33, 21), (64, 64)]


def pillow(image: Tensor) -> Image.Image:
    """C H W -> L or RGB."""
    return Image.fromarray(image.squeeze(0).numpy() if len(image) == 1 else image.permute(1, 2, 0).numpy())


def tensor(image: Image.Image) -> Tensor:
    """L or RGB -> C H W."""
    levels = torch.from_numpy(np.array(image))
    return levels[None] if levels.ndim == 2 else levels.permute(2, 0, 1)


def edge_cases(channels: int, height: int, width: int) -> Tensor:
    """Random images, plain ones, two levels, a narrow range, ramps, few levels, one stray pixel, few bright ones."""
    generator = torch.Generator().manual_seed(1000 * height + width)
    shape = (channels, height, width)

    def noise(low: int, high: int) -> Tensor:
        return torch.randint(low, high, shape, generator=generator, dtype=torch.uint8)

    ramp = torch.arange(math.prod(shape)).view(shape)
    stray = torch.full(shape, 7, dtype=torch.uint8)
    stray[0, -1, -1] = 250
    skewed = (torch.rand(shape, generator=generator) ** 6 * 256).to(torch.uint8)
    images = [noise(0, 256), noise(0, 256), noise(100, 120), noise(0, 2) * 255, noise(0, 4) * 60, stray, skewed]
    images += [torch.full(shape, v, dtype=torch.uint8) for v in (0, 128, 255)]
    images += [ramp.to(torch.uint8), ramp.flip(2).to(torch.uint8)]
    return torch.stack(images)


def affine(matrix: Callable[[float], tuple[float, ...]]) -> Callable[[Image.Image, float], Image.Image]:
    def transform(image: Image.Image, strength: float) -> Image.Image:
        return image.transform(image.size, Image.Transform.AFFINE, matrix(strength), Image.Resampling.NEAREST)

    return transform


FACTORS = (0, 0.1, 0.3, 0.5, 0.73, 1, 1.27, 1.9, 3)
LEVELS = (0, 0.01, 0.09, 0.3, 0.99, -0.09, -0.3, -0.99)
PIXELS = (0, 1, 2.9, -1, -2.9, 4.35, -13.6, 150)
# name: our operation, Pillow's, strengths
CASES: dict[str, tuple[ops.Operation, Callable[[Image.Image, float], Image.Image], tuple[float, ...]]] = {
    "brightness": (ops.brightness, lambda i, f: ImageEnhance.Brightness(i).enhance(f), FACTORS),
    "contrast": (ops.contrast, lambda i, f: ImageEnhance.Contrast(i).enhance(f), FACTORS),
    "colour": (ops.colour, lambda i, f: ImageEnhance.Color(i).enhance(f), FACTORS),
    "sharpness": (ops.sharpness, lambda i, f: ImageEnhance.Sharpness(i).enhance(f), FACTORS),
    "posterize": (ops.posterize, lambda i, f: ImageOps.posterize(i, int(f)), (1, 2, 3, 4, 5, 6, 7, 8)),
    "solarize": (ops.solarize, ImageOps.solarize, (0, 1, 100, 127.5, 128, 178.5, 255, 256)),
    "autocontrast": (lambda x, _: ops.autocontrast(x), lambda i, _: ImageOps.autocontrast(i), (0,)),
    "equalize": (lambda x, _: ops.equalize(x), lambda i, _: ImageOps.equalize(i), (0,)),
    "invert": (lambda x, _: ops.invert(x), lambda i, _: ImageOps.invert(i), (0,)),
    "identity": (ops.identity, lambda i, _: i, (0,)),
    "shear_x": (ops.shear_x, affine(lambda s: (1, s, 0, 0, 1, 0)), LEVELS),
    "shear_y": (ops.shear_y, affine(lambda s: (1, 0, 0, s, 1, 0)), LEVELS),
    "translate_x": (ops.translate_x, affine(lambda s: (1, 0, -int(s), 0, 1, 0)), PIXELS),
    "translate_y": (ops.translate_y, affine(lambda s: (1, 0, 0, 0, 1, -int(s))), PIXELS),
    "rotate": (ops.rotate, lambda i, s: i.rotate(s), (0, 9, -9, 30, -30, 45, 90, -90, 101.25, 135, 180, 270, 0.01)),
}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", CASES)
def test_operations_equal_pillow(name: str, channels: int, shape: tuple[int, int]) -> None:
    ours, theirs, strengths = CASES[name]
    images = edge_cases(channels, *shape)
    values = torch.tensor(strengths)
    x = images.repeat(len(values), 1, 1, 1)
    result = ours(x, values.repeat_interleave(len(images)))
    assert (result.dtype, result.shape) == (x.dtype, x.shape)
    for value, found in zip(values.tolist(), result.split(len(images)), strict=True):
        wanted = torch.stack([tensor(theirs(pillow(image), value)) for image in images])
        assert torch.equal(found, wanted), f"{name} with {value}"


@pytest.mark.parametrize("name", CASES)
def test_an_image_does_not_depend_on_its_batch(name: str) -> None:
    ours, _, strengths = CASES[name]
    x = edge_cases(3, 13, 17)
    values = torch.tensor(strengths).repeat(len(x))[: len(x)]
    alone = torch.cat([ours(image[None], value[None]) for image, value in zip(x, values, strict=True)])
    assert torch.equal(ours(x, values), alone)


def test_apply_each_gives_each_image_its_operation_and_leaves_the_input() -> None:
    x = edge_cases(3, 5, 7)
    before = x.clone()
    choice = torch.arange(len(x)) % 3
    strength = torch.linspace(0, 2, len(x))
    result = ops.apply_each(x, choice, strength, [ops.identity, ops.brightness, ops.contrast, ops.colour])
    for i, operation in enumerate([ops.identity, ops.brightness, ops.contrast]):
        assert torch.equal(result[i::3], operation(x[i::3], strength[i::3]))
    assert torch.equal(x, before)
