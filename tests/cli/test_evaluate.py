"""`resnetlab eval`: what it prints, the report it writes, and one line for what can't be."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from resnetlab import build
from resnetlab.cli.main import main
from resnetlab.data.normalisation import imagenet
from resnetlab.errors import UserError
from resnetlab.weights.metadata import ModelMetadata, weights_bytes

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures in two classes, and networks for them and for the digits."""
    root, random = tmp_path_factory.mktemp("place"), np.random.default_rng(0)
    for side in ("train", "val"):
        for label in "ab":
            (root / "pictures" / side / label).mkdir(parents=True)
            for i in range(4):
                noise = random.integers(0, 256, (40, 30 + i, 3), dtype=np.uint8)
                Image.fromarray(noise).save(root / "pictures" / side / label / f"{i}.png")
    for name, fields in (("pictures", {"num_classes": 2}), ("digits", {"in_channels": 1, "input_size": 8})):
        net = build("cifar_resnet8", seed=0, **fields)  # type: ignore[arg-type]
        (root / f"{name}.safetensors").write_bytes(weights_bytes(net, net.spec))
    return root


def evaluated(capsys: Captured, *arguments: str) -> tuple[str, str]:
    assert main(["eval", *arguments, "--device", "cpu"]) == 0
    shown = capsys.readouterr()
    return shown.out, shown.err


def test_text_and_json_agree(place: Path, capsys: Captured) -> None:
    ask = (str(place / "digits.safetensors"), "--data", "digits")
    text, told = evaluated(capsys, *ask)
    said = json.loads(evaluated(capsys, *ask, "--json")[0])
    first, second = text.splitlines()
    top1, top5, right = said["top1"], said["top5"], said["correct"]
    assert first == f"top-1 {top1:.2f} %, top-5 {top5:.2f} %, {right} of 360 images right"
    ends = (*said["top1_interval"], *said["top5_interval"])
    assert second == "95 % intervals: top-1 {:.2f} to {:.2f} %, top-5 {:.2f} to {:.2f} %".format(*ends)
    assert "parameter names: resnetlab; normalisation: measured on digits's training images" in told
    assert said["sources"][0]["normalisation"].startswith("measured on digits")
    assert (said["images"], said["views"], said["flip"]) == (360, "1-crop", False)


def test_top_5_is_not_shown_where_five_are_all_classes(place: Path, capsys: Captured) -> None:
    ask = (str(place / "pictures.safetensors"), "--data", str(place / "pictures"))
    first, second = evaluated(capsys, *ask)[0].splitlines()
    said = json.loads(evaluated(capsys, *ask, "--json")[0])
    assert first == f"top-1 {said['top1']:.2f} %, {said['correct']} of {said['images']} images right"
    assert second == "95 % interval: {:.2f} to {:.2f} %".format(*said["top1_interval"])
    assert said["top5"] == 100


@pytest.mark.parametrize(
    ("bias", "words"),
    [
        (0.0, "the scores of 360 of 360 images are the same for all classes, which counts as right"),
        (3e38, "the scores of 360 of 360 images are not finite, which counts as wrong"),
    ],
)
def test_scores_that_are_no_answer_are_told(bias: float, words: str, tmp_path: Path, capsys: Captured) -> None:
    net = build("cifar_resnet8", seed=0, in_channels=1, input_size=8)
    with torch.no_grad():
        net.get_parameter("fc.weight").fill_(bias)
        net.get_parameter("fc.bias").fill_(bias)
    (tmp_path / "net.safetensors").write_bytes(weights_bytes(net, net.spec))
    ask = (str(tmp_path / "net.safetensors"), "--data", "digits")
    assert words in evaluated(capsys, *ask)[1]


def test_answers_that_are_right_by_a_tie_are_told(tmp_path: Path, capsys: Captured) -> None:
    net = build("cifar_resnet8", seed=0, in_channels=1, input_size=8)
    with torch.no_grad():
        net.get_parameter("fc.weight").zero_()
        net.get_parameter("fc.bias").copy_(torch.tensor([1.0, 1.0] + [0.0] * 8))
    (tmp_path / "net.safetensors").write_bytes(weights_bytes(net, net.spec))
    text, told = evaluated(capsys, str(tmp_path / "net.safetensors"), "--data", "digits", "--json")
    right = json.loads(text)["correct"]
    assert 0 < right < 360
    assert f"the scores of {right} of 360 images are equally high for the right class and another" in told


def test_scores_of_a_working_network_need_no_remark(place: Path, capsys: Captured) -> None:
    assert "the scores of" not in evaluated(capsys, str(place / "digits.safetensors"), "--data", "digits")[1]


