"""`evaluate_on`: networks trained by others reach their accuracy here, on the real CIFAR-10."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from resnetlab.data.images import open_data
from resnetlab.training.evaluate import evaluate_on

# Files of ../shared/data/weights, the network, and how many of the 10,000 test images its author's code gets right.
PEERS = [
    ("akamaster/resnet20-12fca82f.th", "cifar_resnet20", 9173),
    ("akamaster/resnet56-4bfd9763.th", "cifar_resnet56", 9339),
    ("a-martyn/plainnet20.pt", "cifar_plain20", 9031),
    ("a-martyn/plainnet56.pt", "cifar_plain56", 8693),
    ("a-martyn/resnet20.pt", "cifar_resnet20", 9196),
    ("a-martyn/resnet56.pt", "cifar_resnet56", 9254),
]


@pytest.fixture(scope="session")
def weights() -> Path:
    """The folder of the files."""
    folder = Path(__file__).resolve().parents[2].parent / "shared/data/weights"
    if not folder.exists():
        pytest.skip(f"needs networks trained by others: {folder} is not there")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("file", "net", "right"), PEERS)
def test_accuracy_on_all_test_images(cifar10: Path, weights: Path, file: str, net: str, right: int) -> None:
    found = evaluate_on(weights / file, open_data(f"cifar10:{cifar10}"), net=net)
    assert (found.images, found.top1_correct) == (10_000, right)


@pytest.mark.parametrize(("net", "right"), [("cifar_resnet20", 915), ("cifar_resnet20(zero_pad=after)", 221)])
def test_the_first_thousand_and_where_the_zeros_stand(cifar10: Path, weights: Path, net: str, right: int) -> None:
    """Half before and half after, as the file's layout says; a name that says otherwise is taken at its word."""
    data = open_data(f"cifar10:{cifar10}")
    assert data.shape is not None
    found = evaluate_on(weights / "akamaster/resnet20-12fca82f.th", replace(data, test=data.test[:1000]), net=net)
    assert found.top1_correct == pytest.approx(right, abs=1)
