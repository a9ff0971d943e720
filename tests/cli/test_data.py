"""`resnetlab data stats`: the figures that everyone knows, and one line for what can't be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from resnetlab.cli.main import main


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["data", "stats", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_stats_of_the_digits(capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "digits")
    assert (found["images"], found["of"]) == (1437, 1437)
    assert found["mean"] == pytest.approx([0.30526], abs=1e-5)
    assert found["std"] == pytest.approx([0.37616], abs=1e-5)
    assert main(["data", "stats", "digits"]) == 0
    assert capsys.readouterr().out == "mean 0.3053\nstd  0.3762\nof all 1,437 training images\n"


@pytest.mark.parametrize("command", ["stats", "audit"])
def test_classes_are_said_first(capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str) -> None:
    """Whoever sees what was taken for classes sees a wrong layout of folders."""
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(4):
            Image.new("RGB", (20, 20), (60 * i, 9, 9)).save(tmp_path / name / f"{i}.png")
    main(["data", command, str(tmp_path), "--workers", "1"])
    assert capsys.readouterr().err.startswith("2 classes: cat, dog; 8 images, 2 tested")


def test_a_channel_of_one_level_has_no_deviation(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """What a training divides by in its place, 1, is no statistic of the images."""
    for part, name, red in (("train", "a", 0), ("train", "b", 255), ("val", "a", 9), ("val", "b", 9)):
        (tmp_path / part / name).mkdir(parents=True)
        Image.new("RGB", (20, 20), (red, 10, 255)).save(tmp_path / part / name / "1.png")
    found = answer(capsys, str(tmp_path), "--image-size", "32")
    assert found["mean"] == pytest.approx([0.5, 10 / 255, 1])
    assert found["std"] == [0.5, 0, 0]


@pytest.mark.slow
def test_stats_of_cifar_are_the_published_ones(capsys: pytest.CaptureFixture[str], cifar10: Path) -> None:
    found = answer(capsys, f"cifar10:{cifar10}")
    assert [round(v, 4) for v in found["mean"]] == [0.4914, 0.4822, 0.4465]
    assert [round(v, 4) for v in found["std"]] == [0.2470, 0.2435, 0.2616]


def test_stats_of_a_folder(capsys: pytest.CaptureFixture[str], real_images: Callable[[str], Path]) -> None:
    folder = str(real_images("hymenoptera"))
    found = answer(capsys, folder, "--image-size", "32", "--workers", "2")
    assert (found["images"], found["of"]) == (245, 245)
    assert all(0.3 < v < 0.6 for v in found["mean"])  # photographs
    assert answer(capsys, folder, "--image-size", "32") == found  # kept


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "data 'nowhere': no data set and no folder here has this name"),
        (["folder:nowhere"], "nowhere: no such folder"),
        (["digits", "--image-size", "1"], "image_size=1 must be 8 to 4096 pixels"),
        (["digits", "--image-size", "2.5"], "'2.5' must be a whole number"),
        (["digits", "--workers", "-1"], "workers=-1 must be 1 to"),
    ],
)
def test_bad_input_is_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    assert main(["data", "stats", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert words in error
