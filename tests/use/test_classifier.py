"""A classifier: what it sees of an image, whether as a whole, and which networks it refuses."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from resnetlab import build
from resnetlab.data.normalisation import imagenet
from resnetlab.data.resizing import Resizing
from resnetlab.errors import UserError
from resnetlab.use.classifier import Classifier
from resnetlab.use.heat import CropArea
from resnetlab.weights.metadata import ModelMetadata, weights_bytes


def saved(
    path: Path,
    net: str = "cifar_resnet8",
    recipe: dict[str, Any] | None = None,
    resizing: Resizing | None = None,
    channels: int = 3,
) -> Path:
    """A weight file of an untrained network for images of 8 pixels; without a recipe, it states no preprocessing."""
    made = build(net, num_classes=3, in_channels=channels, input_size=8, seed=0)
    card = ModelMetadata(made.spec, tuple("abc"), imagenet(), recipe or {}, resizing=resizing)
    path.write_bytes(weights_bytes(made, made.spec if recipe is None else card))
    return path


@pytest.mark.parametrize(
    ("net", "recipe", "resizing", "whole"),
    [
        ("cifar_resnet8", {"data": "digits"}, None, True),
        ("resnet18", {"data": "cifar10:cifar-10-batches-py"}, None, True),
        ("cifar_resnet8", {"data": "folder:flowers"}, None, False),
        ("cifar_resnet8", {"data": "digits"}, Resizing(0.95), False),
        ("cifar_resnet8", {}, None, True),
        ("cifar_resnet8", None, None, True),
        ("resnet18", None, None, False),
    ],
)
def test_who_was_evaluated_on_whole_images_sees_them_whole(
    tmp_path: Path, net: str, recipe: dict[str, Any] | None, resizing: Resizing | None, whole: bool
) -> None:
    found = Classifier.open(saved(tmp_path / "net", net, recipe, resizing))
    assert found.whole == whole
    if whole:
        assert (found.short_side, found.seen) == (8, 1.0)
    else:
        assert (found.short_side, found.seen) == ((8, 0.95) if resizing else (9, 0.875))


def test_a_network_for_grey_images_sees_colours_as_pillow_makes_them_grey() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "PNG")
    net = build("cifar_resnet8", num_classes=3, in_channels=1, input_size=8, seed=0).eval()
    found = Classifier(net, tuple("abc"), imagenet(1), whole=True, device="cpu").prepare(written.getvalue())
    assert found.shape == (1, 8, 8)
    assert np.abs(found[0].numpy().astype(int) - np.asarray(Image.fromarray(pixels).convert("L"))).max() <= 1


def test_the_middle_of_a_resized_image_is_seen_and_told_where_it_lies() -> None:
    """Halves are rounded as torchvision's CenterCrop rounds them, to even numbers."""
    net = build("cifar_resnet8", num_classes=3, input_size=8, seed=0).eval()
    classifier = Classifier(net, tuple("abc"), imagenet(), whole=False, device="cpu")
    image = np.arange(9 * 19 * 3, dtype=np.uint16).reshape(9, 19, 3).astype(np.uint8)
    assert np.array_equal(classifier.crop(image), image[:8, 6:14].transpose(2, 0, 1))
    assert classifier.crop_area(image) == CropArea(6 / 19, 0, 8 / 19, 8 / 9)


def test_networks_that_cannot_answer_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a network for 2 channels, but images have 1 or 3"):
        Classifier.open(saved(tmp_path / "two", channels=2))
    net = build("cifar_resnet8", num_classes=3, input_size=8, seed=0)
    with torch.no_grad():
        net.get_parameter("fc.weight").fill_(3e38)  # finite, and its products are not
    (tmp_path / "huge").write_bytes(weights_bytes(net, net.spec))
    with pytest.raises(UserError, match="its output for a grey image is not finite: its weights are damaged"):
        Classifier.open(tmp_path / "huge")
