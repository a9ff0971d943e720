"""Export of a public network: its answers to CIFAR-10's real test images, in float32 and int8."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from resnetlab.data.open import open_data
from resnetlab.use.classifier import Classifier
from resnetlab.use.export import export

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def weights() -> Path:
    folder = ROOT.parent / "shared/data/weights/akamaster"
    if not folder.exists():
        pytest.skip(f"needs networks trained by others: {folder} is not there")
    return folder


@pytest.mark.slow
def test_the_first_thousand_of_cifar10(cifar10: Path, weights: Path, tmp_path: Path) -> None:
    data = open_data(f"cifar10:{cifar10}")
    classifier = Classifier.open(weights / "resnet20-12fca82f.th")
    found = export(classifier, tmp_path / "net.onnx", "onnx", data=replace(data, test=data.test[:1000])).parity
    assert found
    assert (found.pytorch_correct, found.same_predictions) == (915, 1000)


@pytest.mark.slow
@pytest.mark.parametrize(("file", "right"), [("resnet20-12fca82f.th", 9173), ("resnet56-4bfd9763.th", 9339)])
def test_all_of_cifar10_in_float32_and_int8(
    cifar10: Path, weights: Path, tmp_path: Path, file: str, right: int
) -> None:
    """The same 10,000 predictions; int8 within half a point."""
    data, classifier = open_data(f"cifar10:{cifar10}"), Classifier.open(weights / file)
    found = export(classifier, tmp_path / "float32.onnx", "onnx", data=data).parity
    assert found
    assert (found.pytorch_correct, found.same_predictions) == (right, 10_000)
    small = export(classifier, tmp_path / "int8.onnx", "onnx", calibrate=data, data=data).parity
    assert small
    assert abs(small.exported_top1 - small.pytorch_top1) <= 0.5
