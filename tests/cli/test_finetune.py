"""`resnetlab train --from`: what it says is kept and new, and one line for bad input."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnetlab.cli.main import main
from resnetlab.errors import UserError
from resnetlab.training.recipes import recipe

Captured = pytest.CaptureFixture[str]
SHORT = ["--image-size", "16", "--iterations", "2", "--batch-size", "8", "--threads", "1", "--workers", "0"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two data sets: three classes, and two others."""
    root = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for name in ("pets/cat", "pets/cow", "pets/dog", "insects/ant", "insects/bee"):
        (root / name).mkdir(parents=True)
        for i in range(12):
            Image.fromarray(random.integers(0, 256, (20, 20, 3), np.uint8)).save(root / name / f"{i}.png")
    return root


def test_from_scratch_and_then_from_that(photos: Path, tmp_path: Path, capsys: Captured) -> None:
    runs = ["--runs", str(tmp_path), "--json"]
    assert main(["train", "finetune", "--data", str(photos / "pets"), "--net", "cifar_resnet8", *SHORT, *runs]) == 0
    said = capsys.readouterr()
    assert "no --from: training from scratch needs many more images and epochs" in said.err
    source = json.loads(said.out)["run"]
    again = ["train", "finetune", "--data", str(photos / "insects"), "--from", source, *SHORT, *runs]
    assert main([*again, "--dry-run"]) == 0
    note = f"tensors of cifar_resnet8 from {source}; fc is new: 3 -> 2 classes (ant, bee)"
    found = json.loads(capsys.readouterr().out)
    assert found["start"].endswith(note)
    assert (found["recipe"]["start"], found["image"], found["validation_images"]) == (source, [3, 16, 16], 2)
    assert main(again) == 0
    said = capsys.readouterr()
    assert note in " ".join(said.err.split())  # of a log, lines are wrapped
    assert "no --from" not in said.err
    assert json.loads((Path(json.loads(said.out)["run"]) / "run.json").read_text())["classes"] == ["ant", "bee"]
    assert main([*again[:-1], "--dry-run", "--freeze", "4", "--validation-share", "0.2", "--stop-after", "3"]) == 0
    shown = capsys.readouterr().out
    assert "fewer after 3 evaluations without a lower validation error" in shown
    assert "gradients 0.0 MiB" in shown


def test_a_dry_run_of_one_epoch(capsys: Captured) -> None:
    asked = ["train", "digits", "--net", "cifar_resnet8", "--epochs", "1", "--validation-images", "9", "--dry-run"]
    assert main([*asked, "--stop-after", "1"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "in total: 1 epoch; fewer after 1 evaluation without a lower" in shown


def test_a_class_that_is_only_held_out_is_told(tmp_path: Path, capsys: Captured) -> None:
    for name, count in (("cat", 5), ("cow", 1), ("dog", 5)):
        for side in ("train", "val"):
            (tmp_path / side / name).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (20, 20), (i, 0, 0)).save(tmp_path / side / name / f"{i}.png")
    options = ["--data", str(tmp_path), "--net", "cifar_resnet8", *SHORT, "--dry-run", "--validation-share"]
    said = []
    for share in ("0.05", "0.8"):
        assert main(["train", "finetune", *options, share]) == 0
        said.append(" ".join(capsys.readouterr().err.split()))
    assert "held out" not in said[0]
    assert "2 of 3 classes have no training images left, since all are held out for validation: 'cow', " in said[1]
    assert "'dog'; add images, or hold out fewer (--validation-share" in said[1]


def test_too_few_images_to_hold_one_out(tmp_path: Path, capsys: Captured) -> None:
    for side, name in itertools.product(("train", "val"), ("cat", "dog")):
        (tmp_path / side / name).mkdir(parents=True)
        Image.new("RGB", (20, 20)).save(tmp_path / side / name / "0.png")
    options = ["--data", str(tmp_path), "--net", "cifar_resnet8", *SHORT, "--dry-run"]
    assert main(["train", "finetune", *options]) == 2
    assert "2 training images, too few to hold one out; add images, or give --validation-share 0" in " ".join(
        capsys.readouterr().err.split()
    )


def test_an_early_end_is_said(tmp_path: Path, capsys: Captured) -> None:
    options = ["--net", "cifar_resnet8", "--threads", "1", "--runs", str(tmp_path)]
    assert main(["train", "digits", "--epochs", "1", *options, "--json"]) == 0
    source = json.loads(capsys.readouterr().out)["run"]
    frozen = ["--from", source, "--freeze", "4", "--lr", "0", "--warmup", "none"]
    early = ["--stop-after", "1", "--validation-share", "0.1", "--epochs", "5"]
    assert main(["train", "digits", *options, *frozen, *early]) == 0
    assert "stopped early: the validation error has not fallen below" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--data", "folder:nowhere"], "nowhere: no such folder"),
        (["--from", "nowhere"], "nowhere: no such run folder or weight file to start from"),
        (["--from", ""], "--from is empty; give a run or a weight file, or leave it out"),
        (["--dry-run", "--find-lr"], "give either --dry-run or --find-lr, not both"),
        (["--freeze", "2"], "freeze=2 needs weights to start from"),
        (["--stop-after", "2", "--validation-images", "0"], "stop_after=2 needs held-out images"),
    ],
)
def test_bad_input_is_one_line(
    photos: Path, options: list[str], words: str, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = [] if "--data" in options else ["--data", str(photos / "pets")]
    assert main(["train", "finetune", *data, *options]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert len(captured.err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_file_may_say_where_to_start(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('recipe = "finetune"\nstart = "runs/pets"\nfreeze = 2\n')
    found = recipe(str(path), start="elsewhere")
    assert (found.start, found.net, found.freeze) == ("elsewhere", "", 2)
    path.write_text('recipe = "finetune"\nfreeze = 2\n')
    with pytest.raises(UserError, match="mine.toml: freeze=2 needs weights to start from"):
        recipe(str(path))
