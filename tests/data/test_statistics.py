"""The mean and deviation of training images: measured once, kept where there is a place."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from made_files import AS_IS, files_at

from resnetlab.data import statistics
from resnetlab.data.files import Files
from resnetlab.data.loading import Loader
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


def test_no_image_can_be_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "a.jpg").write_text("no picture")
    with pytest.raises(UserError, match=r"a\.jpg: neither this nor any other training image can be read"):
        measure(files_at(tmp_path, ["a.jpg"]), 8)
