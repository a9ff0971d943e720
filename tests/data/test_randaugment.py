"""RandAugment and TrivialAugment equal a loop over single images with Pillow, and draw what the papers say."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from resnetlab.data.randaugment import (
    BINS,
    OPERATIONS,
    RAND_AUGMENT_DRAWS,
    TRIVIAL_AUGMENT_DRAWS,
    rand_augment,
    trivial_augment,
)

NAMES = list(OPERATIONS)
SIGNED = {"shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "colour", "contrast", "sharpness"}
# The last bin, RandAugment's (translations: a share of the side) and TrivialAugment's (translations: pixels).
ENDS = {"shear_x": (0.3, 0.99), "shear_y": (0.3, 0.99), "rotate": (30, 135), "posterize": (4, 2)}
ENDS |= {"translate_x": (150 / 331, 32), "translate_y": (150 / 331, 32), "solarize": (0, 0)}
ENDS |= dict.fromkeys(("brightness", "colour", "contrast", "sharpness"), (0.9, 0.99))


def shear(image: Image.Image, x: float, y: float) -> Image.Image:
    """As torchvision: the level becomes an angle in degrees, and the angle a matrix about the top left corner."""
    sx, sy = (math.radians(math.degrees(math.atan(level))) for level in (x, y))
    a, b = math.cos(-sy) / math.cos(sy), -math.cos(-sy) * math.tan(sx) / math.cos(sy)
    c, d = math.sin(-sy) / math.cos(sy), -math.sin(-sy) * math.tan(sx) / math.cos(sy) + 1
    return image.transform(image.size, Image.Transform.AFFINE, (d, -b, 0, -c, a, 0), Image.Resampling.NEAREST)


def translate(image: Image.Image, x: float, y: float) -> Image.Image:
    matrix = (1, 0, -int(x), 0, 1, -int(y))
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST)


PILLOW: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "identity": lambda i, s: i,
    "shear_x": lambda i, s: shear(i, s, 0),
    "shear_y": lambda i, s: shear(i, 0, s),
    "translate_x": lambda i, s: translate(i, s, 0),
    "translate_y": lambda i, s: translate(i, 0, s),
    "rotate": lambda i, s: i.rotate(s),
    "brightness": lambda i, s: ImageEnhance.Brightness(i).enhance(1 + s),
    "colour": lambda i, s: ImageEnhance.Color(i).enhance(1 + s),
    "contrast": lambda i, s: ImageEnhance.Contrast(i).enhance(1 + s),
    "sharpness": lambda i, s: ImageEnhance.Sharpness(i).enhance(1 + s),
    "posterize": lambda i, s: ImageOps.posterize(i, round(s)),
    "solarize": lambda i, s: ImageOps.solarize(i, s),  # type: ignore[arg-type]
    "autocontrast": lambda i, s: ImageOps.autocontrast(i),
    "equalize": lambda i, s: ImageOps.equalize(i),
}


def by_pillow(image: Tensor, name: str, bin_: int, negative: bool, wide: bool) -> Tensor:
    """One operation on one image C H W."""
    first = {"posterize": 8.0, "solarize": 255.0}.get(name, 0.0)
    last = ENDS.get(name, (0, 0))[wide]
    if not wide:
        last *= {"translate_x": image.shape[2], "translate_y": image.shape[1]}.get(name, 1)
    strength = torch.linspace(first, last, 31)[bin_].item() * (-1 if negative and name in SIGNED else 1)
    levels = image[0].numpy() if len(image) == 1 else image.permute(1, 2, 0).numpy()
    result = torch.from_numpy(np.array(PILLOW[name](Image.fromarray(levels), strength)))
    return result[None] if len(image) == 1 else result.permute(2, 0, 1)


def noise(n: int, channels: int, height: int, width: int) -> Tensor:
    """Smooth images of many colours, so that every operation shows."""
    generator = torch.Generator().manual_seed(n)
    coarse = torch.rand(n, channels, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return (smooth * 180 + torch.rand(n, channels, height, width, generator=generator) * 40 + 10).to(torch.uint8)


def uniform(n: int, width: int, seed: int = 0) -> Tensor:
    return torch.rand(n, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("channels", "height", "width"), [(3, 32, 32), (1, 28, 28), (3, 21, 40), (3, 1, 1)])
@pytest.mark.parametrize("magnitude", [0, 9, 30])
def test_rand_augment_equals_pillow_one_image_at_a_time(channels: int, height: int, width: int, magnitude: int) -> None:
    x = noise(112, channels, height, width)
    draws = uniform(len(x), 2 * RAND_AUGMENT_DRAWS)
    draws[:56, 0] = (torch.arange(56) % 14 + 0.5) / 14  # every operation comes first, with either sign
    draws[:56, 1] = (torch.arange(56) // 14 % 2 + 0.5) / 2
    found = rand_augment(x, draws, magnitude=magnitude)
    for image, (which, sign, then, its_sign), result in zip(x, draws.tolist(), found, strict=True):
        wanted = by_pillow(image, NAMES[int(which * 14)], magnitude, sign < 0.5, wide=False)
        wanted = by_pillow(wanted, NAMES[int(then * 14)], magnitude, its_sign < 0.5, wide=False)
        assert torch.equal(result, wanted), (NAMES[int(which * 14)], NAMES[int(then * 14)])


def test_by_default_two_operations_have_magnitude_9() -> None:
    """As the paper takes for ResNet-50 on ImageNet (section 4.3)."""
    x, draws = noise(28, 3, 16, 16), uniform(28, 2 * RAND_AUGMENT_DRAWS)
    assert torch.equal(rand_augment(x, draws), rand_augment(x, draws, operations=2, magnitude=9))
    assert not torch.equal(rand_augment(x, draws), rand_augment(x, draws, operations=2, magnitude=10))


@pytest.mark.parametrize(("channels", "height", "width"), [(3, 40, 36), (1, 28, 28)])
def test_trivial_augment_equals_pillow_in_every_bin(channels: int, height: int, width: int) -> None:
    cases = torch.cartesian_prod(torch.arange(14), torch.arange(31), torch.arange(2))
    x = noise(1, channels, height, width).repeat(len(cases), 1, 1, 1)
    found = trivial_augment(x, (cases + 0.5) / torch.tensor([14, 31, 2]))
    for image, (which, bin_, sign), result in zip(x, cases.tolist(), found, strict=True):
        assert torch.equal(result, by_pillow(image, NAMES[which], bin_, sign == 0, wide=True)), (NAMES[which], bin_)


def test_the_space_is_the_published_one() -> None:
    assert (len(OPERATIONS), BINS, set(PILLOW)) == (14, 31, set(OPERATIONS))


def test_operations_bins_and_signs_are_uniform() -> None:
    """What was drawn shows: each bin and sign moves a bright pixel elsewhere, each operation makes another image."""
    n = 40_000
    x = torch.zeros(n, 1, 1, 65, dtype=torch.uint8)
    x[..., 32] = 255
    draws = uniform(n, TRIVIAL_AUGMENT_DRAWS)
    draws[:, 0] = (NAMES.index("translate_x") + 0.5) / 14
    place = trivial_augment(x, draws)[:, 0, 0].argmax(1) - 32
    moved = torch.linspace(0, 32, 31).trunc().long()
    for sign in (-1, 1):
        share = torch.stack([(place == sign * m).float().mean() for m in moved[1:]])
        assert share.sub(1 / 62).abs().max() < 5 * math.sqrt(1 / 62 / n)

    grey = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    each = torch.cat([rand_augment(grey, torch.tensor([[(k + 0.5) / 14, 0.9]]), operations=1) for k in range(14)])
    found = rand_augment(grey.repeat(n, 1, 1, 1), uniform(n, RAND_AUGMENT_DRAWS), operations=1)
    for k in (NAMES.index("posterize"), NAMES.index("solarize")):
        assert found.eq(each[k]).all((1, 2, 3)).float().mean().item() == pytest.approx(1 / 14, abs=5 * 0.26 / n**0.5)
    rotated = found.eq(each[NAMES.index("rotate")]).all((1, 2, 3)).float().mean().item()
    assert rotated == pytest.approx(1 / 28, abs=5 * 0.19 / n**0.5)  # one sign of two


@pytest.mark.parametrize("augment", [rand_augment, trivial_augment])
def test_an_image_depends_on_its_own_draws_alone(augment: Callable[[Tensor, Tensor], Tensor]) -> None:
    x, draws = noise(70, 3, 19, 23), uniform(70, 4)
    before = x.clone()
    together = augment(x, draws)
    assert torch.equal(together, torch.cat([augment(x[i : i + 1], draws[i : i + 1]) for i in range(len(x))]))
    assert torch.equal(together, augment(x, draws))
    assert torch.equal(x, before)
    assert together.ne(x).any((1, 2, 3)).float().mean() > 0.6


def test_the_largest_draw_is_in_range() -> None:
    x = noise(2, 3, 8, 8)
    draws = torch.tensor([[0.0] * 4, [1 - 2**-24] * 4])
    assert torch.equal(rand_augment(x, draws)[0], x[0])
    assert torch.equal(trivial_augment(x, draws)[1], rand_augment(x, draws, operations=1)[1])  # equalised
