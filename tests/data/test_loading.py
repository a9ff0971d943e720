"""Batches: order and augmentation follow from (seed, epoch, position), and mean what they say."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from importlib.machinery import ModuleSpec

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from resnetlab.data import digits, loading
from resnetlab.data.augmentation import alternating_flips, crop_flip
from resnetlab.data.files import Files
from resnetlab.data.images import Data, Images
from resnetlab.data.loading import Augmentation, Loader, batch_ends, share
from resnetlab.data.normalisation import Normalisation
from resnetlab.data.open import open_data
from resnetlab.data.resizing import Resizing
from resnetlab.data.seeds import epoch_order, uniform
from resnetlab.data.statistics import measure
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


@pytest.mark.parametrize("found", [True, False])
def test_digits_are_those_of_scikit_learn(found: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether or not its file is where it has always been."""
    from sklearn.datasets import load_digits  # takes a second to import

    if not found:
        monkeypatch.setattr(digits, "find_spec", lambda name: ModuleSpec(name, None, origin="/elsewhere/__init__.py"))
    data, (pixels, labels) = open_data("digits"), load_digits(return_X_y=True)
    for part, chosen in ((data.test, np.arange(1797) % 5 == 0), (data.train, np.arange(1797) % 5 > 0)):
        assert isinstance(part, Images)
        assert np.array_equal(part.pixels.flatten(1), (pixels[chosen] * 255 / 16).round())
        assert part.labels.tolist() == labels[chosen].tolist()


def test_held_out_images_keep_their_order() -> None:
    images = numbered(50)
    kept, chosen = Data("numbered", images, images, ("a", "b")).hold_out(10)
    for part in (kept, chosen):
        assert part.labels.tolist() == sorted(part.labels.tolist())
    assert sorted([*kept.labels.tolist(), *chosen.labels.tolist()]) == list(range(50))
    assert chosen.labels.tolist() not in (list(range(10)), list(range(40, 50)))


def test_a_fingerprint_is_of_all_that_a_network_could_learn_from() -> None:
    def fingerprint(name: str = "n", count: int = 5, test: int = 3, classes: tuple[str, ...] = ("a", "b")) -> str:
        return Data(name, numbered(count), numbered(test), classes).fingerprint

    relabelled = Images(numbered(5).pixels, numbered(5).labels.flip(0))
    others = [fingerprint(name="m"), fingerprint(count=6), fingerprint(test=4), fingerprint(classes=("a", "c"))]
    others.append(Data("n", relabelled, numbered(3), ("a", "b")).fingerprint)
    assert len({fingerprint(), *others}) == 6
    assert fingerprint() == Data("n", numbered(5), numbered(3), ("a", "b"), own_name="mine").fingerprint


@given(count=st.integers(1, 300), size=st.integers(1, 64))
def test_batches_cover_every_image_once_and_leave_none_alone(count: int, size: int) -> None:
    ends = batch_ends(count, size)
    sizes = [b - a for a, b in zip([0, *ends], ends, strict=False)]
    assert sum(sizes) == count
    assert all(s == size for s in sizes[:-1])
    if count > 1 and size > 1:
        assert min(sizes) > 1


@pytest.mark.parametrize(
    ("count", "least", "ends"),
    [(10, 2, [4, 8, 10]), (9, 2, [4, 9]), (12, 4, [4, 8, 12]), (11, 4, [4, 11]), (3, 4, [3])],
)
def test_a_last_batch_joins_the_one_before_it_only_if_it_is_too_small(count: int, least: int, ends: list[int]) -> None:
    assert batch_ends(count, 4, least) == ends


def test_an_epoch_is_a_permutation_that_follows_from_seed_and_epoch() -> None:
    def labels(seed: int, epoch: int) -> list[int]:
        batches = Loader(AS_IS, 50).training(numbered(50), 8, seed, epoch)
        return [int(v) for x, y, *_ in batches for v in y if bool((x[y == v].round() == v).all())]

    assert sorted(labels(0, 0)) == list(range(50))
    assert labels(0, 0) == labels(0, 0)
    assert len({tuple(labels(s, e)) for s in (0, 1) for e in (0, 1, 2)}) == 6


def test_crops_beyond_the_border_are_black() -> None:
    images = Images(torch.full((20, 3, 4, 4), 7, dtype=torch.uint8), torch.arange(20))
    loader = Loader(AS_IS, 20, augmentation=Augmentation(augment="crop_flip"))
    x = torch.cat([batch.x for batch in loader.training(images, 8, 0, 0)])
    assert x.round().unique().tolist() == [0, 7]


