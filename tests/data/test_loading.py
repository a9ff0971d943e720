"""Batches: order and augmentation follow from (seed, epoch, position), and mean what they say."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from resnetlab.data.images import Images, open_data
from resnetlab.data.loading import (
    Normalisation,
    batch_ends,
    channel_mean_std,
    epoch_draws,
    evaluation_batches,
    pixel_mean,
    random_crop_flip,
    training_batches,
)
from resnetlab.errors import UserError

AS_IS = Normalisation(torch.zeros(1, 1, 1), torch.full((1, 1, 1), 1 / 255))


def numbered(count: int) -> Images:
    """Images whose every pixel is their number, which is their label too."""
    labels = torch.arange(count)
    return Images(labels.to(torch.uint8)[:, None, None, None].expand(count, 3, 4, 4).contiguous(), labels)


def test_digits_are_split_one_to_four() -> None:
    data = open_data("digits")
    assert (len(data.train), len(data.test), data.shape, data.classes[7]) == (1437, 360, (1, 8, 8), "7")
    assert data.train.pixels.max() == 255


@given(count=st.integers(1, 300), size=st.integers(1, 64))
def test_batches_cover_every_image_once_and_leave_none_alone(count: int, size: int) -> None:
    ends = batch_ends(count, size)
    sizes = [b - a for a, b in zip([0, *ends], ends, strict=False)]
    assert sum(sizes) == count
    assert all(s == size for s in sizes[:-1])
    if count > 1 and size > 1:
        assert min(sizes) > 1


def test_an_epoch_is_a_permutation_that_follows_from_seed_and_epoch() -> None:
    def labels(seed: int, epoch: int) -> list[int]:
        batches = training_batches(numbered(50), 8, seed, epoch, normalise=AS_IS, augment="none")
        return [int(v) for x, y in batches for v in y if bool((x[y == v].round() == v).all())]

    assert sorted(labels(0, 0)) == list(range(50))
    assert labels(0, 0) == labels(0, 0)
    assert len({tuple(labels(s, e)) for s in (0, 1) for e in (0, 1, 2)}) == 6


def test_evaluation_keeps_order_and_counts_each_image_once() -> None:
    seen = torch.cat([labels for _, labels in evaluation_batches(numbered(23), 5, AS_IS)])
    assert seen.tolist() == list(range(23))


@settings(max_examples=30, deadline=None)
@given(top=st.integers(0, 8), left=st.integers(0, 8), flip=st.booleans())
def test_crop_and_flip_equal_their_definition(top: int, left: int, flip: bool) -> None:
    x = torch.rand(1, 3, 32, 32)
    draws = torch.tensor([[(top + 0.5) / 9, (left + 0.5) / 9, 0.25 if flip else 0.75]])
    padded = torch.zeros(1, 3, 40, 40)
    padded[:, :, 4:36, 4:36] = x
    wanted = padded[:, :, top : top + 32, left : left + 32]
    assert torch.equal(random_crop_flip(x, draws), wanted.flip(3) if flip else wanted)


def test_crops_and_flips_are_uniform() -> None:
    _, draws = epoch_draws(seed=3, epoch=1, images=90_000)
    places = (draws[:, :2] * 9).long()
    for column in places.unbind(1):
        share = column.bincount(minlength=9) / len(column)
        assert share.sub(1 / 9).abs().max() < 0.005  # five standard deviations
    assert abs(draws[:, 2].lt(0.5).float().mean() - 0.5) < 0.01


def test_normalisations_equal_their_definition() -> None:
    images = open_data("digits").train
    x = images.pixels.double() / 255
    by_pixel = pixel_mean(images)
    torch.testing.assert_close(by_pixel.mean, x.mean(0).float())
    assert by_pixel(images.pixels).mean(0).abs().max() < 1e-6
    by_channel = channel_mean_std(images)
    torch.testing.assert_close(by_channel.mean.flatten(), x.mean((0, 2, 3)).float())
    torch.testing.assert_close(by_channel.std.flatten(), x.std((0, 2, 3), correction=0).float())


def test_held_out_images_leave_the_training_set() -> None:
    data = open_data("digits")
    train, held = data.hold_out(200)
    assert (len(train), len(held)) == (1237, 200)
    both = torch.cat([train.pixels, held.pixels]).flatten(1).sort(0).values
    assert torch.equal(both, data.train.pixels.flatten(1).sort(0).values)
    assert torch.equal(data.hold_out(200)[1].pixels, held.pixels)
    with pytest.raises(UserError, match="validation_images=1436: digits has 1437 training images, so choose 0 to 1435"):
        data.hold_out(1436)