def test_what_a_file_does_not_tell_is_said(place: Path, capsys: Captured, tmp_path: Path) -> None:
    """Numbered folders, whose order as text and by number differ, and a file that names no classes."""
    for label in range(12):
        (tmp_path / "data" / "val" / f"{label}").mkdir(parents=True)
        (tmp_path / "data" / "train" / f"{label}").mkdir(parents=True)
        for side in ("train", "val"):
            content = (place / f"pictures/{side}/a/0.png").read_bytes()
            (tmp_path / "data" / side / f"{label}" / "0.png").write_bytes(content)
    torch.save(build("resnet18", num_classes=12, seed=0).state_dict(), tmp_path / "x.pth")
    ask = (str(tmp_path / "x.pth"), "--data", str(tmp_path / "data"), "--workers", "0")
    text, told = evaluated(capsys, *ask, "--json")
    assert "224 pixels, assumed, since the file does not state it (--image-size sets another); parameter names" in told
    assert "x.pth: classes by order, since the file has no class names; the data's order is sorted as text" in told
    assert "number 2 is '10'; timm sorts naturally, so that it is '2'" in told
    source = json.loads(text)["sources"][0]
    assert (source["image_size"], source["image_size_assumed"]) == (224, True)
    assert source["classes"] in told
    text, told = evaluated(capsys, *ask, "--image-size", "32", "--class-order", "natural", "--json")
    assert "; 32 pixels; parameter names: torchvision" in told
    assert "sorted naturally, as in timm: number 2 is '2', not '10'" in told
    source = json.loads(text)["sources"][0]
    assert (source["image_size"], source["image_size_assumed"]) == (32, False)


def test_an_ensemble_names_its_members(place: Path, capsys: Captured) -> None:
    network = str(place / "pictures.safetensors")
    ask = (
        network,
        network,
        "--data",
        str(place / "pictures"),
        "--workers",
        "0",
        "--net",
        "cifar_resnet8(num_classes=2)",
    )
    text, _ = evaluated(capsys, *ask, "--views", "10-crop")
    lines = text.splitlines()
    assert lines[0] == lines[1]
    assert lines[0].startswith(f"{network}: top-1 ")
    assert lines[2] == "ensemble of 2:"
    assert lines[3].split(",")[0] == lines[0].removeprefix(f"{network}: ")


def test_a_report_of_the_whole_images(place: Path, capsys: Captured, tmp_path: Path) -> None:
    ask = (str(place / "pictures.safetensors"), "--data", str(place / "pictures"), "--views", "multi-scale", "--flip")
    said = json.loads(evaluated(capsys, *ask, "--report", str(tmp_path / "report"), "--json")[0])
    assert said["report"] == str(tmp_path / "report")
    written = json.loads((tmp_path / "report" / "evaluation.json").read_text())
    assert written["top1"] == said["top1"]
    page = (tmp_path / "report" / "evaluation.html").read_text()
    assert "short side at 5 scales" in page
    assert ", and its mirror image" in page
    assert main(["eval", *ask, "--report", str(tmp_path / "report")]) == 2
    assert "evaluation.html: already exists" in capsys.readouterr().err


