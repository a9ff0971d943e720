"""The accuracy that a run recorded: of its last and best weights, and of nothing else."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from resnetlab import build
from resnetlab.data.open import open_data
from resnetlab.use.classifier import Classifier
from resnetlab.use.recorded_accuracy import RecordedAccuracy, known_accuracy, recorded_accuracy
from resnetlab.weights import packaged
from resnetlab.weights.load import Loaded


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(run, tmp_path / "run")


def test_it_is_what_the_run_found_on_its_test_images(run: Path) -> None:
    wanted = 100 - json.loads((run / "result.json").read_text())["test_error"]
    for source in (run, run / "last" / "weights.safetensors"):
        found = Classifier.open(source).accuracy
        assert found == RecordedAccuracy(pytest.approx(wanted), len(open_data("digits").test))
    assert found is not None
    assert found.interval is not None
    low, high = found.interval
    assert 0 < low < wanted < high < 100


def test_the_best_weights_have_that_of_their_epoch(copied: Path) -> None:
    line = json.loads((copied / "metrics.jsonl").read_text().splitlines()[-1])
    errors = [(40.0, 30.0), (20.0, 32.0), (20.0, 25.0), (25.0, 28.0)]  # validation and test, %
    lines = [
        line | {"epoch": i, "validation_error": validation, "test_error": test}
        for i, (validation, test) in enumerate(errors, 1)
    ]
    (copied / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    (copied / "result.json").write_text(json.dumps(json.loads((copied / "result.json").read_text()) | {"epochs": 4}))
    shutil.copytree(copied / "last", copied / "best", dirs_exist_ok=True)
    best, last = (Classifier.open(copied, which=which).accuracy for which in ("best", "last"))
    assert best is not None
    assert last is not None
    assert (best.top1, last.top1) == (68.0, 72.0)


def test_where_nothing_fits_there_is_none(copied: Path) -> None:
    assert Classifier.open(copied).accuracy is not None
    weights = copied / "last" / "weights.safetensors"
    spec = Classifier.open(copied).net.spec
    assert recorded_accuracy(weights, spec) is not None
    assert recorded_accuracy(weights, replace(spec, input_size=16)) is None, "it was measured at 8 pixels"
    assert Classifier.open(copied, net="cifar_resnet8(zero_pad=around)").accuracy is None, "of another network"
    lone = shutil.copy(weights, copied.parent / "weights.safetensors")
    assert Classifier.open(lone).accuracy is None
    (copied / "result.json").rename(copied / "other.json")
    assert Classifier.open(copied).accuracy is None, "unfinished: the weights may be newer"
    (copied / "other.json").rename(copied / "result.json")
    result = json.loads((copied / "result.json").read_text())
    (copied / "result.json").write_text(json.dumps(result | {"epochs": result["epochs"] + 1}))
    assert Classifier.open(copied).accuracy is None, "its metrics were cut: their last line is not of these weights"
    (copied / "result.json").write_text(json.dumps(result))
    (copied / "metrics.jsonl").write_text("damaged\n")
    assert Classifier.open(copied).accuracy is None


def test_images_that_could_not_be_read_leave_their_number_open(copied: Path) -> None:
    *before, last = (copied / "metrics.jsonl").read_text().splitlines()
    lines = [*before, json.dumps(json.loads(last) | {"unreadable": 2})]
    (copied / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
    found = Classifier.open(copied).accuracy
    assert found is not None
    assert (found.images, found.interval) == (None, None)
    assert found.to_dict() == {"top1": found.top1}


def test_values_come_back() -> None:
    for accuracy in (RecordedAccuracy(70.5, 153), RecordedAccuracy(70.5)):
        assert RecordedAccuracy.from_dict(accuracy.to_dict()) == accuracy


def test_files_that_come_with_the_package_state_their_own() -> None:
    found = Classifier.open("pretrained:cifar_resnet20").accuracy
    measured = packaged.stated("cifar_resnet20").measured
    assert found == RecordedAccuracy(measured["top1"], measured["images"])
    assert Classifier.open("pretrained:cifar_resnet20", net="cifar_resnet20").accuracy == found
    for changes in ("zero_pad=around", "input_size=64"):
        assert Classifier.open("pretrained:cifar_resnet20", net=f"cifar_resnet20({changes})").accuracy is None
    assert Classifier.open("pretrained:cifar_resnet20", image_size=40).accuracy is None
    assert Classifier.open("pretrained:cifar_resnet20", normalise="imagenet").accuracy is None


@pytest.mark.parametrize("measured", [{}, {"top1": 101.0}, {"top1": "high"}, {"top1": 90.0, "images": 0}])
def test_a_file_that_states_nonsense_states_nothing(measured: dict[str, object]) -> None:
    metadata = replace(packaged.stated("cifar_resnet20"), measured=measured)
    loaded = Loaded(build("cifar_resnet20"), metadata, "resnetlab", Path("x.safetensors"))
    assert known_accuracy("x.safetensors", loaded, None) is None


def test_torchvisions_is_what_it_states() -> None:
    loaded = Loaded(build("resnet18"), None, "torchvision", Path("resnet18.pth"))
    assert known_accuracy("torchvision:resnet18", loaded, None) == RecordedAccuracy(69.758, 50_000)
    assert known_accuracy("resnet18.pth", loaded, None) is None
    assert known_accuracy("torchvision:resnet18", loaded, 160) is None
