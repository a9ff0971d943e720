"""The mean and deviation of training images: measured once, kept where there is a place."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from made_files import AS_IS, files_at

from resnetlab.data import statistics
from resnetlab.data.files import Files
from resnetlab.data.loading import Loader
from resnetlab.data.normalisation import Normalisation, parse_normalisation
from resnetlab.data.source import FolderFiles
from resnetlab.data.statistics import kept_statistics, measure
from resnetlab.errors import UserError


def test_statistics_are_measured_once(pictures: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(statistics, "_measured", {})
    counts: list[tuple[int, int]] = []
    found = measure(pictures, 16, progress=lambda *count: counts.append(count))
    assert counts[-1] == (37, 37)
    pixels = torch.cat([(x * 1.0) for x, _ in Loader(AS_IS, 37, size=16).evaluation(pictures, 5)]).round() / 255
    torch.testing.assert_close(found.pixel_mean().mean, pixels.mean(0))
    torch.testing.assert_close(found.channel_mean_std().mean.flatten(), pixels.mean((0, 2, 3)))
    torch.testing.assert_close(found.channel_mean_std().std.flatten(), pixels.std((0, 2, 3), correction=0))
    path = kept_statistics(pictures, 16)
    assert tmp_path in path.parents
    others = [kept_statistics(pictures, 8), kept_statistics(pictures[torch.arange(36)], 16)]
    assert len({path, *others}) == 3, "other sizes and other files are measured for themselves"
    monkeypatch.setattr(statistics, "_measured", {})
    monkeypatch.setattr(FolderFiles, "read", lambda *_: pytest.fail("measured again"))
    again = measure(pictures, 16)
    assert torch.equal(again.sums, found.sums)
    assert torch.equal(again.levels, found.levels)
    whole = path.read_bytes()
    for damaged in (
        b"",
        b"{}",
        whole[:-9],
        *(whole.replace(b'"images": 37', b'"images": ' + n) for n in (b"38", b"1e999")),
    ):
        path.write_bytes(damaged)
        assert statistics.read_statistics(path) is None


def test_of_many_files_a_sample_is_measured_always_the_same(pictures: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    assert statistics.sample(pictures) is pictures
    monkeypatch.setattr(statistics, "MOST_MEASURED", 9)
    rows = statistics.sample(pictures).rows.tolist()
    assert rows == sorted(set(rows)) == statistics.sample(pictures).rows.tolist()
    assert len(rows) == 9
    assert rows != list(range(9)), "drawn, not the first ones, which may be of one class"


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("imagenet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("cifar10", (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),  # as `data stats` measures them
        ("cifar100", (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    ],
)
def test_a_named_normalisation_has_the_published_values(
    name: str, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    found = parse_normalisation(name, 3)
    assert found.mean.flatten().tolist() == pytest.approx(mean)
    assert found.std.flatten().tolist() == pytest.approx(std)


def test_a_normalisation_fits_images_of_its_channels_and_a_mean_image_its_size() -> None:
    of_channels, of_pixels = parse_normalisation("cifar10", 3), Normalisation(torch.zeros(1, 8, 8), torch.ones(1, 1, 1))
    assert [of_channels.fits(shape) for shape in ((3, 8, 8), (3, 32, 9), (1, 8, 8))] == [True, True, False]
    assert [of_pixels.fits(shape) for shape in ((1, 8, 8), (3, 8, 8), (1, 9, 9))] == [True, True, False]


def test_grey_images_have_the_average_of_imagenets_colours() -> None:
    found = parse_normalisation("imagenet", 1)
    assert (found.mean.shape, found.mean.item()) == ((1, 1, 1), pytest.approx(0.449, abs=1e-6))
    assert (found.std.shape, found.std.item()) == ((1, 1, 1), pytest.approx(0.226, abs=1e-6))


def test_a_channel_of_one_level_is_not_divided_by_zero() -> None:
    pixels = torch.zeros(4, 2, 3, 3, dtype=torch.uint8)
    pixels[:2, 1] = 255
    found = statistics.statistics_of([pixels]).channel_mean_std()
    assert found.mean.flatten().tolist() == [0, 0.5]
    assert found.std.flatten().tolist() == [1, 0.5]
    assert found(pixels).unique().tolist() == [-1, 0, 1]


def test_statistics_without_a_place_to_keep_them(
    pictures: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(statistics, "_measured", {})
    assert measure(pictures, 8).images == 37


def test_files_that_are_repaired_are_measured_again(
    tmp_path: Path, pictures: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(statistics, "_measured", {})
    whole = Path(pictures.place(0)).read_bytes()
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(whole)
    (tmp_path / "b.jpg").write_bytes(bytes(len(whole)))  # damaged, of the same size
    opened = files_at(tmp_path, ["a.jpg", "b.jpg"])
    assert measure(opened, 8).images == 1
    with monkeypatch.context() as within:
        within.setattr(FolderFiles, "read", lambda *_: pytest.fail("measured again"))
        assert measure(opened, 8).images == 1  # a training asks twice
    (tmp_path / "b.jpg").write_bytes(whole)
    assert measure(files_at(tmp_path, ["a.jpg", "b.jpg"]), 8).images == 2


def test_no_image_can_be_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "a.jpg").write_text("no picture")
    with pytest.raises(UserError, match=r"a\.jpg: neither this nor any other training image can be read"):
        measure(files_at(tmp_path, ["a.jpg"]), 8)
