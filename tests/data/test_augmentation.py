"""Augmentations: exact where they are, and random as their papers define it.

Tolerances of shares and moments are five standard errors of the draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from resnetlab.data import operations
from resnetlab.data.augmentation import (
    COLOUR_JITTER_DRAWS,
    COLOUR_NOISE_DRAWS,
    EIGENVALUES,
    EIGENVECTORS,
    RANDOM_ERASING_DRAWS,
    RESIZED_CROP_DRAWS,
    colour_jitter,
    colour_noise,
    cutmix,
    cutmix_box,
    mixing_draws,
    mixup,
    one_hot_smooth,
    random_erasing,
    resized_crop_box,
)
from resnetlab.errors import UserError

LARGEST = 1 - 2**-24  # float32's, below 1


def uniform(n: int, width: int, seed: int = 0) -> Tensor:
    return torch.rand(n, width, generator=torch.Generator().manual_seed(seed))


def pixels(n: int, channels: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(n)
    return torch.randint(0, 256, (n, channels, height, width), generator=generator, dtype=torch.uint8)


def assert_uniform(values: Tensor, low: float, high: float, rounding: float = 0) -> None:
    """Mean and variance are those of a uniform distribution; rounding to pixels moves a value by at most `rounding`."""
    n, wide = len(values), high - low
    assert values.min() >= low - rounding
    assert values.max() <= high + rounding
    assert values.mean().item() == pytest.approx((low + high) / 2, abs=5 * wide / math.sqrt(12 * n) + rounding / 2)
    assert values.var().item() == pytest.approx(wide**2 / 12, abs=5 * wide**2 / math.sqrt(180 * n) + rounding**2)


# --- one image's box ---


def test_crops_have_uniform_areas_log_uniform_ratios_and_uniform_places() -> None:
    """In an image so large that rounding is nothing, and with shares so small that the first try fits."""
    height, width, n = 40_000, 30_000, 20_000
    draws = uniform(n, RESIZED_CROP_DRAWS).double().tolist()
    boxes = torch.tensor([resized_crop_box(d, height, width, scale=(0.08, 0.5)) for d in draws]).double()
    top, left, h, w = boxes.unbind(1)
    assert_uniform(h * w / (height * width), 0.08, 0.5, 1e-4)
    assert_uniform((w / h).log(), math.log(3 / 4), math.log(4 / 3), 1e-4)
    assert_uniform(top / (height - h), 0, 1)
    assert_uniform(left / (width - w), 0, 1)
    both = torch.stack([h * w, w / h, top / (height - h), left / (width - w)])
    assert (both.corrcoef() - torch.eye(4)).abs().max() < 5 / math.sqrt(n)


def test_a_crop_that_fits_no_image_is_tried_again_with_the_next_draws() -> None:
    too_wide = [0.999, 0.999, 0.5, 0.5]
    fits = [0.5, 0.25, 0.999, 0.0]
    top, left, h, w = resized_crop_box(too_wide * 9 + fits, 100, 100)
    area, ratio = 10_000 * 0.54, math.exp(math.log(3 / 4) / 2)
    assert (h, w) == (round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio)))
    assert (top, left) == (100 - h, 0)
    assert resized_crop_box(too_wide * 10 + fits, 100, 100) == (0, 0, 100, 100)


@pytest.mark.parametrize(("shape", "box"), [(0.0, (0, 13, 100, 75)), (1.0, (13, 0, 75, 100))])
def test_a_crop_may_be_as_high_or_as_wide_as_its_image(shape: float, box: tuple[int, ...]) -> None:
    """Three quarters of the area, with the narrowest and the widest ratio."""
    assert resized_crop_box([(0.75 - 0.08) / 0.92, shape, 0.5, 0.5] + [0.1] * 36, 100, 100) == box


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [
        (100, 100, (0, 0, 100, 100)),
        (100, 120, (0, 0, 100, 120)),
        (100, 300, (0, 83, 100, 133)),
        (300, 90, (90, 0, 120, 90)),
        (1, 1, (0, 0, 1, 1)),
        (1, 50, (0, 24, 1, 1)),
    ],
)
def test_where_no_crop_fits_it_is_the_middle(height: int, width: int, box: tuple[int, ...]) -> None:
    never = [2.0, 0.5, 0.5, 0.5] * 10  # twice the whole area
    assert resized_crop_box(never, height, width, scale=(1, 4)) == box


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=40, max_size=40), st.integers(1, 600), st.integers(1, 600))
def test_a_crop_lies_in_its_image(draws: list[float], height: int, width: int) -> None:
    top, left, h, w = resized_crop_box(draws, height, width)
    assert min(top, left) >= 0
    assert min(h, w) >= 1
    assert top + h <= height
    assert left + w <= width


# --- colour jitter ---


def first_in_order(*order: int) -> list[float]:
    """Draws that put the four changes in this order."""
    return [order.index(k) / 4 for k in range(4)]


@pytest.mark.parametrize(
    ("strengths", "spans"),
    [
        ((0.4, 0.3, 2.0), ((0.6, 0.8), (0.7, 0.6), (0.0, 3.0))),
        ((1.5, 2.5, 2.0), ((0.0, 2.5), (0.0, 3.5), (0.0, 3.0))),  # a factor begins at 0, not below
    ],
)
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_colour_jitter_applies_the_four_in_the_order_drawn(
    order: tuple[int, ...], strengths: tuple[float, float, float], spans: tuple[tuple[float, float], ...]
) -> None:
    x = pixels(1, 3, 9, 8)
    own = (0.1, 0.9, 0.75, 0.2)
    draws = torch.tensor([[*own, *first_in_order(*order)]])
    factors = torch.tensor([[low + wide * d] for (low, wide), d in zip((*spans, (0.0, 0.0)), own, strict=True)])
    wanted = x
    for k in order:
        change = (operations.brightness, operations.contrast, operations.colour, operations.identity)[k]
        wanted = change(wanted, factors[k])
    assert torch.equal(colour_jitter(x, draws, *strengths), wanted)


def test_colour_jitter_by_nothing_changes_nothing() -> None:
    x = pixels(20, 3, 5, 7)
    assert torch.equal(colour_jitter(x, uniform(20, COLOUR_JITTER_DRAWS), 0, 0, 0), x)


def test_colour_jitter_draws_every_order_and_factor_alike() -> None:
    """A grey pixel tells the factor of brightness; the 6 orders give 6 different images."""
    n = 24_000
    bright = torch.full((n, 3, 1, 1), 100, dtype=torch.uint8)
    changed = colour_jitter(bright, uniform(n, COLOUR_JITTER_DRAWS), 0.5, 0, 0)[:, 0, 0, 0]
    share = changed.float().histc(10, 50, 150) / n
    assert share.sub(0.1).abs().max() < 5 * math.sqrt(0.09 / n)

    x = pixels(1, 3, 6, 5)
    fixed = uniform(n, COLOUR_JITTER_DRAWS)
    fixed[:, :4] = torch.tensor([0.9, 0.1, 0.9, 0.6])
    found = colour_jitter(x.expand(n, -1, -1, -1), fixed, 0.4, 0.4, 0.4)
    kinds = torch.tensor([[*fixed[0, :4].tolist(), *first_in_order(*order, 3)] for order in permutations(range(3))])
    wanted = colour_jitter(x.expand(6, -1, -1, -1), kinds, 0.4, 0.4, 0.4)
    assert len(wanted.unique(dim=0)) == 6
    for one in wanted:
        share = found.eq(one).all((1, 2, 3)).float().mean()
        assert share.item() == pytest.approx(1 / 6, abs=5 * math.sqrt(1 / 6 / n))


def test_grey_images_keep_saturation() -> None:
    x = pixels(30, 1, 5, 7)
    draws = uniform(30, COLOUR_JITTER_DRAWS)
    assert torch.equal(colour_jitter(x, draws, 0, 0, 0.9), x)
    assert not torch.equal(colour_jitter(x, draws, 0.5, 0.5, 0), x)


# --- random erasing ---


def erased_boxes(result: Tensor) -> Tensor:
    """top, left, height, width of the zeros in each image of ones; they fill their box."""
    zero = result[:, 0] == 0
    rows, columns = zero.any(2), zero.any(1)
    h, w = rows.sum(1), columns.sum(1)
    assert torch.equal(zero.sum((1, 2)), h * w)
    return torch.stack([rows.int().argmax(1), columns.int().argmax(1), h, w], 1)


def test_erasing_has_the_published_shares() -> None:
    n, height, width = 4000, 150, 170
    scale, ratio = (0.05, 0.2), (0.5, 2.0)  # always fits
    result = random_erasing(torch.ones(n, 1, height, width), uniform(n, RANDOM_ERASING_DRAWS), 0.25, scale, ratio)
    erased = result.eq(0).any(3).any(2).any(1)
    assert erased.float().mean().item() == pytest.approx(0.25, abs=5 * math.sqrt(0.1875 / n))
    top, left, h, w = erased_boxes(result[erased]).double().unbind(1)
    assert_uniform(h * w / (height * width), *scale, 0.006)
    assert_uniform((h / w).log(), math.log(ratio[0]), math.log(ratio[1]), 0.04)
    assert_uniform(top / (height - h + 1), 0, 1, 0.02)
    assert_uniform(left / (width - w + 1), 0, 1, 0.02)


def test_erasing_equals_its_definition_one_image_at_a_time() -> None:
    """All channels of one box, from the first try that is shorter than both sides; here many are not."""
    x = uniform(300, 3 * 12 * 20, 1).view(300, 3, 12, 20) + 0.1
    draws = uniform(300, RANDOM_ERASING_DRAWS)
    found = random_erasing(x, draws, 0.7, (0.02, 1.5))
    tries_used = set()
    for image, (whether, *tries), result in zip(x, draws.double().tolist(), found, strict=True):
        wanted = image.clone()
        for k in range(10):
            share, shape, down, across = tries[4 * k : 4 * k + 4]
            area = 240 * (0.02 + 1.48 * share)
            ratio = math.exp(math.log(0.3) + math.log(3.3 / 0.3) * shape)
            h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if h < 12 and w < 20:
                top, left = int(down * (13 - h)), int(across * (21 - w))
                if whether < 0.7:
                    wanted[:, top : top + h, left : left + w] = 0
                    tries_used.add(k)
                break
        assert torch.equal(result, wanted)
    assert tries_used >= {0, 1, 2, 3}


def test_erasing_reaches_every_border_and_leaves_what_no_box_fits() -> None:
    x = torch.ones(2, 1, 9, 7)
    ends = torch.tensor([[0.0, *[0.5, 0.5, end, end] * 10] for end in (0.0, LARGEST)])
    (top, left, h, w), (bottom, right, *same) = erased_boxes(random_erasing(x, ends, 1)).tolist()
    assert (top, left, bottom, right, same) == (0, 0, 9 - h, 7 - w, [h, w])
    for size in ((1, 1), (1, 8)):
        tiny = torch.ones(50, 3, *size)
        assert torch.equal(random_erasing(tiny, uniform(50, RANDOM_ERASING_DRAWS), 1), tiny)
    assert torch.equal(random_erasing(x, ends, 0), x)


# --- colour noise ---


def test_colour_noise_has_the_published_variance_along_each_component() -> None:
    n = 100_000
    shift = colour_noise(torch.zeros(n, 3, 1, 1), uniform(n, COLOUR_NOISE_DRAWS))[:, :, 0, 0].double()
    along = torch.linalg.solve(torch.tensor(EIGENVECTORS).double(), shift.T) / torch.tensor(EIGENVALUES)[:, None]
    for alpha in along:
        assert alpha.mean().item() == pytest.approx(0, abs=5 * 0.1 / math.sqrt(n))
        assert alpha.var().item() == pytest.approx(0.01, abs=5 * 0.01 * math.sqrt(2 / n))
        assert alpha.abs().lt(0.1).double().mean().item() == pytest.approx(0.6827, abs=5 * 0.466 / math.sqrt(n))
    assert (along.corrcoef() - torch.eye(3)).abs().max() < 5 / math.sqrt(n)


def test_the_components_are_orthonormal_and_the_first_is_grey() -> None:
    assert EIGENVALUES == (0.2175, 0.0188, 0.0045)
    vectors = torch.tensor(EIGENVECTORS)
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(3), atol=3e-4, rtol=0)
    x = torch.full((1, 3, 2, 2), 0.5)
    shift = colour_noise(x, torch.tensor([[0.8413447, 0.5, 0.5]])) - x  # alpha = (0.1, 0, 0)
    torch.testing.assert_close(shift[0, :, 0, 0], 0.1 * 0.2175 * vectors[:, 0], atol=1e-6, rtol=0)
    assert torch.equal(shift, shift[:, :, :1, :1].expand_as(shift))


def test_colour_noise_is_finite_at_the_ends_and_needs_three_channels() -> None:
    x = torch.rand(2, 3, 2, 2)
    assert colour_noise(x, torch.tensor([[0.0] * 3, [LARGEST] * 3])).isfinite().all()
    with pytest.raises(UserError, match="3 channels, not 1"):
        colour_noise(x[:, :1], uniform(2, 3))


# --- mixing ---


def test_soft_targets_equal_their_definition() -> None:
    assert one_hot_smooth(torch.tensor([2, 0]), 4).tolist() == [[0, 0, 1, 0], [1, 0, 0, 0]]
    smooth = one_hot_smooth(torch.tensor([1]), 5, 0.1)
    torch.testing.assert_close(smooth, torch.tensor([[0.02, 0.92, 0.02, 0.02, 0.02]]))


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_lam_is_beta_distributed_and_partners_are_permutations(alpha: float) -> None:
    n = 4000
    drawn = [mixing_draws(seed, 5, alpha) for seed in range(n)]
    lam = torch.tensor([d[0] for d in drawn], dtype=torch.float64)
    variance = 1 / (4 * (2 * alpha + 1))
    assert lam.min() >= 0
    assert lam.max() <= 1
    assert lam.mean().item() == pytest.approx(0.5, abs=5 * math.sqrt(variance / n))
    fourth = lam.sub(0.5).pow(4).mean().item()
    assert lam.var().item() == pytest.approx(variance, abs=5 * math.sqrt((fourth - variance**2) / n))
    assert fourth == pytest.approx(3 / (16 * (2 * alpha + 1) * (2 * alpha + 3)), rel=0.15)
    partners = torch.stack([d[1] for d in drawn])
    assert torch.equal(partners.sort(1).values, torch.arange(5).expand(n, -1))
    share = torch.stack([(partners == k).float().mean(0) for k in range(5)])
    assert share.sub(0.2).abs().max() < 5 * 0.4 / math.sqrt(n)
    assert_uniform(torch.tensor([d[2] for d in drawn]).flatten(), 0, 1)


def test_mixing_follows_from_the_seed_alone() -> None:
    torch.manual_seed(0)
    first = mixing_draws(7, 9, 0.2)
    state = torch.get_rng_state()
    again = mixing_draws(7, 9, 0.2)
    assert (first[0], first[2]) == (again[0], again[2])
    assert torch.equal(first[1], again[1])
    assert torch.equal(state, torch.get_rng_state())
    assert mixing_draws(8, 9, 0.2)[0] != first[0]
    with pytest.raises(UserError, match=r"alpha=0 must be above 0"):
        mixing_draws(0, 9, 0)


def test_mixup_equals_its_definition() -> None:
    x, targets, partner = torch.rand(4, 3, 2, 5), torch.rand(4, 6), torch.tensor([3, 1, 0, 2])
    mixed, soft = mixup(x, targets, 0.3, partner)
    for i, j in enumerate(partner):
        torch.testing.assert_close(mixed[i], 0.3 * x[i] + 0.7 * x[j])
        torch.testing.assert_close(soft[i], 0.3 * targets[i] + 0.7 * targets[j])
    for lam, wanted in ((1.0, torch.arange(4)), (0.0, partner)):
        mixed, soft = mixup(x, targets, lam, partner)
        assert torch.equal(mixed, x[wanted])
        assert torch.equal(soft, targets[wanted])


def test_cutmix_equals_its_definition() -> None:
    x, targets, partner = torch.rand(4, 3, 6, 5), torch.rand(4, 6), torch.tensor([3, 1, 0, 2])
    before = x.clone()
    mixed, soft = cutmix(x, targets, (1, 2, 3, 2), partner)
    inside = torch.zeros(6, 5, dtype=torch.bool)
    inside[1:4, 2:4] = True
    assert torch.equal(mixed, torch.where(inside, x[partner], x))
    torch.testing.assert_close(soft, 0.8 * targets + 0.2 * targets[partner])  # 6 of 30 pixels
    assert torch.equal(x, before)
    for box, wanted in (((2, 3, 0, 0), torch.arange(4)), ((0, 0, 6, 5), partner)):
        mixed, soft = cutmix(x, targets, box, partner)
        assert torch.equal(mixed, x[wanted])
        assert torch.equal(soft, targets[wanted])


@pytest.mark.parametrize(
    ("lam", "place", "box"),
    [
        (1.0, (0.5, 0.5), (16, 20, 0, 0)),
        (0.0, (0.5, 0.5), (0, 0, 32, 40)),
        (0.75, (0.5, 0.5), (8, 10, 16, 20)),
        (0.75, (0.0, 0.999), (0, 29, 8, 11)),
        (0.0, (0.0, 0.0), (0, 0, 16, 20)),
    ],
)
def test_the_box_to_paste(lam: float, place: tuple[float, float], box: tuple[int, ...]) -> None:
    assert cutmix_box(lam, place, 32, 40) == box


@given(st.floats(0, 1), st.floats(0, 1, exclude_max=True), st.integers(1, 50), st.integers(1, 50))
def test_the_box_to_paste_lies_in_the_image(lam: float, place: float, height: int, width: int) -> None:
    top, left, h, w = cutmix_box(lam, (place, 1 - place - 2**-40 if place < 0.9 else 0), height, width)
    assert 0 <= top <= top + h <= height
    assert 0 <= left <= left + w <= width
    assert h * w <= (1 - lam) * height * width + 1e-9


# --- batches ---

BATCHED: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], int]] = {
    "colour_jitter": (lambda x, d: colour_jitter(x, d, 0.4, 0.4, 0.4), COLOUR_JITTER_DRAWS),
    "random_erasing": (lambda x, d: random_erasing(x / 255 + 1, d, 0.7), RANDOM_ERASING_DRAWS),
    "colour_noise": (lambda x, d: colour_noise(x / 255, d), COLOUR_NOISE_DRAWS),
}


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (17, 16)], ids=str)
@pytest.mark.parametrize("name", BATCHED)
def test_an_image_depends_on_its_own_draws_alone(name: str, shape: tuple[int, int]) -> None:
    augment, width = BATCHED[name]
    x, draws = pixels(65, 3, *shape), uniform(65, width)
    before = x.clone()
    together = augment(x, draws)
    alone = torch.cat([augment(x[i : i + 1], draws[i : i + 1]) for i in range(len(x))])
    assert torch.equal(together, alone)
    assert torch.equal(together, augment(x, draws))
    assert torch.equal(x, before)