@pytest.mark.parametrize("padding", [0, 1, 3])
def test_crops_move_by_at_most_the_padding(padding: int) -> None:
    """Seen by a bright pixel in the middle, which flips leave there."""
    pixels = torch.zeros(400, 1, 9, 9, dtype=torch.uint8)
    pixels[:, :, 4, 4] = 255
    loader = Loader(AS_IS, 400, augmentation=Augmentation(augment="crop_flip", crop_padding=padding))
    (batch,) = loader.training(Images(pixels, torch.arange(400)), 400, 0, 0)
    moved = batch.x.flatten(1).argmax(1)
    assert {(int(at) // 9, int(at) % 9) for at in moved} == {
        (4 + down, 4 + across) for down in range(-padding, padding + 1) for across in range(-padding, padding + 1)
    }


def test_evaluation_keeps_order_and_counts_each_image_once() -> None:
    batches = list(Loader(AS_IS, 23).evaluation(numbered(23), 5))
    assert torch.cat([labels for _, labels in batches]).tolist() == list(range(23))
    assert torch.cat([x for x, _ in batches])[:, 0, 0, 0].round().tolist() == list(range(23)), "normalised"


def test_a_single_image_is_no_batch() -> None:
    assert list(Loader(AS_IS, 1).training(numbered(1), 8, 0, 0)) == []


@settings(max_examples=30)
@given(
    places=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20), st.booleans()), min_size=1, max_size=9),
    pad=st.integers(0, 10),
    by_pixel=st.booleans(),
)
def test_crop_and_flip_equal_their_definition(places: list[tuple[int, int, bool]], pad: int, by_pixel: bool) -> None:
    """Normalise, pad with zeros, cut out, mirror: one after another, image by image."""
    n, ways = len(places), 2 * pad + 1
    places = [(top % ways, left % ways, flip) for top, left, flip in places]
    pixels = torch.randint(0, 256, (n, 3, 12, 14), dtype=torch.uint8)
    normalise = Normalisation(torch.rand(3, 12, 14) if by_pixel else torch.rand(3, 1, 1), torch.rand(3, 1, 1) + 0.1)
    drawn = [((top + 0.5) / ways, (left + 0.5) / ways, 0.499 if flip else 0.5) for top, left, flip in places]
    draws = torch.tensor(drawn)
    buffer = torch.zeros(n + 2, 3, 12 + 2 * pad, 14 + 2 * pad)
    for _ in range(2):  # the buffer can be used again
        found = crop_flip(pixels, draws, normalise, buffer)
    padded = torch.zeros(n, 3, 12 + 2 * pad, 14 + 2 * pad)
    padded[:, :, pad : pad + 12, pad : pad + 14] = normalise(pixels)
    for x, image, (top, left, flip) in zip(found, padded, places, strict=True):
        wanted = image[:, top : top + 12, left : left + 14]
        torch.testing.assert_close(x, wanted.flip(2) if flip else wanted, rtol=1e-5, atol=1e-5)


def sides(loader: Loader, images: Images, seed: int, epoch: int) -> dict[int, set[bool]]:
    """Whether each image of an epoch was mirrored, by the number in its second row."""
    found = defaultdict[int, set[bool]](set)
    for x, *_ in loader.training(images, 16, seed, epoch):
        for image in x.round():
            found[int(image[0, 1, 0])].add(bool(image[0, 0, 0] > 30))
    return found


@pytest.mark.parametrize("balanced", [False, True])
def test_alternating_flips_mirror_each_image_in_every_other_epoch(balanced: bool) -> None:
    """Pixels that grow to the right; crops don't move. Balanced, images of the small class occur several times."""
    pixels = torch.arange(60, dtype=torch.uint8).repeat(200, 1, 2, 1)
    pixels[:, 0, 1] = torch.arange(200, dtype=torch.uint8)[:, None]
    images = Images(pixels, torch.tensor([0] * 180 + [1] * 20))
    how = Augmentation(augment="crop_alternating_flip", crop_padding=0)
    loader = Loader(AS_IS, 2, augmentation=how, balanced=balanced)
    epochs = [sides(loader, images, 0, epoch) for epoch in range(4)]
    assert all(len(seen) == 1 for epoch in epochs for seen in epoch.values())
    if not balanced:
        assert 70 < sum(True in seen for seen in epochs[0].values()) < 130
        mirrored = alternating_flips(uniform("first flip", 0, 0, 0, 200, 1)[:, 0], 0).tolist()
        assert [epochs[0][i] for i in range(200)] == [{each} for each in mirrored]
    for one, other, apart in ((0, 1, 1), (1, 2, 1), (0, 2, 2), (0, 3, 3)):
        both = epochs[one].keys() & epochs[other].keys()
        assert len(both) > 50
        assert all((epochs[one][i] == epochs[other][i]) == (apart % 2 == 0) for i in both)
    other_seed = sides(loader, images, 1, 0)
    assert any(other_seed[i] != epochs[0][i] for i in other_seed.keys() & epochs[0].keys())