def test_what_was_measured_is_said_although_the_report_cannot_be_written(
    place: Path, capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise UserError("report: can't write (No space left on device)")

    monkeypatch.setattr("resnetlab.api.evaluate.write_report", full)
    ask = (str(place / "pictures.safetensors"), "--data", str(place / "pictures"))
    assert main(["eval", *ask, "--report", str(tmp_path / "report")]) == 2
    said = capsys.readouterr().err
    assert re.search(r"top-1 [\d.]+ %, \d+ of \d+ images right", said)
    assert "No space left" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "digits"], "no network given: give run folders, weight files, or pretrained:NAME"),
        (["nowhere", "--data", "digits"], "nowhere: no such run folder or weight file"),
        (["digits.safetensors", "nowhere", "--data", "digits"], "nowhere: no such run folder or weight file"),
        (["digits.safetensors", "--data", "digitz"], "data 'digitz': no data set and no folder here has this name"),
        (["digits.safetensors", "--data", "pictures"], "digits.safetensors: a network for 1 channel and 10 classes"),
        (["digits.safetensors", "--data", "digits", "--views", "5-crop"], "views='5-crop' is not known: choose one of"),
        (["digits.safetensors", "--data", "digits", "--views", "10-crop"], "are in memory, all 8x8 pixels"),
        (["pictures.safetensors", "--data", "pictures", "--views", "10-crop", "--flip"], "leave --flip out"),
        (["digits.safetensors", "--data", "digits", "--report", "digits.safetensors"], "can't write (File exists)"),
        (["digits.safetensors", "--data", "digits", "--report", "/dev/null/x"], "can't write (Not a directory)"),
        (["digits.safetensors", "--data", "digits", "--net", "a", "--net", "b"], "1 network but 2 names"),
    ],
)
def test_what_cannot_be_is_one_line(
    place: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(place)
    assert main(["eval", *arguments, "--device", "cpu"]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("views", ["1-crop", "10-crop", "multi-scale"])
def test_an_unreadable_image_is_named(place: Path, capsys: Captured, tmp_path: Path, views: str) -> None:
    for side in ("train", "val"):
        for label in "ab":
            (tmp_path / side / label).mkdir(parents=True)
            (tmp_path / side / label / "0.png").write_bytes((place / "pictures/train/a/0.png").read_bytes())
    (tmp_path / "val/b/1.png").write_bytes(b"no picture")
    ask = ["eval", str(place / "pictures.safetensors"), "--data", str(tmp_path), "--views", views, "--workers", "0"]
    assert main([*ask, "--report", str(tmp_path / "report")]) == 2
    assert f"{tmp_path}/val/b/1.png: can't be read (not an image" in capsys.readouterr().err
    assert list((tmp_path / "report").iterdir()) == []


@pytest.fixture
def others(place: Path, tmp_path: Path) -> Path:
    """A network of "a" and "b", and a folder of "bee" and "ant", without a split and with a file that can't be read."""
    net = build("cifar_resnet8", num_classes=2, seed=0)
    card = ModelMetadata(net.spec, ("a", "b"), imagenet(), {"seed": 0})
    (tmp_path / "named.safetensors").write_bytes(weights_bytes(net, card))
    for label, name in (("a", "bee"), ("b", "ant")):
        shutil.copytree(place / "pictures/train" / label, tmp_path / "data" / name)
    (tmp_path / "data/ant/0.png").write_bytes(b"")
    return tmp_path


def test_classes_and_unreadable_images_are_told_and_counted(others: Path, capsys: Captured) -> None:
    ask = (str(others / "named.safetensors"), "--data", str(others / "data"), "--workers", "0")
    assert main(["eval", *ask]) == 2
    assert "trained on the classes a, b; data has ant, bee, which are not among them" in capsys.readouterr().err
    ask += ("--classes", "ant=b,bee=a")
    assert main(["eval", *ask]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith(
        "2 classes: ant, bee; 8 images, all tested (neither train nor resnetlab-split.json exists"
    )
    assert said[1].endswith("classes in a different order than in training; under other names: ant is b, bee is a")
    assert "data/ant/0.png: can't be read" in said[2]
    text, told = evaluated(capsys, *ask, "--unreadable", "skip")
    assert "of 7 images right" in text
    assert f"left out 1 of 8 images, since it can't be read: {others}/data/ant/0.png" in told
    ask += ("--unreadable", "skip", "--json", "--report", str(others / "report"))
    found = json.loads(evaluated(capsys, *ask)[0])
    assert (found["images"], found["unreadable"]) == (7, 1)
    assert found["sources"][0]["taken_for"] == {"ant": "b", "bee": "a"}
    assert found["sources"][0]["image_size"] == 32
    understood = found["understood"]
    assert (understood["images"], understood["tested"], understood["class_names"]) == (8, 8, ["ant", "bee"])
    written = json.loads((others / "report/evaluation.json").read_text())
    assert written["left_out"] == [f"{others}/data/ant/0.png"]
    assert len((others / "report/predictions.csv").read_text().splitlines()) == 8
    assert "under other names: ant is b, bee is a" in (others / "report/evaluation.html").read_text()
    assert {path.name for path in (others / "data").iterdir()} == {"ant", "bee"}


@pytest.mark.parametrize("views", ["1-crop", "10-crop"])
def test_unreadable_images_in_processes_of_their_own(others: Path, capsys: Captured, views: str) -> None:
    ask = (str(others / "named.safetensors"), "--data", str(others / "data"), "--classes", "ant=b,bee=a")
    how = ("--unreadable", "skip", "--views", views, "--json")
    found = [json.loads(evaluated(capsys, *ask, *how, "--workers", n)[0]) for n in ("0", "1")]
    assert found[0] == found[1]
    assert found[0]["unreadable"] == 1


def test_a_run_on_a_disk_that_is_read_only_is_tested_on_what_it_was_not_trained_on(
    place: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(place / "pictures/train", tmp_path / "own")
    monkeypatch.setattr("resnetlab.data.folder.write_split", lambda *_: None)
    how = ["--net", "cifar_resnet8", "--image-size", "16", "--epochs", "1", "--batch-size", "4", "--workers", "0"]
    ask = ["train", "finetune", "--data", str(tmp_path / "own"), *how, "--validation-share", "0", "--threads", "1"]
    assert main([*ask, "--runs", str(tmp_path / "runs"), "--json"]) == 0
    said = capsys.readouterr()
    assert (
        "2 classes: a, b; 8 images, 2 tested (drawn, a fifth of each class); 16 pixels; parameter names: " in said.err
    )
    run = json.loads(said.out)["run"]
    for source in (run, f"{run}/last/weights.safetensors"):
        found = json.loads(evaluated(capsys, source, "--data", str(tmp_path / "own"), "--workers", "0", "--json")[0])
        assert (found["images"], found["understood"]["part"]) == (2, "drawn as in training")
    assert 100 - found["top1"] == pytest.approx(json.loads(said.out)["test_error"])
