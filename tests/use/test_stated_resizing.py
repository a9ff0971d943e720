"""A source that states how its images are resized is evaluated, shown, exported, served and fine-tuned in that way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save

import resnetlab
from resnetlab.cli.main import main
from resnetlab.data.crops import centre_crop
from resnetlab.data.images import Data
from resnetlab.data.open import open_data
from resnetlab.data.resizing import USUAL, Resizing
from resnetlab.run_files import read_settings
from resnetlab.training.evaluate import evaluate
from resnetlab.training.loop import train
from resnetlab.training.recipes import recipe
from resnetlab.training.run import Run, make_run, open_folder
from resnetlab.use.classifier import Classifier
from resnetlab.use.decoders import Decoders
from resnetlab.use.decoding_process import Task
from resnetlab.use.export import export
from resnetlab.use.exported import read_exported
from resnetlab.use.features import network_mark
from resnetlab.use.predict import find_images, predict
from resnetlab.use.serve import Api, Limits
from resnetlab.weights.convert import convert
from resnetlab.weights.hub import save_pretrained
from resnetlab.weights.load import load_described
from resnetlab.weights.metadata import weights_bytes

Noise = Callable[..., bytes]
NET = "resnet18(stages=[(1, 8), (1, 8, 2), (1, 8, 2), (1, 8, 2)], stem_width=8, num_classes=2)"
STATED = Resizing(0.8, "bicubic")  # 32 of 40 pixels, where 37 would be usual
MEAN, STD = (0.5, 0.4, 0.3), (0.1, 0.2, 0.3)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of timm's as a folder."""
    folder = tmp_path_factory.mktemp("timm")
    told = {"input_size": [3, 32, 32], "interpolation": "bicubic", "crop_pct": 0.8, "mean": MEAN, "std": STD}
    config = {"architecture": "resnet18", "num_classes": 2, "label_names": ["a", "b"], "pretrained_cfg": told}
    (folder / "config.json").write_text(json.dumps(config))
    net = resnetlab.build(NET, seed=0)
    (folder / "model.safetensors").write_bytes(save(net.state_dict(), {"format": "pt"}))
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, noise: Noise) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(24):
        place = folder / ("val" if i < 8 else "train") / "ab"[i % 2] / f"{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(noise(i, 52 + 4 * i, 60))
    return folder


@pytest.fixture(scope="module")
def data(pictures: Path) -> Data:
    return open_data(str(pictures))


def wanted_probabilities(source: Path, contents: list[bytes], resizing: Resizing = STATED) -> torch.Tensor:
    """Computed without what prepares images for a classifier or an evaluation."""
    pixels = np.stack([centre_crop(content, (), 32, resizing).transpose(2, 0, 1) for content in contents])
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    with torch.inference_mode():
        return resnetlab.load(source)((torch.from_numpy(pixels) / 255 - mean) / std).softmax(1)


def test_an_evaluation_and_a_prediction_see_the_same(source: Path, data: Data, pictures: Path) -> None:
    test = data.test
    contents = [test.read(i) for i in range(len(test))]  # type: ignore[union-attr]
    wanted = wanted_probabilities(source, contents)
    said: list[str] = []
    found = evaluate([source], data, told=said.append)
    assert found.answers.confidence.tolist() == pytest.approx(wanted.max(1).values.tolist(), abs=1e-5)
    assert any("32 pixels, centre crop, from a short side of 40, bicubic; " in line for line in said)
    usual = wanted_probabilities(source, contents, USUAL)
    assert (usual - wanted).abs().max() > 1e-4
    classifier = Classifier.open(source)
    assert (classifier.short_side, classifier.seen, classifier.whole) == (40, 0.8, False)
    for one, row in zip(predict(classifier, find_images([str(pictures / "val")])), wanted, strict=True):
        assert dict(one.classes)["b"] == pytest.approx(float(row[1]), abs=1e-5)


def test_what_is_written_of_it_states_it_too(source: Path, tmp_path: Path, capsys: Any) -> None:
    convert(source, tmp_path / "ours.safetensors", "resnetlab")
    save_pretrained(source, tmp_path / "folder")
    for place in (tmp_path / "ours.safetensors", tmp_path / "folder"):
        assert load_described(place).resizing == STATED
        assert load_described(place, image_size=64).resizing == STATED
        assert load_described(place, normalise="imagenet").resizing == STATED
        assert Classifier.open(place).short_side == 40
    assert json.loads((tmp_path / "folder/config.json").read_text())["resizing"] == STATED.to_dict()
    assert main(["convert", str(source), str(tmp_path / "theirs.safetensors"), "--to", "timm"]) == 0
    assert "how its images are resized (centre crop, from a short side of 40, bicubic)" in capsys.readouterr().out
    assert load_described(tmp_path / "theirs.safetensors", net=NET).resizing is None


def test_a_description_without_it_is_what_it_was(tmp_path: Path) -> None:
    torch.save(resnetlab.build(NET, seed=0).state_dict(), tmp_path / "x.pth")
    convert(tmp_path / "x.pth", tmp_path / "ours.safetensors", "resnetlab", net=NET)
    metadata = load_described(tmp_path / "ours.safetensors").metadata
    assert metadata is not None
    assert set(metadata.to_dict()) == {"spec", "classes", "mean", "std", "recipe"}
    usual = Classifier.open(tmp_path / "ours.safetensors", image_size=32)
    assert (usual.short_side, usual.resizing) == (37, USUAL)
    other = Classifier.open(tmp_path / "ours.safetensors", image_size=64)
    assert network_mark(usual, None) != network_mark(other, None)