def test_crops_and_flips_are_uniform() -> None:
    draws = uniform("crop and flip", seed=3, epoch=1, start=0, stop=90_000, draws=3)
    places = (draws[:, :2] * 9).long()
    for column in places.unbind(1):
        share = column.bincount(minlength=9) / len(column)
        assert share.sub(1 / 9).abs().max() < 0.005  # five standard deviations
    assert abs(draws[:, 2].lt(0.5).float().mean() - 0.5) < 0.01


def test_normalisations_equal_their_definition() -> None:
    images = open_data("digits").train
    x = images.pixels.double() / 255
    by_pixel = measure(images, 0).pixel_mean()
    torch.testing.assert_close(by_pixel.mean, x.mean(0).float())
    assert by_pixel(images.pixels).mean(0).abs().max() < 1e-6
    by_channel = measure(images, 0).channel_mean_std()
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


def test_one_training_image_is_too_few_whatever_is_held_out() -> None:
    data = open_data("digits")
    with pytest.raises(UserError, match=r"^digits: only 1 training image; training needs two or more\.$"):
        replace(data, train=data.train[:1]).check_hold_out(0)


def test_classes_that_are_held_out_whole() -> None:
    data = open_data("digits")
    assert data.held_out_whole(0) == data.held_out_whole(200) == []
    lost = data.held_out_whole(1435)
    assert len(lost) >= 8
    assert {data.classes[k] for k in data.hold_out(1435)[0].labels.tolist()} == set(data.classes) - set(lost)
    train = Images(data.train.pixels[:50], torch.tensor([0] * 49 + [7]))
    for count in range(49):
        few = replace(data, train=train)
        assert few.held_out_whole(count) == (["7"] if 7 not in few.hold_out(count)[0].labels else [])


@given(start=st.integers(0, 40), count=st.integers(0, 40), draws=st.integers(0, 9))
def test_random_numbers_belong_to_positions(start: int, count: int, draws: int) -> None:
    every = uniform("test", 1, 2, 0, 80, draws)
    assert torch.equal(uniform("test", 1, 2, start, start + count, draws), every[start : start + count])
    assert ((every >= 0) & (every < 1)).all()
    if draws:
        for other in (("other", 1, 2), ("test", 2, 2), ("test", 1, 3)):
            assert not torch.equal(uniform(*other, 0, 80, draws), every)


@given(start=st.integers(0, 100), count=st.integers(0, 100), ranks=st.integers(1, 9))
def test_shares_of_the_ranks_are_the_whole_once(start: int, count: int, ranks: int) -> None:
    parts = [share(start, start + count, rank, ranks) for rank in range(ranks)]
    assert [i for a, b in parts for i in range(a, b)] == list(range(start, start + count))
    sizes = [b - a for a, b in parts]
    assert max(sizes) - min(sizes) <= 1


@given(count=st.integers(1, 300), size=st.integers(2, 64), ranks=st.integers(1, 4))
def test_every_rank_has_two_images_of_every_batch(count: int, size: int, ranks: int) -> None:
    ends = [0, *batch_ends(count, max(size, 2 * ranks), 2 * ranks)]
    for a, b in zip(ends, ends[1:], strict=False):
        sizes = [stop - start for start, stop in (share(a, b, rank, ranks) for rank in range(ranks))]
        assert min(sizes) > 1 or count < 2 * ranks


@pytest.mark.parametrize("augment", ["crop_flip", "crop_alternating_flip"])
def test_ranks_and_a_start_in_mid_epoch_give_the_same_images_with_the_same_augmentation(augment: str) -> None:
    images = numbered(50)
    how = Augmentation(augment=augment, policy="trivialaugment", colour_jitter=0.3, erasing=0.5)

    def seen(**options: int) -> dict[int, torch.Tensor]:
        start = options.pop("start", 0)
        found = {}
        for x, labels, *_ in Loader(AS_IS, 50, augmentation=how, **options).training(images, 8, 0, 1, start):
            found |= {int(label): image for label, image in zip(labels, x, strict=True)}
        return found

    whole = seen()
    assert len(whole) == 50
    parts = [seen(rank=rank, ranks=3) for rank in range(3)]
    assert sum(map(len, parts)) == 50
    assert all(torch.equal(whole[i], image) for part in parts for i, image in part.items())
    for start in (1, 8, 13, 48):
        rest = seen(start=start)
        assert len(rest) == 50 - start
        assert list(rest) == list(whole)[start:]
        assert all(torch.equal(whole[i], image) for i, image in rest.items())


