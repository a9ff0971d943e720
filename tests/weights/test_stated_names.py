"""Names of classes that files and folders of other projects state, and what transformers states of preprocessing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import resnetlab
from resnetlab.cli.main import main
from resnetlab.data.resizing import Resizing
from resnetlab.errors import UserError
from resnetlab.use.classifier import Classifier
from resnetlab.weights import hub_files
from resnetlab.weights.load import load_described

Captured = pytest.CaptureFixture[str]
State = dict[str, torch.Tensor]


def weights(outputs: int) -> State:
    return resnetlab.build("resnet18", seed=0, num_classes=outputs).state_dict()


@pytest.fixture(scope="module")
def state() -> State:
    return weights(3)


@pytest.mark.parametrize(
    ("beside", "names"),
    [
        ({"class_to_idx": {"dog": 0, "cat": 2, "ant": 1}}, ("dog", "ant", "cat")),
        ({"class_to_idx": {"10": 0, "2": 1, "3": 2}}, ("10", "2", "3")),
        ({"idx_to_class": {0: "a", 1: "b", 2: "c"}}, ("a", "b", "c")),
        ({"id2label": {"2": "c", "0": "a", "1": "b"}}, ("a", "b", "c")),
        ({"classes": ["z", "y", "x"]}, ("z", "y", "x")),
        ({"hyper_parameters": {"lr": 0.1, "class_names": ("p", "q", "r")}}, ("p", "q", "r")),
        ({"classes": ["z", "y"], "class_names": ["a", "b", "c"]}, ("a", "b", "c")),
        ({"classes": ["z", "y"]}, None),  # of something else
        ({"classes": [1, 2, 3]}, None),
        ({"classes": 3}, None),
        ({"class_to_idx": {"a": 0, "b": 0, "c": 2}}, None),
        ({"class_to_idx": {"a": 1, "b": 2, "c": 3}}, None),
        ({"id2label": {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}}, None),  # transformers' own
    ],
)
def test_names_beside_the_network(
    state: State, tmp_path: Path, beside: dict[str, Any], names: tuple[str, ...] | None
) -> None:
    torch.save({"state_dict": state, **beside}, tmp_path / "x.pth")
    assert load_described(tmp_path / "x.pth").classes == names
    assert load_described(tmp_path / "x.pth", normalise="imagenet").classes == names


@pytest.mark.parametrize(
    ("beside", "words"),
    [
        ({"classes": np.array(["a", "b", "c"])}, r"\(classes\) are left out: they are not a list of texts \(NumPy's"),
        ({"class_to_idx": {n: np.int64(i) for i, n in enumerate("abc")}}, "number 0 has none; .* plain whole number"),
        ({"idx_to_class": {0: "a", 1: "b", 3: "c"}}, r"\(idx_to_class\) are left out: number 2 has none"),
        ({"id2label": {"0": "a", "9" * 5000: "b"}}, "number 1 has none"),
        ({"meta": {"classes": [{"name": "a"}]}}, "not all of them are plain texts"),
        ({"class_names": ["a", "b"]}, "2 names, but 3 outputs"),
        ({"classes": torch.arange(3)}, "not a list of texts"),
        ({"classes": [], "class_names": 3, "labels": torch.arange(3)}, None),
    ],
)
def test_names_that_cannot_be_used_are_said(
    state: State, tmp_path: Path, caplog: pytest.LogCaptureFixture, beside: dict[str, Any], words: str | None
) -> None:
    """They were left out without a word, and classes had numbers, or were matched by order."""
    torch.save({"state_dict": state, **beside}, tmp_path / "x.pth")
    assert load_described(tmp_path / "x.pth").classes is None
    assert re.search(f"x.pth: the names of classes .*{words}" if words else "^$", caplog.text)


def test_classes_are_matched_by_these_names(state: State, tmp_path: Path, capsys: Captured) -> None:
    """Always "dog": by order, which is not the alphabet's here, the answers would count for cats."""
    two = {key: value[:2].clone() if key.startswith("fc") else value for key, value in state.items()}
    two["fc.weight"].zero_()
    two["fc.bias"].copy_(torch.tensor([5.0, -5.0]))
    torch.save({"state_dict": two, "class_to_idx": {"dog": 0, "cat": 1}}, tmp_path / "x.pth")
    for name, count in (("dog", 3), ("cat", 1)):
        (tmp_path / "pets/val" / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (40, 40), (50 * i, 90, 9)).save(tmp_path / "pets/val" / name / f"{i}.png")
    data = ["--data", str(tmp_path / "pets"), "--workers", "0", "--image-size", "32", "--json"]
    assert main(["eval", str(tmp_path / "x.pth"), *data]) == 0
    assert json.loads(capsys.readouterr().out)["correct"] == 3
    assert main(["convert", str(tmp_path / "x.pth"), str(tmp_path / "y.safetensors"), "--to", "resnetlab"]) == 0
    assert load_described(tmp_path / "y.safetensors").classes == ("dog", "cat")


def in_folder(state: State, folder: Path, **files: dict[str, Any]) -> Path:
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