def test_a_damaged_description_is_one_line(source: Path, tmp_path: Path, capsys: Any) -> None:
    convert(source, tmp_path / "ours.safetensors", "resnetlab")
    content = (tmp_path / "ours.safetensors").read_bytes()
    (tmp_path / "ours.safetensors").write_bytes(content.replace(b'crop_share\\": 0.8', b'crop_share\\": 8.0'))
    assert main(["predict", str(tmp_path / "ours.safetensors"), "x.png"]) == 2
    said = capsys.readouterr().err
    assert "ours.safetensors: its description is damaged (resizing.crop_share is 8.0, not" in said


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_an_exported_file_states_it(source: Path, data: Data, tmp_path: Path, noise: Noise, to: str) -> None:
    pytest.importorskip(to)
    out = tmp_path / ("net.onnx" if to == "onnx" else "net.xml")
    classifier = Classifier.open(source)
    exported = export(classifier, out, to, data=data)
    assert exported.parity is not None
    assert exported.parity.pytorch_top1 == evaluate([source], data).accuracy.top1
    assert read_exported(out).resizing == STATED
    opened = Classifier.open(out)
    assert (opened.short_side, opened.resizing) == (40, STATED)
    content = noise(3, 90, 60)
    assert torch.equal(opened.prepare(content), classifier.prepare(content))


def test_int8_is_calibrated_on_images_that_are_prepared_so(
    source: Path, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from resnetlab.use import export as module

    seen: list[torch.Tensor] = []

    def kept(content: bytes, batches: Any) -> bytes:
        seen.extend(batches)
        return content

    kind = module.FORMATS["onnx"]._replace(quantised=lambda content, batches: (kept(content[0], batches),))
    monkeypatch.setitem(module.FORMATS, "onnx", kind)
    export(Classifier.open(source), tmp_path / "net.onnx", "onnx", calibrate=data)
    wanted = [centre_crop(data.train.read(i), (), 32, STATED) for i in range(len(data.train))]  # type: ignore[union-attr]
    assert np.array_equal(torch.cat(seen).numpy(), np.stack(wanted).transpose(0, 3, 1, 2))


def test_the_server_prepares_images_so(source: Path, decoders: Decoders, noise: Noise) -> None:
    classifier, content = Classifier.open(source), noise(5, 90, 60)
    api = Api(classifier, Limits(), decoders, 1)
    task = Task("image/png", len(content), 40, classifier.resizing.interpolation, 10**6, 2**15)
    pixels, crop = asyncio.run(decoders.decoded(task, bytearray(content), api._prepared))
    assert torch.equal(pixels, classifier.prepare(content))
    assert np.array_equal(pixels.numpy().transpose(1, 2, 0), centre_crop(content, (), 32, STATED))
    assert crop.width == pytest.approx(0.8)


def tuned(source: Path, pictures: Path, root: Path, **fields: Any) -> Run:
    given = {"start": str(source), "data": str(pictures), "epochs": 2, "batch_size": 8, "augment": "none"}
    return make_run(recipe("finetune", **given | {"validation_share": 0.0} | fields), root)


def finished(run: Run) -> Run:
    for _ in train(run, threads=1):
        pass
    return run


def test_a_fine_tuned_run_is_evaluated_so_and_states_it(source: Path, pictures: Path, tmp_path: Path) -> None:
    run = finished(tuned(source, pictures, tmp_path))
    assert read_settings(run.folder)["start"]["resizing"] == STATED.to_dict()
    assert load_described(run.folder).resizing == STATED
    assert Classifier.open(run.folder).short_side == 40
    result = run.result()
    assert result is not None
    assert evaluate([run.folder], run.data).accuracy.error == pytest.approx(result["test_error"])


def test_a_run_of_before_goes_on_as_it_began(source: Path, pictures: Path, tmp_path: Path) -> None:
    """Its id is the same, and its evaluation too, though its source has stated more all the time."""
    run = tuned(source, pictures, tmp_path)
    open_folder(run, 1, "cpu")
    settings = json.loads((run.folder / "run.json").read_text())
    del settings["start"]["resizing"]
    (run.folder / "run.json").write_text(json.dumps(settings))
    finished(run)
    assert load_described(run.folder).resizing is None
    plain = tmp_path / "plain.safetensors"
    metadata = load_described(source).metadata
    assert metadata is not None
    plain.write_bytes(weights_bytes(resnetlab.load(source), replace(metadata, resizing=None)))
    assert tuned(plain, pictures, tmp_path).id == run.id


def test_a_damaged_run_is_one_line(source: Path, pictures: Path, tmp_path: Path) -> None:
    run = tuned(source, pictures, tmp_path)
    open_folder(run, 1, "cpu")
    settings = json.loads((run.folder / "run.json").read_text())
    settings["start"]["resizing"] = {"crop_share": 7}
    (run.folder / "run.json").write_text(json.dumps(settings))
    with pytest.raises(resnetlab.UserError, match=r"run.json: damaged, start.resizing.crop_share is 7, not"):
        finished(run)