def test_images_that_are_left_out_change_nothing_for_the_others() -> None:
    """Draws go by an image's position in the epoch, not by its place among those that could be read."""
    images, how = numbered(9), Augmentation(augment="crop_flip", colour_jitter=0.3, erasing=0.5)
    loader, padded = Loader(AS_IS, 9, augmentation=how), torch.zeros(9, 3, 12, 12)
    read = torch.tensor([0, 2, 3, 7])
    whole, some = (
        loader._augmented(images.pixels[places], images.labels[places], places, padded.clone(), None, 0, 1).x
        for places in (torch.arange(9), read)
    )
    assert torch.equal(some, whole[read])


def test_each_batch_is_mixed_by_draws_of_its_own_and_each_way_has_its_turn() -> None:
    images = Images(
        torch.arange(16, dtype=torch.uint8)[:, None, None, None].expand(16, 1, 8, 8).mul(16), torch.arange(16)
    )
    mixed = Loader(AS_IS, 16, augmentation=Augmentation(mixup=1.0, cutmix=1.0))
    batches = [batch for epoch in range(8) for batch in mixed.training(images, 4, 0, epoch)]
    pasted = [bool((batch.x.round() % 16 == 0).all()) for batch in batches]  # cutmix leaves every level as it was
    assert 8 <= sum(pasted) <= 24
    blended = Loader(AS_IS, 16, augmentation=Augmentation(mixup=1.0))
    targets = [batch.targets for batch in blended.training(images, 4, 0, 0) if batch.targets is not None]
    assert len({tuple(each.unique().tolist()) for each in targets}) == 4


@pytest.mark.parametrize(("augment", "more"), [("crop_flip", []), ("crop_alternating_flip", ["first flip"])])
def test_no_two_uses_share_random_numbers(augment: str, more: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []

    def noting(purpose: str, *rest: int) -> torch.Tensor:
        drawn.append(purpose)
        return uniform(purpose, *rest)

    monkeypatch.setattr(loading, "uniform", noting)
    how = Augmentation(augment=augment, policy="randaugment", colour_jitter=0.3, erasing=0.5)
    (_,) = Loader(AS_IS, 9, augmentation=how).training(numbered(9), 9, 0, 0)
    assert sorted(drawn) == sorted(["colour jitter", "crop and flip", "erasing", "policy", *more])


def test_without_augmentation_files_are_resized_as_stated(pictures: Files) -> None:
    stated = Resizing(crop_share=0.5, interpolation="bicubic")
    loader = Loader(AS_IS, 37, size=16, resizing=stated)
    (batch,) = loader.training(pictures, 37, 3, 1)
    plain, wanted = (
        torch.cat([x for x, _ in made.evaluation(pictures, 10)])[epoch_order(3, 1, 37)]
        for made in (Loader(AS_IS, 37, size=16), loader)
    )
    assert torch.equal(batch.x, wanted)
    assert not torch.equal(batch.x, plain)


def test_mixed_images_have_mixed_targets() -> None:
    """Each image is its number, so what it became tells its shares, and they have to be its targets'."""
    images = Images(
        torch.arange(16, dtype=torch.uint8)[:, None, None, None].expand(16, 1, 8, 8).mul(16), torch.arange(16)
    )
    for how in (Augmentation(mixup=1.0), Augmentation(cutmix=1.0), Augmentation(mixup=1.0, cutmix=1.0)):
        for epoch in range(4):
            (batch,) = Loader(AS_IS, 16, augmentation=how).training(images, 16, 0, epoch)
            assert batch.targets is not None
            torch.testing.assert_close(batch.targets.sum(1), torch.ones(16))
            torch.testing.assert_close(batch.x.mean((1, 2, 3)), batch.targets @ torch.arange(16.0) * 16)
            assert torch.equal(batch.labels, batch.targets.argmax(1))


def test_smoothed_labels() -> None:
    (batch,) = Loader(AS_IS, 10, augmentation=Augmentation(label_smoothing=0.1)).training(numbered(10), 10, 0, 0)
    assert batch.targets is not None
    assert batch.targets.amax(1).allclose(torch.tensor(0.91))
    assert batch.targets.amin(1).allclose(torch.tensor(0.01))