CONVNEXT = {
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.1, 0.2, 0.3],
    "size": {"shortest_edge": 192},
    "crop_pct": 0.75,
    "resample": 3,
}


def test_transformers_states_names_and_preprocessing_in_two_files(state: State, tmp_path: Path) -> None:
    labels = {"id2label": {"0": "ant", "1": "bee", "2": "cat"}, "model_type": "resnet"}
    loaded = load_described(in_folder(state, tmp_path, config=labels, preprocessor_config=CONVNEXT))
    assert loaded.classes == ("ant", "bee", "cat")
    assert loaded.metadata is not None
    assert loaded.metadata.normalisation.mean.flatten().tolist() == pytest.approx([0.5, 0.4, 0.3])
    assert (loaded.net.spec.input_size, loaded.resizing) == (192, Resizing(0.75, "bicubic"))


@pytest.mark.parametrize(
    ("told", "side", "share"),
    [
        ({}, 192, 0.75),
        ({"size": 160, "crop_pct": None}, 160, 0.875),
        ({"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}, 224, 224 / 256),
        ({"size": {"height": 96, "width": 96}}, 96, 1),
        ({"size": {"shortest_edge": 384}}, 384, 1),
        ({"size": {"height": 96, "width": 64}}, None, 1),
        (
            {"size": {"shortest_edge": 256}, "crop_size": 224, "do_center_crop": False, "image_processor_type": "x"},
            256,
            1,
        ),
    ],
)
def test_sizes_of_image_processors(tmp_path: Path, told: dict[str, Any], side: int | None, share: float) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(CONVNEXT | told))
    found = hub_files.preprocessing(tmp_path)
    assert found is not None
    assert (found.size, found.resizing.crop_share) == (side, pytest.approx(share))


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"size": {"height": 96, "width": 96}}, "squeezes images into squares (here the centre is cropped)"),
        ({"size": {"shortest_edge": 384}}, "squeezes images into squares (here the centre is cropped)"),
        (
            {"size": {"height": 256, "width": 256}, "crop_size": 224},
            "squeezes images into squares (here the centre is cropped)",
        ),
        (
            {"size": 256, "crop_size": {"height": 224, "width": 200}},
            "takes images of 200 x 224 pixels (here squares)",
        ),
        ({"size": {"height": 96, "width": 64}}, "takes images of 64 x 96 pixels (here squares)"),
        ({"crop_pct": 0.1}, "resizes images to a crop share of 0.1, crop mode center (here 0.875, center)"),
        ({"resample": 0}, "resizes images with nearest interpolation (here bilinear)"),
        ({"do_resize": False}, "does not resize images (here they are resized)"),
    ],
)
def test_what_an_image_processor_does_otherwise_is_said(
    state: State, tmp_path: Path, caplog: pytest.LogCaptureFixture, told: dict[str, Any], words: str
) -> None:
    load_described(in_folder(state, tmp_path, preprocessor_config=CONVNEXT | told))
    assert any(f"its project {words}, so the accuracy may differ" in message for message in caplog.messages)


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"do_normalize": False},
        {"rescale_factor": 1 / 127.5},
        {"do_rescale": False},
        {"do_normalize": False, "do_rescale": False},
    ],
)
def test_the_network_sees_the_pixels_of_the_image_processor(tmp_path: Path, told: dict[str, Any]) -> None:
    """(pixels · factor − mean) / std, each step unless it is switched off; ours are of pixels / 255."""
    settings = CONVNEXT | told
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    found = hub_files.preprocessing(tmp_path)
    assert found is not None
    pixels = np.array([[0.0, 0, 0], [10, 120, 250], [255, 255, 255]])
    theirs = pixels * settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else pixels
    if settings.get("do_normalize", True):
        theirs = (theirs - settings["image_mean"]) / settings["image_std"]
    np.testing.assert_allclose((pixels / 255 - found.mean) / found.std, theirs, atol=1e-9)


@pytest.mark.parametrize(
    "told",
    [
        {"size": "x"},
        {"size": {"width": 64}},
        {"size": None},
        {"image_std": [0, 1, 1]},
        {"image_mean": None},
        {"crop_pct": "x"},
    ],
)
def test_an_image_processor_that_says_nothing_of_use(tmp_path: Path, told: dict[str, Any]) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(CONVNEXT | told))
    assert hub_files.preprocessing(tmp_path) is None


def test_a_single_output_is_no_softmax(tmp_path: Path, capsys: Captured) -> None:
    """It would make every image certain, whatever the weights."""
    torch.save(weights(1), tmp_path / "one.pth")
    with pytest.raises(UserError, match="one.pth: has one output, as networks that answer yes or no by a sigmoid"):
        Classifier.open(tmp_path / "one.pth")
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "a.png")
    one = [str(tmp_path / "one.pth"), "--image-size", "32"]
    for command in (["predict", *one, str(tmp_path / "a.png")], ["export", *one, "--out", str(tmp_path / "one.onnx")]):
        assert main(command) == 2
        assert "has one output" in capsys.readouterr().err
    out = str(tmp_path / "one.npz")
    assert main(["features", one[0], str(tmp_path / "a.png"), "--image-size", "32", "--out", out]) == 0
